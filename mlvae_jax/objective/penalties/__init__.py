"""Penalties on codes: what they should reveal of groups, and should not."""
