"""The ladder: one recipe trained more and more deeply, to see how far each step is worth it."""
