"""Which images of a data set the evaluation reads a label off.

Three parts: rows to train a probe on, to choose it by, and to score it on.
Where the labels of the scored images were all met in training, these are of
the three splits; else the probe is trained on images of the scored split too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from experiments.datasets.splits import Splits
from mlvae_jax.data.grouped import GroupedImages, Labels
from mlvae_jax.data.ids import offsets_of, rank_within_group
from mlvae_jax.measures import probes

SPLITS = ('train', 'validation', 'test')
# What is enough of a large data set.
MAX_CLASSES, MAX_IMAGES = 1000, 50_000
MAX_TRAIN, MAX_HELD_OUT = 20_000, 10_000
MIN_ROWS = 5  # Of a class, below which nothing is learned of it.
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

    See `probes.evidence_windows`, which wants the images sorted by label.
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
    parts: images to train, to choose and to score on.
  """

  grouping: str
  num_classes: int
  parts: tuple[Part, Part, Part]

  @property
  def max_evidence(self) -> int:
    """The largest k of which every part has a set."""
    return min(int(np.bincount(p.labels, minlength=1).max())
               for p in self.parts)


def first(data: Splits, scored: str = 'test',
          limits: Sequence[int | None] = (None,) * 3) -> LabelSet:
  """The images from which the labels of the first grouping are learned.

  Where the splits share groups, all labels take part, however few images they
  have. Else the images of the scored split are divided 60/20/20, of each
  group of at least `MIN_ROWS`. Parts may be empty.

  Args:
    data: the splits.
    scored: split to score on, 'test' or 'validation'.
    limits: largest number of images of each part, which are then chosen at
      random; None for all.

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


def first_groups(data: GroupedImages) -> GroupedImages:
  """As many groups, from the first on, as are enough for an evaluation.

  In a packed store the first groups are a random choice.
  """
  within = np.searchsorted(data.offsets, MAX_IMAGES, side='right') - 1
  return data.slice_groups(
      0, int(max(1, min(data.num_groups, MAX_CLASSES, within))))


def choose(data: Splits, grouping: str, scored: str = 'test'
           ) -> LabelSet | None:
  """Chooses images to learn the labels of a grouping from.

  Rows whose label is not known are left out, and so are labels of fewer than
  `MIN_ROWS` images to learn from. Large data sets are cut at random.

  Args:
    data: the splits.
    grouping: name of one of their groupings.
    scored: split to score on, 'test' or 'validation'.

  Returns:
    Images of all splits, where every label of the scored split is in the
    train split; else the scored split divided 60/20/20. None where there are
    not two labels to tell apart.

  Raises:
    ValueError: where a split has no such grouping.
  """
  labels = {name: getattr(data, name).labels_of(grouping) for name in SPLITS}
  if _present(labels[scored]) <= _present(labels['train']):
    chosen = _from_splits(grouping, labels, scored)
    if _is_question(chosen):
      return chosen
  chosen = _from_one(grouping, scored, labels[scored])
  return chosen if _is_question(chosen) else None


def rows_of(sets: Sequence[LabelSet]) -> dict[str, np.ndarray]:
  """By split, the rows that any part has: `[M]`, sorted, each once."""
  found = {split: [np.zeros(0, np.int64)] for split in SPLITS}
  for labels in sets:
    for part in labels.parts:
      found[part.split].append(part.rows)
  return {split: np.unique(np.concatenate(rows))
          for split, rows in found.items()}


def _present(labels: Labels) -> set[str]:
  """The names of labels that rows have."""
  return {labels.names[i] for i in np.unique(labels.ids) if i >= 0}


def _three(part_of: Callable[[str], Part], scored: str
           ) -> tuple[Part, Part, Part]:
  """Parts to train, choose and score on, of all splits.

  The validation images, where they are scored, are halved: a probe is not
  scored on what it was chosen by.
  """
  if scored == 'validation':
    return part_of('train'), *_halves(part_of(scored))
  return part_of('train'), part_of('validation'), part_of(scored)


def _all_of(split: str, images: GroupedImages) -> Part:
  """All images of a split."""
  return Part(split, np.arange(len(images)), images.labels)


def _halves(part: Part) -> tuple[Part, Part]:
  """Two halves of the images of each label; the second may have one more."""
  part = part.take(_shuffled(len(part.rows)))
  rank, count = rank_within_group(part.labels)
  is_first = rank < count // 2
  return part.take(is_first), part.take(~is_first)


def _from_splits(grouping: str, labels: Mapping[str, Labels], scored: str
                 ) -> LabelSet:
  """Each split a part; classes are those of the train split, by name."""
  classes = _classes(labels['train'].ids)
  number = {labels['train'].names[i]: n for n, i in enumerate(classes)}

  def part_of(split):
    found = labels[split]
    # The last entry stands for -1, a label that is not known.
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
  number = np.where(
      rank < count // 5, 2, np.where(rank < 2 * (count // 5), 1, 0))
  return LabelSet(grouping, len(classes), tuple(
      part.take(number == n) for n in range(3)))


def _classes(ids: np.ndarray) -> np.ndarray:
  """Labels of enough rows, at most `MAX_CLASSES` of them."""
  count = np.bincount(ids[ids >= 0])
  large = np.flatnonzero(count >= MIN_ROWS)
  return np.sort(large[_shuffled(len(large))[:MAX_CLASSES]])


def _shuffled(count: int) -> np.ndarray:
  # For all groupings of a split alike: the rows they choose hardly differ.
  return np.random.default_rng(SEED).permutation(count)


def _is_question(labels: LabelSet) -> bool:
  """Whether the parts allow a probe."""
  present = [len(np.unique(part.labels)) for part in labels.parts]
  return min(present) > 0 and present[0] > 1 < present[2]
