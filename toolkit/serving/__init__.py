"""What uses an exported bundle, without torch: the bundle itself and predictions on files, cameras and streams."""
