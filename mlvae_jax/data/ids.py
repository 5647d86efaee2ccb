"""Numbers of groups: rows of unknown group, ranks within a group, offsets."""

from __future__ import annotations

import numpy as np


def fill_unknown(ids: np.ndarray, numbers: np.ndarray | None = None
                 ) -> np.ndarray:
  """Makes every row whose group is unknown a group of its own.

  Args:
    ids: `[N]` ints, group of each row; -1 where it is unknown.
    numbers: `[N]` ints, what to call the group of a row if it is unknown; by
      default the numbers that follow the largest id.

  Returns:
    `[N]` int64 without -1.
  """
  ids = np.array(ids, np.int64)
  unknown = ids < 0
  if numbers is None:
    first = ids.max(initial=-1) + 1
    ids[unknown] = first + np.arange(np.sum(unknown))
  else:
    ids[unknown] = numbers[unknown]
  return ids


def offsets_of(sizes: np.ndarray) -> np.ndarray:
  """Where groups begin and end if their rows follow each other.

  Args:
    sizes: `[G]` ints, rows of each group.

  Returns:
    `[G + 1]`; group g has the rows offsets[g]:offsets[g + 1].
  """
  return np.concatenate([[0], np.cumsum(sizes)])


def ranks_of(sizes: np.ndarray) -> np.ndarray:
  """Counts the rows of each group from 0 if they follow each other.

  Args:
    sizes: `[G]` ints, rows of each group.

  Returns:
    `[N]` ints: 0, 1, ..., sizes[0] - 1, 0, 1, ..., sizes[1] - 1, ...
  """
  return np.arange(np.sum(sizes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def rank_within_group(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Counts the rows of each group from 0, wherever they are.

  Args:
    ids: `[N]` ints from 0, group of each row.

  Returns:
    `[N]` ints, how many earlier rows are of the same group, and `[N]` ints,
    how many rows that group has.
  """
  sizes = np.bincount(ids)
  rank = np.empty(len(ids), np.int64)
  rank[np.argsort(ids, kind='stable')] = ranks_of(sizes)
  return rank, sizes[ids]
