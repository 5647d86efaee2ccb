"""What data hold: a check of their values, and a fingerprint.

Both read the observations block by block, so that a file mapped into memory
may be larger than RAM.
"""

from __future__ import annotations

from collections.abc import Iterator
import hashlib
import math
from typing import Any

import numpy as np

from mlvae_jax.data.grouped import GroupedData
from mlvae_jax.model.model import Model

_BLOCK = 1 << 22  # Numbers that are read at once.


def check_fit(model: Model, data: GroupedData, what: str = 'data') -> None:
  """Checks that a model can be trained on data, all values included.

  Args:
    model: the model.
    data: the observations.
    what: phrase for the data, for the message.

  Raises:
    ValueError: on no rows, another shape or type than the model's, a grouping
      that the data lack, or a value that the likelihood cannot have; it names
      the first such row.
  """
  if not len(data):
    raise ValueError(f'{what}: expected at least one row')
  shape = tuple(data.x.shape[1:])
  if shape != model.observation_shape:
    raise ValueError(
        f'{what}: expected observations of {list(model.observation_shape)}, '
        f'as the model has, got {list(shape)}')
  for factor in model.grouped:
    if factor.grouping not in data.groupings:
      raise ValueError(
          f'{what}: factor {factor.name!r} is grouped by {factor.grouping!r}, '
          f'but the rows are grouped by {", ".join(data.groupings)}')
  check_values(model, data, what)


def check_values(model: Model, data: GroupedData, what: str = 'data') -> None:
  """Checks that the likelihood can have all values of data.

  In training they are traced, and no likelihood could check them there.

  Args:
    model: the model.
    data: observations of its shape.
    what: phrase for the data, for the message.

  Raises:
    ValueError: where it cannot; it names the first such row, and the remedy.
  """
  if data.x.dtype == np.uint8 and model.likelihood.takes_pixels:
    return  # Any are valid, and there may be many.
  try:
    model.prepare(np.asarray(data.x[:0]))
  except ValueError as error:  # Of the type, not of a row.
    raise ValueError(f'{what}: {error}') from error
  for start, rows in _blocks(data):
    _check_32_bits(rows, what)
    try:
      model.prepare(rows)
    except ValueError:
      number = _first_bad(model, rows)
      _raise_bad_row(model, rows[number:number + 1], data, start + number, what)


def _check_32_bits(rows: np.ndarray, what: str) -> None:
  """Raises a ValueError on integers that devices could not hold."""
  if rows.dtype.kind not in 'iu' or rows.dtype.itemsize < 4 or not rows.size:
    return
  limits = np.iinfo(np.int32)
  if rows.min() < limits.min or rows.max() > limits.max:
    raise ValueError(
        f'{what}: expected integers of 32 bits, got {rows.min()} to '
        f'{rows.max()}; pass them as floats')


def fingerprint(data: GroupedData) -> dict[str, Any]:
  """A record by which data are recognised again; plain JSON.

  Args:
    data: the observations.

  Returns:
    Numbers of rows and groups, and the SHA-256 of observations and groups.
  """
  digest = hashlib.sha256(f'{data.x.dtype}{list(data.x.shape)}'.encode())
  for _, rows in _blocks(data):
    digest.update(_bytes(rows))
  for name in data.groupings:
    labels = data.labels_of(name)
    digest.update(repr((name, labels.names)).encode())
    digest.update(_bytes(labels.ids))
  return {'rows': len(data), 'groups': data.num_groups,
          'sha256': digest.hexdigest()}


def _bytes(x: np.ndarray) -> memoryview:
  """The bytes of an array, of any type, for a digest."""
  return np.ascontiguousarray(x).view(np.uint8).data


def _blocks(data: GroupedData) -> Iterator[tuple[int, np.ndarray]]:
  """Yields the first row number of each block, and its rows."""
  size = max(1, _BLOCK // math.prod(data.x.shape[1:]))
  for start in range(0, len(data), size):
    yield start, np.asarray(data.x[start:start + size])


def _first_bad(model: Model, rows: np.ndarray) -> int:
  """The first of some rows that is not valid, where not all are."""
  # Halves: by rows it would take as many calls as there are rows.
  first, last = 0, len(rows)
  while last - first > 1:
    middle = (first + last) // 2
    try:
      model.prepare(rows[first:middle])
      first = middle
    except ValueError:
      last = middle
  return first


def _raise_bad_row(model: Model, row: np.ndarray, data: GroupedData,
                   number: int, what: str) -> None:
  group = int(np.searchsorted(data.offsets, number, side='right')) - 1
  where = (f'{what}: row {number} (rows are sorted by group; this one is of '
           f'{data.grouping} {data.names[group]!r})')
  try:
    model.prepare(row)
  except ValueError as error:
    raise ValueError(f'{where}: {error}') from error
