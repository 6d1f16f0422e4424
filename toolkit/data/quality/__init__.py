"""What pixels, files and labels show of the quality of a dataset: arithmetic on arrays, without torch."""
