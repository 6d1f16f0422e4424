"""The check of a dataset: everything is decoded, measured, compared and reported."""
