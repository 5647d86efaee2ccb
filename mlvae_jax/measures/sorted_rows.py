"""What verification and few-shot recognition share: rows sorted by group."""

from __future__ import annotations

import numpy as np

from mlvae_jax.data.ids import ranks_of


def draw_rows(rng, starts, sizes, limit):
  """Draws up to `limit` random rows of each group, without repeats.

  Args:
    rng: NumPy generator; consumes one number per row.
    starts: `[G]`, first row of each group.
    sizes: `[G]`, number of rows of each group.
    limit: largest number of rows to draw of a group.

  Returns:
    Rows, groups in `[0, G)`, and ranks from 0 within the group, `[M]` each.
    They are sorted by group, with a group's rows in random order.
  """
  group = np.repeat(np.arange(len(sizes)), sizes)
  rank = ranks_of(sizes)
  # Sorting by a random number within each group shuffles its rows in place.
  first = np.arange(len(group)) - rank
  shuffled = np.lexsort((rng.random(len(group)), group)) - first
  kept = rank < limit
  return (starts[group] + shuffled)[kept], group[kept], rank[kept]


def unit_rows(x):
  """Rows `[..., D]` divided by their norms, in float64; zeros stay zeros."""
  x = np.asarray(x, np.float64)
  length = np.linalg.norm(x, axis=-1, keepdims=True)
  return x / np.where(length > 0, length, 1.0)


def check_at_least(lowest, **numbers):
  """Raises a ValueError that names the first number below `lowest`."""
  for name, number in numbers.items():
    if number < lowest:
      raise ValueError(f'expected {name} >= {lowest}, got {number}')
