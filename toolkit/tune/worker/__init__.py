"""Workers: processes that take trials of a study, train them as runs and tell the study what they are worth."""
