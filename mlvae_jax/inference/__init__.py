"""Posteriors and codes of images and of their groups, and their uses."""
