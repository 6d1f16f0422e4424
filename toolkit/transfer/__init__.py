"""Pretrained weights on a new task, public to model plugins: reading, matching, freezing and thawing."""
