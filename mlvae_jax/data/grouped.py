"""Observations sorted by group, in RAM or in a file, and other groupings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import numbers
from typing import Any, NamedTuple

import numpy as np

from mlvae_jax.data.ids import offsets_of
from mlvae_jax.data.reordered import Reordered, take_rows
from mlvae_jax.model.checks import as_array, is_real


class Labels(NamedTuple):
  """One grouping of the rows of a data set.

  Attributes:
    ids: `[N]` int32, group of each row; -1 where it is unknown, which makes
      the row a group of its own.
    names: names of the groups.
  """

  ids: np.ndarray
  names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class GroupedData:
  """Observations sorted by group; there may be additional groupings.

  Wrong shapes, types and ids raise a ValueError. Values are not read, so that
  opening a large file takes no time; the likelihood checks whether they make
  sense.

  Attributes:
    x: `[N, ...]` numbers, such as uint8 images `[N, H, W, C]`; may be a file
      mapped into memory.
    offsets: `[G + 1]` int64; group g has the rows offsets[g]:offsets[g + 1].
    names: names of the G groups.
    grouping: name of the grouping, such as 'digit' or 'identity'.
    others: additional groupings, by name; the rows of their groups may be
      anywhere.
    row_names: `[N]` UTF-8 bytes (NumPy's `S`), name of each row at its source,
      or None where the source is fixed and its rows have no names.
  """

  x: np.ndarray
  offsets: np.ndarray
  names: tuple[str, ...]
  grouping: str = 'group'
  others: Mapping[str, Labels] = dataclasses.field(default_factory=dict)
  row_names: np.ndarray | None = None

  def __post_init__(self):
    _check_observations(self.x)
    num_rows, names = self.x.shape[0], tuple(self.names)
    fields = {
        'offsets': _check_offsets(self.offsets, num_rows, len(names)),
        'names': names,
        'others': _check_others(self.others, self.grouping, num_rows),
        'row_names': _check_row_names(self.row_names, num_rows)}
    for name, value in fields.items():
      object.__setattr__(self, name, value)  # The dataclass is frozen.

  @classmethod
  def from_labels(cls, x: Any, labels: Any,
                  names: Sequence[str] | None = None,
                  grouping: str = 'group',
                  others: Mapping[str, Labels] | None = None,
                  row_names: np.ndarray | None = None) -> GroupedData:
    """Sorts observations by group; within a group they keep their order.

    Args:
      x: `[N, ...]` numbers: an array, a list, a sparse matrix of SciPy, which
        becomes dense, or a file mapped into memory, which is not copied.
      labels: group of each row, `[N]` integers, strings or anything else that
        NumPy sorts. Or a dict of several groupings by name: rows are sorted by
        the first, and rows whose label of another is -1, '', None or NaN are
        groups of their own.
      names: names of the groups, where labels are integers in `[0, G)`; by
        default the distinct labels as strings, sorted.
      grouping: name of the grouping; with a dict its first name.
      others: additional groupings of the same rows, by number.
      row_names: optional `[N]` UTF-8 bytes, sorted with the observations.

    Returns:
      The observations, sorted by group.

    Raises:
      ValueError: on wrong shapes or dtypes, or labels out of range.
    """
    if not isinstance(x, Reordered):  # Which would be read into memory.
      x = as_array(x)
    _check_observations(x)
    others = dict(others or {})
    if isinstance(labels, Mapping):
      if names is not None or not labels:
        raise ValueError(
            'expected a dict of at least one grouping, without names')
      (grouping, labels), *more = labels.items()
      others |= {name: number_labels(ids) for name, ids in more}
    if names is None:
      labels, names = number_labels(labels)
      if np.any(labels < 0):
        raise ValueError(
            f'{int(np.sum(labels < 0))} rows have no label in the first '
            f'grouping, {grouping!r}; leave them out, or put another first')
    labels = _check_labels(labels, len(x), len(names), lowest=0)
    others = _check_others(others, grouping, len(x))
    row_names = _check_row_names(row_names, len(x))
    order = np.argsort(labels, kind='stable')
    count = np.bincount(labels, minlength=len(names))
    return cls(
        take_rows(x, order), offsets_of(count), tuple(names),
        grouping, {name: Labels(ids[order], group_names)
                   for name, (ids, group_names) in others.items()},
        None if row_names is None else row_names[order])

  def slice_groups(self, start: int, stop: int) -> GroupedData:
    """The groups `[start, stop)`, renumbered from 0; rows are not copied.

    Args:
      start: number of the first group.
      stop: number after that of the last group.

    Returns:
      Their rows.

    Raises:
      ValueError: on numbers outside `[0, G]`, or a stop before the start.
    """
    if not 0 <= start <= stop <= self.num_groups:
      raise ValueError(f'expected groups within [0, {self.num_groups}), got '
                       f'[{start}, {stop})')
    # Additional groupings keep all their groups: ids stay the same.
    first, last = self.offsets[start], self.offsets[stop]
    return dataclasses.replace(
        self, x=self.x[first:last],
        offsets=self.offsets[start:stop + 1] - first,
        names=self.names[start:stop], others={
            name: Labels(ids[first:last], names)
            for name, (ids, names) in self.others.items()},
        row_names=None if self.row_names is None
        else self.row_names[first:last])

  def take(self, rows: np.ndarray) -> GroupedData:
    """The given rows, sorted by group; groups keep their numbers."""
    return GroupedData.from_labels(
        take_rows(self.x, rows), self.labels[rows], self.names, self.grouping, {
            name: Labels(ids[rows], names)
            for name, (ids, names) in self.others.items()},
        None if self.row_names is None else self.row_names[rows])

  def __len__(self) -> int:
    return len(self.x)

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
    """The labels of a grouping; a ValueError on an unknown name."""
    if grouping == self.grouping:
      return Labels(self.labels, self.names)
    if grouping not in self.others:
      raise ValueError(
          f'no grouping {grouping!r}, expected one of {self.groupings}')
    return self.others[grouping]


def number_labels(labels: Any) -> Labels:
  """Numbers distinct labels in their order.

  Args:
    labels: `[N]` integers, strings or anything else that NumPy sorts.

  Returns:
    Numbers, -1 for labels that are -1, '', None, NaN or NaT, and names.

  Raises:
    ValueError: on labels that are not of one axis, of several types, or on
      integers of more than 63 bits.
  """
  _check_types(labels)
  labels = np.asarray(labels)
  if labels.ndim != 1:
    raise ValueError(f'expected labels of [N], got {list(labels.shape)}')
  if labels.dtype == object:
    known = np.array([_is_known(label) for label in labels], bool)
  elif labels.dtype.kind in 'US':
    known = labels != labels.dtype.type()
  elif labels.dtype.kind in 'fcMm':
    known = labels == labels  # Only NaN, and NaT among dates, are not.
  else:
    known = labels != -1 if labels.dtype.kind == 'i' else np.ones(
        len(labels), bool)
  ids = np.full(len(labels), -1, np.int32)
  names, ids[known] = np.unique(labels[known], return_inverse=True)
  return Labels(ids, tuple(
      name.decode() if isinstance(name, bytes) else str(name)
      for name in names.tolist()))


def _check_types(labels: Any) -> None:
  """Raises a ValueError where NumPy would make 1 and '1' the same label."""
  dtype = getattr(labels, 'dtype', np.dtype(object))
  if dtype != np.dtype(object) or not isinstance(labels, Iterable):
    return  # Of one type, or not labels at all.
  known = [label for label in labels if _is_known(label)]
  is_text = [isinstance(label, (str, bytes)) for label in known]
  if any(is_text) and not all(is_text):
    raise ValueError('expected labels of one type, got both numbers and text; '
                     'turn all of them into strings')
  if any(isinstance(label, numbers.Integral) and not -2**63 <= label < 2**63
         for label in known):
    raise ValueError('expected labels of at most 63 bits; turn them into '
                     'strings')


def _is_known(label: Any) -> bool:
  """Whether a label is other than '', None, NaN and the NA of pandas."""
  try:
    return label is not None and bool(label == label) and label != ''
  except (TypeError, ValueError):  # NA has no truth, and arrays have several.
    return False


def _check_observations(x: Any) -> None:
  dtype = getattr(x, 'dtype', None)
  shape = list(getattr(x, 'shape', ()))
  if len(shape) < 2 or dtype is None or not is_real(dtype):
    raise ValueError(
        'expected observations [N, ...] that are numbers, got '
        f'{type(x).__name__ if dtype is None else dtype} of {shape}'
        + ('; a single number per row is x[:, None]' * (len(shape) == 1)))


def _check_offsets(offsets: Any, num_rows: int, num_groups: int) -> np.ndarray:
  offsets = np.asanyarray(offsets)
  if offsets.shape != (num_groups + 1,) or offsets.dtype.kind not in 'iu':
    raise ValueError(
        f'expected offsets of [{num_groups + 1}] integers, one more than there '
        f'are names, got {offsets.dtype} of {list(offsets.shape)}')
  offsets = offsets.astype(np.int64, copy=False)
  if offsets[0] != 0 or offsets[-1] != num_rows or np.any(np.diff(offsets) < 0):
    raise ValueError(
        f'expected offsets that grow from 0 to the {num_rows} rows, got '
        f'offsets from {offsets[0]} to {offsets[-1]}'
        + (', not in order' if np.any(np.diff(offsets) < 0) else ''))
  return offsets


def _check_others(others: Mapping[str, Any], grouping: str, num_rows: int
                  ) -> dict[str, Labels]:
  if grouping in others:
    raise ValueError(
        f'two groupings are called {grouping!r}; give them different names')
  return {
      name: Labels(_check_labels(ids, num_rows, len(names), lowest=-1),
                   tuple(names))
      for name, (ids, names) in others.items()}


def _check_row_names(row_names: Any, num_rows: int) -> np.ndarray | None:
  if row_names is None:
    return None
  row_names = np.asanyarray(row_names)
  if not len(row_names) and not num_rows:
    # NumPy takes an empty list for floats.
    return row_names.astype('S')
  if row_names.shape != (num_rows,) or row_names.dtype.kind != 'S':
    raise ValueError(
        f'expected row_names of [{num_rows}] UTF-8 bytes, got '
        f'{row_names.dtype} of {list(row_names.shape)}')
  return row_names


def _check_labels(labels: Any, num_rows: int, num_groups: int, lowest: int
                  ) -> np.ndarray:
  """Labels as int32 `[N]` in `[lowest, num_groups)`."""
  labels = np.asanyarray(labels)
  if labels.shape != (num_rows,):
    raise ValueError(
        f'expected {num_rows} labels, one per image, got labels of '
        f'{list(labels.shape)}')
  if labels.dtype.kind not in 'iu' and num_rows:
    raise ValueError(f'expected integer labels, got {labels.dtype}')
  if num_rows and not lowest <= labels.min() <= labels.max() < num_groups:
    raise ValueError(
        f'expected labels in [{lowest}, {num_groups}), got labels from '
        f'{labels.min()} to {labels.max()}')
  return labels.astype(np.int32, copy=False)
