"""Pictures made of test images, and their layout."""
