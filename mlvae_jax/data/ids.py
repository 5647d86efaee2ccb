"""Ids of groups: rows of unknown group, ranks within a group, offsets."""

from __future__ import annotations

import numpy as np


def fill_unknown(ids: np.ndarray, numbers: np.ndarray | None = None
                 ) -> np.ndarray:
  """Makes every row whose group is unknown a group of its own.

  Args:
    ids: `[N]` ints, group of each row; -1 where it is unknown.
    numbers: `[N]` ints, id to give to the group of a row if it is unknown; by
      default the ids that follow the largest.

  Returns:
    `[N]` int64 ids without -1.
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
    sizes: `[G]` ints, number of rows of each group.

  Returns:
    `[G + 1]`; group g has the rows offsets[g]:offsets[g + 1].
  """
  return np.concatenate([[0], np.cumsum(sizes)])


def ranks_of(sizes: np.ndarray) -> np.ndarray:
  """Numbers the rows of each group from 0 if they follow each other.

  Args:
    sizes: `[G]` ints, number of rows of each group.

  Returns:
    `[N]` ints: 0, 1, ..., sizes[0] - 1, 0, 1, ..., sizes[1] - 1, ...
  """
  return np.arange(np.sum(sizes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def check_offsets(offsets: np.ndarray, num_rows: int | None = None
                  ) -> np.ndarray:
  """Checks where groups begin and end.

  Args:
    offsets: `[G + 1]` ints; group g has the rows offsets[g]:offsets[g + 1].
    num_rows: optional number of rows, N.

  Returns:
    The offsets as int64.

  Raises:
    ValueError: on offsets that do not grow from 0, or not to N.
  """
  offsets = np.asarray(offsets, np.int64)
  if offsets.ndim != 1 or len(offsets) < 2 or offsets[0] != 0 or np.any(
      np.diff(offsets) < 0):
    raise ValueError('expected [G + 1] offsets that grow from 0')
  if num_rows is not None and offsets[-1] != num_rows:
    raise ValueError(
        f'expected offsets of {num_rows} rows, got {offsets[-1]}')
  return offsets


def rank_within_group(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Numbers the rows of each group from 0, wherever they are.

  Args:
    ids: `[N]` ints from 0, group of each row.

  Returns:
    `[N]` ints, the number of earlier rows of the same group, and `[N]` ints,
    the number of rows of that group.
  """
  sizes = np.bincount(ids)
  rank = np.empty(len(ids), np.int64)
  # A stable sort by group keeps the order of rows within each group.
  rank[np.argsort(ids, kind='stable')] = ranks_of(sizes)
  return rank, sizes[ids]
