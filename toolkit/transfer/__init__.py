"""Pretrained weights on a new task, public to model plugins: reading files, matching names, freezing."""
