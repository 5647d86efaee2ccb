"""The images of a data set from which the evaluation predicts labels.

They have three parts, on which a probe is trained, selected and scored. If all
labels of the scored images occur in training, the parts are the three splits;
otherwise all three are taken from the split that is scored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments.datasets.splits import Splits
from mlvae_jax.data.grouped import GroupedData, Labels
from mlvae_jax.data.ids import offsets_of, rank_within_group
from mlvae_jax.measures import probes

SPLITS = ('train', 'validation', 'test')
# Limits that are enough of a large data set.
MAX_CLASSES, MAX_IMAGES = 1000, 50_000
MAX_TRAIN, MAX_HELD_OUT = 20_000, 10_000
MIN_ROWS = 5  # Classes with fewer rows are left out: a fifth would be none.
SEED = 0


class Part(NamedTuple):
  """Images with their labels.

  Attributes:
    split: name of the split that has the images.
    rows: `[N]` distinct rows of the split.
    labels: `[N]` ints in `[0, num_classes)`.
  """

  split: str
  rows: np.ndarray
  labels: np.ndarray

  def take(self, index: np.ndarray | slice) -> Part:
    """Some of the images."""
    return Part(self.split, self.rows[index], self.labels[index])

  def windows(self, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sets of k images of a label: rows `[M, k]` and labels `[M]`.

    See `probes.evidence_windows`, which expects images sorted by label.
    """
    order = np.argsort(self.labels, kind='stable')
    offsets = offsets_of(np.bincount(self.labels))
    windows, labels = probes.evidence_windows(offsets, k, seed)
    return self.rows[order[windows]], labels


class LabelSet(NamedTuple):
  """A grouping, and the images from which its labels are to be learned.

  Attributes:
    grouping: name of the grouping.
    num_classes: number of its labels that take part.
    parts: images on which probes are trained, selected and scored.
  """

  grouping: str
  num_classes: int
  parts: tuple[Part, Part, Part]

  @property
  def max_evidence(self) -> int:
    """The largest k for which every part has a set of k images."""
    return min(int(np.bincount(p.labels, minlength=1).max())
               for p in self.parts)


def first(data: Splits, scored: str = 'test',
          limits: Sequence[int | None] = (None,) * 3) -> LabelSet:
  """The images from which the labels of the first grouping are learned.

  If the splits share groups, all labels take part, however few images they
  have. Otherwise, the images of the scored split are divided 60/20/20 within
  each group of at least `MIN_ROWS`. Parts may be empty.

  Args:
    data: splits of the data set.
    scored: split to score on, 'test' or 'validation'.
    limits: maximum number of images of each part; larger parts are reduced at
      random. None for all.

  Returns:
    The images.
  """
  if data.shares_groups:
    found = LabelSet(data.grouping, data.train.num_groups, _three(
        lambda name: _all_of(name, getattr(data, name)), scored))
  else:
    found = _from_one(
        data.grouping, scored, getattr(data, scored).labels_of(data.grouping))
  return found._replace(parts=tuple(
      part.take(np.sort(_shuffled(len(part.rows))[:limit]))
      for part, limit in zip(found.parts, limits)))


def first_groups(data: GroupedData) -> GroupedData:
  """The first groups, as many as are enough for an evaluation.

  In a packed store the order of groups is random.
  """
  within = np.searchsorted(data.offsets, MAX_IMAGES, side='right') - 1
  return data.slice_groups(
      0, int(max(1, min(data.num_groups, MAX_CLASSES, within))))


def choose(data: Splits, grouping: str, scored: str = 'test'
           ) -> LabelSet | None:
  """Chooses images from which the labels of a grouping are learned.

  Rows with an unknown label are left out, and so are labels with fewer than
  `MIN_ROWS` images to learn from. Large data sets are reduced at random.

  Args:
    data: splits of the data set.
    grouping: name of one of their groupings.
    scored: split to score on, 'test' or 'validation'.

  Returns:
    Images of all splits, if every label of the scored split is in the train
    split; otherwise the scored split divided 60/20/20. None if there are not
    two labels to distinguish.

  Raises:
    ValueError: when a split does not have the grouping.
  """
  labels = {name: getattr(data, name).labels_of(grouping) for name in SPLITS}
  if _present(labels[scored]) <= _present(labels['train']):
    chosen = _from_splits(grouping, labels, scored)
    if _is_question(chosen):
      return chosen
  chosen = _from_one(grouping, scored, labels[scored])
  return chosen if _is_question(chosen) else None


