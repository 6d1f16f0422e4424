"""Speed claims as ratios, measured side by side: `python -m bench NAME`."""
