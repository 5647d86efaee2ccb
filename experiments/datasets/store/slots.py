"""The content of a partial store's slots: groups, images and names."""

from __future__ import annotations

import array
from typing import BinaryIO

import numpy as np


class SlotGroups:
  """The groups of one grouping, and the group of each slot.

  Attributes:
    names: names of the groups.
    ids: group of each slot; -1 if it is unknown.
  """

  def __init__(self):
    self.names: list[str] = []
    self.ids = array.array('i')
    self._id_of: dict[str, int] = {}

  def find(self, name: str) -> int | None:
    """The number of a group; None if it has none yet."""
    return self._id_of.get(name)

  def id_of(self, name: str) -> int:
    """The number of a group, a new one if it has none yet; -1 for ''."""
    if not name:
      return -1
    if name not in self._id_of:
      self._id_of[name] = len(self.names)
      self.names.append(name)
    return self._id_of[name]

  def restore(self, names: list[str], ids: np.ndarray) -> None:
    """Takes over names and ids that were saved."""
    self.names = names
    self.ids.frombytes(ids.astype(np.int32).tobytes())
    self._id_of = {name: i for i, name in enumerate(names)}


class SlotRows:
  """The images in the slots of a file, or their names, read one by one.

  If the file were mapped into memory, everything that was ever read would
  count as memory of the process.

  Attributes:
    dtype: type of the values.
    shape: shape of all rows.
  """

  def __init__(self, file: BinaryIO, slot_bytes: int, start: int,
               dtype: np.dtype, shape: tuple[int, ...],
               num_channels: int | None = None):
    self._file, self._slot_bytes, self._start = file, slot_bytes, start
    self.dtype, self._row_shape = dtype, shape[1:]
    # A slot has three channels, even if all images are grey.
    self.shape = (*shape[:-1], num_channels) if num_channels else shape

  def __getitem__(self, rows: np.ndarray) -> np.ndarray:
    values = np.empty((len(rows), *self._row_shape), self.dtype)
    for target, row in zip(
        values.view(np.uint8).reshape(len(rows), -1), rows):
      self._file.seek(int(row) * self._slot_bytes + self._start)
      self._file.readinto(target)
    return values[..., :self.shape[-1]] if self._row_shape else values
