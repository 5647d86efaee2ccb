"""Pictures made of test images, and how they are laid out."""
