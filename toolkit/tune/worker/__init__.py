"""Workers: processes that take trials of a study, train them as runs and report their scores to the study."""
