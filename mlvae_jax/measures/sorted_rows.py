"""Rows sorted by group, and what recognition does with them.

`offsets [G + 1]` says where the rows of a group are: group g has the rows
offsets[g]:offsets[g + 1].
"""

from __future__ import annotations

import numpy as np

from mlvae_jax.data.ids import ranks_of


def draw_rows(rng, starts, sizes, limit):
  """Up to `limit` random rows of each group: rows, groups, ranks, `[M]` each.

  They are sorted by group, and in random order inside it; groups are numbers
  in `[0, len(starts))`, and ranks count from 0 in each group.
  """
  group = np.repeat(np.arange(len(sizes)), sizes)
  rank = ranks_of(sizes)
  first = np.arange(len(group)) - rank
  shuffled = np.lexsort((rng.random(len(group)), group)) - first
  kept = rank < limit
  return (starts[group] + shuffled)[kept], group[kept], rank[kept]


def unit_rows(x):
  """Rows `[..., D]` divided by their lengths, float64; zeros stay zeros."""
  x = np.asarray(x, np.float64)
  length = np.linalg.norm(x, axis=-1, keepdims=True)
  return x / np.where(length > 0, length, 1.0)


def check_at_least(lowest, **numbers):
  """Raises a ValueError that names the first number below `lowest`."""
  for name, number in numbers.items():
    if number < lowest:
      raise ValueError(f'expected {name} >= {lowest}, got {number}')
