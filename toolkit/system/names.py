"""Names of files by which one room knows another's folder without asking it."""

BEST_CHECKPOINT = "best.pt"
"""In the folder of a run that has trained an epoch."""
