"""Codes of a run, taken out of the project: of images and of their groups."""
