"""Comparisons of settings, each given by a TOML file in this folder."""
