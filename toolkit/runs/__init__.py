"""Run directories: how a run starts, resumes, is evaluated, shown and reported."""
