"""Observations sorted by group, and the batches drawn from them."""
