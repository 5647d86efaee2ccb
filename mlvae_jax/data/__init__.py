"""Observations sorted by group, and the batches that are drawn from them."""
