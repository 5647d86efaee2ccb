"""Sources of images as streams of records, and decoding of images."""
