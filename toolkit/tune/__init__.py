"""Studies: search spaces, trials, workers and the best of them."""
