"""Rows of a file in another order, without a copy of the file in memory."""

from __future__ import annotations

from typing import Any

import numpy as np


class Reordered:
  """Rows of an array in another order, read when they are asked for.

  It stands for an array `[N, ...]` as far as rows are taken of it.
  """

  def __init__(self, source: np.ndarray, order: np.ndarray):
    """Keeps both.

    Args:
      source: `[M, ...]`, such as a file mapped into memory.
      order: `[N]` ints, which row of the source each row is.
    """
    self._source, self._order = source, order
    self.shape = (len(order), *source.shape[1:])
    self.dtype, self.ndim = source.dtype, source.ndim
    self.size = len(order) * int(np.prod(source.shape[1:]))
    self.nbytes = self.size * source.itemsize

  def __len__(self) -> int:
    return len(self._order)

  def __getitem__(self, rows: Any) -> np.ndarray | Reordered:
    """Rows by number, as an array; of a slice, without reading them."""
    order = self._order[rows]
    if isinstance(rows, slice):
      return Reordered(self._source, order)
    return np.asarray(self._source[order])

  def take(self, rows: np.ndarray) -> Reordered:
    """Rows by number, without reading them."""
    return Reordered(self._source, self._order[rows])

  def __array__(self, dtype=None, copy=None) -> np.ndarray:
    return np.asarray(self._source[self._order], dtype)


def take_rows(x: Any, rows: np.ndarray) -> Any:
  """Rows of an array; of a file mapped into memory without reading them.

  Args:
    x: `[N, ...]`.
    rows: `[M]` ints.

  Returns:
    `[M, ...]`.
  """
  if isinstance(x, Reordered):
    return x.take(rows)
  if not isinstance(x, np.memmap):
    return x[rows]
  # A slice of a store is sorted as it is, and stays a plain array.
  in_place = np.array_equal(rows, np.arange(len(x)))
  return x if in_place else Reordered(x, rows)
