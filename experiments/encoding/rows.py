"""Rows of a data set as a model takes them, and the groups that they are of."""

from __future__ import annotations

from collections.abc import Mapping
import hashlib
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.cli import UserError
from experiments.datasets.splits import Scale
from mlvae_jax.data.grouped import GroupedData
from mlvae_jax.model.model import Model, Params


class Range(NamedTuple):
  """Some successive rows of a part of a data set."""

  part: str
  start: int
  stop: int


class Prepared:
  """Rows that are read, converted and checked when they are asked for.

  It stands for an array of observations in `evaluation.encoding.encode_rows`.
  """

  def __init__(self, model: Model, data: GroupedData, rows: Range,
               scale: Scale | None):
    self._model, self._data, self._rows = model, data, rows
    self._scale = scale

  def __len__(self) -> int:
    return self._rows.stop - self._rows.start

  def __getitem__(self, rows: np.ndarray) -> np.ndarray:
    """Rows by number, counted from the first of the range."""
    x = as_trained_on(
        self._model, np.asarray(self._data.x[self._rows.start + rows]),
        self._scale)
    if x.dtype == np.uint8 and self._model.likelihood.takes_pixels:
      return x  # Any are valid.
    try:
      self._model.prepare(x)
    except ValueError as error:
      first = row_names(self._data, self._rows)[int(rows[0])]
      raise UserError(
          f'near row {first!r}: {error}; check that the data are valid and '
          'on the scale of the training data') from error
    return x


def as_trained_on(model: Model, x: np.ndarray, scale: Scale | None
                  ) -> np.ndarray:
  """Observations in the form and on the scale that a model was trained on.

  Args:
    model: model of the run.
    x: `[N, ...]`, of which `check_shape` accepts the shape.
    scale: what standardising subtracted and divided by, if the run does so.

  Returns:
    `[N, *observation_shape]`.
  """
  if scale is not None:
    x = (np.asarray(x, np.float32) - scale.mean) / scale.std
  # A grey image among coloured ones has three equal channels.
  return np.broadcast_to(x, (len(x), *model.observation_shape))


def check_shape(model: Model, x: Any, what: str) -> None:
  """Raises a UserError if observations do not have the shape of a model's.

  Grey images are accepted by a model of RGB images.

  Args:
    model: model of the run.
    x: `[N, ...]`.
    what: what they are, for the message.
  """
  shape, expected = tuple(x.shape[1:]), model.observation_shape
  if shape == expected or (
      len(shape) == 3 and shape == (*expected[:-1], 1) and expected[-1] == 3
      and x.dtype == np.uint8):
    return
  if shape[:-1] == expected[:-1] and (shape[-1], expected[-1]) == (3, 1):
    raise UserError(
        f'{what} has colour images, but the run was trained on grey ones; '
        'convert the images to grey')
  raise UserError(
      f'{what} has observations of shape {list(shape)}, but the model of the '
      f'run takes {list(expected)}; check --data_dir')


def check_groupings(model: Model, data: GroupedData, what: str) -> None:
  """Raises a UserError if data lack a grouping of a model's factors."""
  for factor in model.grouped:
    if factor.grouping not in data.groupings:
      raise UserError(
          f'factor {factor.name!r} of the run is grouped by '
          f'{factor.grouping!r}, but {what} has only the groupings '
          f'{", ".join(data.groupings)}; check --data_dir')


def ranges(parts: Mapping[str, GroupedData], share: tuple[int, int],
           size: int) -> list[Range]:
  """Divides the rows of a data set.

  Args:
    parts: the data set.
    share: (i, n) for the i-th of n equal shares of the rows, from 0.
    size: largest number of rows in a range.

  Returns:
    Ranges that make up this share, in order.
  """
  total = sum(map(len, parts.values()))
  i, n = share
  start, stop = i * total // n, (i + 1) * total // n
  found, before = [], 0
  for name, data in parts.items():
    first, last = (min(max(row - before, 0), len(data))
                   for row in (start, stop))
    found += [Range(name, row, min(row + size, last))
              for row in range(first, last, size)]
    before += len(data)
  return found


def row_names(data: GroupedData, rows: Range) -> list[str]:
  """The names of rows in their source; without names, split and number."""
  numbers = range(rows.start, rows.stop)
  if data.row_names is None:
    prefix = f'{rows.part}/' if rows.part else ''
    return [f'{prefix}{number}' for number in numbers]
  return [bytes(name).decode(errors='replace')
          for name in data.row_names[rows.start:rows.stop]]


class Groups:
  """The groups of one grouping in all parts of a data set.

  Attributes:
    names: their names, distinct and valid UTF-8.
  """

  def __init__(self, parts: Mapping[str, GroupedData], grouping: str):
    self._grouping, self._parts = grouping, parts
    self._number, place = {}, {}
    for part, data in parts.items():
      own = (data.names if grouping == data.grouping
             else data.others[grouping].names)
      # In several parts a group may have different numbers, but has one name.
      self._number[part] = np.fromiter(
          (place.setdefault(_valid(name), len(place)) for name in own),
          np.int64, len(own))
    self.names = list(place)

  def ids(self, rows: Range) -> np.ndarray:
    """The group of each row, `[N]` ints; -1 where it is unknown."""
    data = self._parts[rows.part]
    if self._grouping == data.grouping:
      # Not `data.labels`, which would be an array of all rows.
      ids = np.searchsorted(data.offsets, np.arange(rows.start, rows.stop),
                            side='right') - 1
    else:
      ids = np.asarray(
          data.others[self._grouping].ids[rows.start:rows.stop])
    number = np.append(self._number[rows.part], -1)  # The last is of -1.
    return number[ids]

  def of(self, rows: Range) -> list[str | None]:
    """The name of the group of each row; None where it is unknown."""
    return [None if i < 0 else self.names[i] for i in self.ids(rows)]


def digest_of(model: Model, params: Params) -> str:
  """A SHA-256 by which a trained model is recognised, in hexadecimal."""
  found = hashlib.sha256(repr(model.to_dict()).encode())
  for leaf in jax.tree.leaves(params):
    found.update(np.ascontiguousarray(leaf).view(np.uint8).data)
  return found.hexdigest()


def _valid(name: str) -> str:
  """A name without halves of characters, which UTF-8 cannot encode."""
  return name.encode(errors='backslashreplace').decode()
