"""Images sorted by group, in RAM or in a file, and their further groupings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
from typing import NamedTuple

import numpy as np


class Labels(NamedTuple):
  """One grouping of the rows of a data set.

  Attributes:
    ids: `[N]` int32, group of each row; -1 where it is not known, and the
      row is a group of its own.
    names: of the groups.
  """

  ids: np.ndarray
  names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class GroupedImages:
  """Images sorted by group; there may be further groupings.

  Attributes:
    images: `[N, H, W, C]` uint8; may be a file mapped into memory.
    offsets: `[G + 1]` int64; group g has the rows offsets[g]:offsets[g + 1].
    names: name of each group, G of them.
    grouping: what a group is: 'digit', 'identity', ...
    others: the further groupings, by name; their groups may have rows
      anywhere.
    row_names: `[N]` UTF-8 bytes (NumPy's `S`), what each row is called at its
      source, or None where the source is fixed and its rows have no names.
  """

  images: np.ndarray
  offsets: np.ndarray
  names: tuple[str, ...]
  grouping: str = 'group'
  others: Mapping[str, Labels] = dataclasses.field(default_factory=dict)
  row_names: np.ndarray | None = None

  @classmethod
  def from_labels(cls, images: np.ndarray, labels: np.ndarray,
                  names: Sequence[str], grouping: str = 'group',
                  others: Mapping[str, Labels] | None = None,
                  row_names: np.ndarray | None = None) -> GroupedImages:
    """Sorts images by group; within a group the order stays.

    Args:
      images: `[N, H, W, C]` uint8.
      labels: `[N]` ints in `[0, G)`, the group of each image.
      names: name of each group.
      grouping: what a group is.
      others: further groupings of the same rows, which are sorted with them.
      row_names: optional `[N]` UTF-8 bytes, sorted with them too.

    Returns:
      The images, sorted.

    Raises:
      ValueError: on shapes, dtypes or labels that do not fit.
    """
    labels = np.asarray(labels)
    if images.ndim != 4 or images.dtype != np.uint8:
      raise ValueError(
          f'expected uint8 images of [N, H, W, C], got {images.dtype} of '
          f'{list(images.shape)}')
    _check_labels(labels, len(images), len(names), lowest=0)
    others = dict(others or {})
    for name, (ids, group_names) in others.items():
      if name == grouping:
        raise ValueError(f'two groupings are called {name!r}')
      _check_labels(np.asarray(ids), len(images), len(group_names), lowest=-1)
    order = np.argsort(labels, kind='stable')
    count = np.bincount(labels, minlength=len(names))
    offsets = np.concatenate([[0], np.cumsum(count)])
    return cls(images[order], offsets, tuple(names), grouping, {
        name: Labels(np.asarray(ids)[order].astype(np.int32), tuple(names))
        for name, (ids, names) in others.items()},
               None if row_names is None else np.asarray(row_names)[order])

  def slice_groups(self, start: int, stop: int) -> GroupedImages:
    """The groups from start to stop, without copying images."""
    first, last = self.offsets[start], self.offsets[stop]
    return dataclasses.replace(
        self, images=self.images[first:last],
        offsets=self.offsets[start:stop + 1] - first,
        names=self.names[start:stop], others={
            name: Labels(ids[first:last], names)
            for name, (ids, names) in self.others.items()},
        row_names=None if self.row_names is None
        else self.row_names[first:last])

  def take(self, rows: np.ndarray) -> GroupedImages:
    """The given rows, sorted by group; every group keeps its number."""
    return GroupedImages.from_labels(
        self.images[rows], self.labels[rows], self.names, self.grouping, {
            name: Labels(ids[rows], names)
            for name, (ids, names) in self.others.items()},
        None if self.row_names is None else self.row_names[rows])

  def __len__(self) -> int:
    return len(self.images)

  @property
  def num_groups(self) -> int:
    """Number of groups, G."""
    return len(self.names)

  @property
  def labels(self) -> np.ndarray:
    """Group of each row, `[N]` int32."""
    return np.repeat(
        np.arange(self.num_groups, dtype=np.int32), np.diff(self.offsets))

  @property
  def groupings(self) -> tuple[str, ...]:
    """Names of all groupings; rows are sorted by the first."""
    return (self.grouping, *self.others)

  def labels_of(self, grouping: str) -> Labels:
    """The labels of a grouping; a ValueError where there is none so called."""
    if grouping == self.grouping:
      return Labels(self.labels, self.names)
    if grouping not in self.others:
      raise ValueError(
          f'no grouping {grouping!r}, expected one of {self.groupings}')
    return self.others[grouping]


def _check_labels(labels: np.ndarray, num_rows: int, num_groups: int,
                  lowest: int) -> None:
  if labels.shape != (num_rows,):
    raise ValueError(f'expected {num_rows} labels, got {list(labels.shape)}')
  if not np.issubdtype(labels.dtype, np.integer):
    raise ValueError(f'expected integer labels, got {labels.dtype}')
  if len(labels) and not lowest <= labels.min() <= labels.max() < num_groups:
    raise ValueError(
        f'expected labels in [{lowest}, {num_groups}), got labels from '
        f'{labels.min()} to {labels.max()}')