def rows_of(sets: Sequence[LabelSet]) -> dict[str, np.ndarray]:
  """The rows by split that are in any part: `[M]`, sorted and distinct."""
  found = {split: [np.zeros(0, np.int64)] for split in SPLITS}
  for labels in sets:
    for part in labels.parts:
      found[part.split].append(part.rows)
  return {split: np.unique(np.concatenate(rows))
          for split, rows in found.items()}


def _present(labels: Labels) -> set[str]:
  """The names of the labels that rows have."""
  # Names, because every split numbers its own labels.
  return {labels.names[i] for i in np.unique(labels.ids) if i >= 0}


def _three(part_of: Callable[[str], Part], scored: str
           ) -> tuple[Part, Part, Part]:
  """The parts for training, selection and scoring, from all splits.

  If the validation images are scored, they are halved, so that no probe is
  scored on images by which it was selected.
  """
  if scored == 'validation':
    return part_of('train'), *_halves(part_of(scored))
  return part_of('train'), part_of('validation'), part_of(scored)


def _all_of(split: str, images: GroupedData) -> Part:
  """All images of a split."""
  return Part(split, np.arange(len(images)), images.labels)


def _halves(part: Part) -> tuple[Part, Part]:
  """Two halves of the images of each label; the second may have one more."""
  # Shuffled, because the order of rows may mean something at the source.
  part = part.take(_shuffled(len(part.rows)))
  rank, count = rank_within_group(part.labels)
  is_first = rank < count // 2
  return part.take(is_first), part.take(~is_first)


def _from_splits(grouping: str, labels: Mapping[str, Labels], scored: str
                 ) -> LabelSet:
  """Parts that are whole splits, with the classes of the train split."""
  classes = _classes(labels['train'].ids)
  number = {labels['train'].names[i]: n for n, i in enumerate(classes)}

  def part_of(split):
    found = labels[split]
    # An unknown label, -1, selects the last entry.
    renumber = np.array(
        [*(number.get(name, -1) for name in found.names), -1], np.int64)
    numbers = renumber[found.ids]
    rows = _shuffled(len(numbers))
    rows = rows[numbers[rows] >= 0]
    return Part(split, rows, numbers[rows])

  return LabelSet(grouping, len(classes), tuple(
      part.take(slice(limit)) for part, limit in zip(
          _three(part_of, scored), (MAX_TRAIN, MAX_HELD_OUT, MAX_HELD_OUT))))


def _from_one(grouping: str, split: str, labels: Labels) -> LabelSet:
  """The images of each label of one split, divided 60/20/20."""
  classes = _classes(labels.ids)
  renumber = np.full(len(labels.names) + 1, -1)
  renumber[classes] = np.arange(len(classes))
  numbers = renumber[labels.ids]
  rows = _shuffled(len(numbers))
  rows = rows[numbers[rows] >= 0][:MAX_TRAIN + 2 * MAX_HELD_OUT]
  rows = rows[np.argsort(numbers[rows], kind='stable')]
  part = Part(split, rows, numbers[rows])
  rank, count = rank_within_group(part.labels)
  # Of each label the first fifth is scored on, the second selects.
  number = np.where(
      rank < count // 5, 2, np.where(rank < 2 * (count // 5), 1, 0))
  return LabelSet(grouping, len(classes), tuple(
      part.take(number == n) for n in range(3)))


def _classes(ids: np.ndarray) -> np.ndarray:
  """The labels that have enough rows, at most `MAX_CLASSES` of them."""
  count = np.bincount(ids[ids >= 0])
  large = np.flatnonzero(count >= MIN_ROWS)
  return np.sort(large[_shuffled(len(large))[:MAX_CLASSES]])


def _shuffled(count: int) -> np.ndarray:
  # The same order for all groupings of a split, so that they choose almost the
  # same rows, which are encoded once.
  return np.random.default_rng(SEED).permutation(count)


def _is_question(labels: LabelSet) -> bool:
  """Whether probes make sense: no part is empty, and there is a choice."""
  present = [len(np.unique(part.labels)) for part in labels.parts]
  return min(present) > 0 and present[0] > 1 < present[2]
