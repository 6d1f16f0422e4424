"""Runs held against each other: their protocols, recipes, scores with intervals, items, curves and cost."""
