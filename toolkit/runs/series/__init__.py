"""Series: runs of one recipe with several seeds, folds or values, trained one after the other and summed up."""
