"""Posteriors and codes of images and of their groups; what to do with them."""
