"""Bundles in use, without torch: the bundle itself, and predictions on files, cameras and streams."""
