"""What is known of items in any case: scores are given by these columns, besides those of the metadata."""

SOURCE, SIZE, BRIGHTNESS = "source", "size", "brightness"
"""What an item comes from, its shorter side in pixels, and its mean luminance, 0 to 255."""
