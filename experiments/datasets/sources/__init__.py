"""What files there are, as streams of records; decoding of images."""
