"""Which images of a data set the evaluation reads a label off.

Three parts: rows to train a probe on, to choose it by, and to score it on.
Where the labels of the test images were all met in training, these are the
three splits; else the probe is trained on test images too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.datasets.splits import Splits, split_images
from mlvae_jax import probes
from mlvae_jax.store import GroupedImages, Labels

SPLITS = ('train', 'validation', 'test')
# What is enough of a large data set.
MAX_CLASSES, MAX_IMAGES = 1000, 50_000
MAX_TRAIN, MAX_HELD_OUT = 20_000, 10_000
MIN_ROWS = 5  # Of a class, below which nothing is learned of it.
SEED = 0


class Part(NamedTuple):
  """Images with their labels.

  Attributes:
    split: where the images are.
    rows: `[N]` distinct rows of the split.
    labels: `[N]` ints in `[0, num_classes)`.
  """

  split: str
  rows: np.ndarray
  labels: np.ndarray

  def windows(self, k: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sets of k images of a label: rows `[M, k]` and labels `[M]`.

    See `probes.evidence_windows`, which wants the images sorted by label.
    """
    order = np.argsort(self.labels, kind='stable')
    offsets = np.concatenate([[0], np.cumsum(np.bincount(self.labels))])
    windows, labels = probes.evidence_windows(offsets, k, seed)
    return self.rows[order[windows]], labels


class Labelled(NamedTuple):
  """A grouping, and the images from which its labels are to be learned.

  Attributes:
    grouping: name of the grouping.
    num_classes: number of its labels that take part.
    parts: to train, choose and score on.
  """

  grouping: str
  num_classes: int
  parts: tuple[Part, Part, Part]

  @property
  def max_evidence(self) -> int:
    """The largest k of which every part has a set."""
    return min(int(np.bincount(p.labels, minlength=1).max())
               for p in self.parts)


def of_splits(splits: Sequence[GroupedImages],
              limits: Sequence[int | None] = (None,) * 3) -> Labelled:
  """The images of three splits that share groups, by their first grouping.

  Args:
    splits: to train, choose and score on.
    limits: of each so many images, at random; None for all.

  Returns:
    The images.
  """
  parts = []
  for name, split, limit in zip(SPLITS, splits, limits):
    rows = np.sort(_shuffled(len(split))[:limit])
    parts.append(Part(name, rows, split.labels[rows]))
  return Labelled(splits[0].grouping, splits[0].num_groups, tuple(parts))


def probe_splits(data: Splits
                 ) -> tuple[GroupedImages, GroupedImages, GroupedImages]:
  """Images to train, choose and score probes of the first grouping on.

  Where no group is in two splits, the probes see test groups only, those of
  at least five images: the images of each are divided 60/20/20.
  """
  if data.shares_groups:
    return data.train, data.validation, data.test
  test = first_groups(data.test)
  sizes = np.diff(test.offsets)
  large = np.flatnonzero(sizes >= MIN_ROWS)
  if not len(large):
    large = np.arange(test.num_groups)
  rows = np.concatenate(
      [np.arange(*test.offsets[g:g + 2]) for g in large])
  divided = split_images(GroupedImages.from_labels(
      test.images[rows], np.repeat(np.arange(len(large)), sizes[large]),
      [test.names[g] for g in large], data.grouping), (0.2, 0.2))
  return divided.train, divided.validation, divided.test


def first_groups(data: GroupedImages) -> GroupedImages:
  """As many groups, from the first on, as are enough for an evaluation.

  In a packed store the first groups are a random choice.
  """
  within = np.searchsorted(data.offsets, MAX_IMAGES, side='right') - 1
  return data.slice_groups(
      0, int(max(1, min(data.num_groups, MAX_CLASSES, within))))


def choose(data: Splits, grouping: str) -> Labelled | None:
  """Chooses images to learn the labels of a grouping from.

  Rows whose label is not known are left out, and so are labels of fewer than
  `MIN_ROWS` images to learn from. Large data sets are cut at random.

  Args:
    data: the splits.
    grouping: name of one of their groupings.

  Returns:
    The three splits, where every label of the test split is in the train
    split; else the test split divided 60/20/20. None where there are not two
    labels to tell apart.

  Raises:
    ValueError: where a split has no such grouping.
  """
  labels = [getattr(data, split).labels_of(grouping) for split in SPLITS]
  names = [_present(found) for found in labels]
  if names[2] <= names[0]:
    chosen = _from_splits(grouping, labels)
    if chosen is not None:
      return chosen
  return _from_test(grouping, labels[2])


def _present(labels: Labels) -> set[str]:
  """The names of labels that rows have."""
  return {labels.names[i] for i in np.unique(labels.ids) if i >= 0}


def _from_splits(grouping: str, labels: Sequence[Labels]) -> Labelled | None:
  """Each split a part; classes are those of the train split, by name."""
  classes = _classes(labels[0].ids)
  number = {labels[0].names[i]: n for n, i in enumerate(classes)}
  parts = []
  for split, found, limit in zip(
      SPLITS, labels, (MAX_TRAIN, MAX_HELD_OUT, MAX_HELD_OUT)):
    # The last entry stands for -1, a label that is not known.
    renumber = np.array(
        [*(number.get(name, -1) for name in found.names), -1], np.int64)
    numbers = renumber[found.ids]
    rows = _shuffled(len(numbers))
    rows = rows[numbers[rows] >= 0][:limit]
    parts.append(Part(split, rows, numbers[rows]))
  return _checked(Labelled(grouping, len(classes), tuple(parts)))


def _from_test(grouping: str, labels: Labels) -> Labelled | None:
  """The images of each label of the test split, divided 60/20/20."""
  classes = _classes(labels.ids)
  renumber = np.full(len(labels.names) + 1, -1)
  renumber[classes] = np.arange(len(classes))
  numbers = renumber[labels.ids]
  rows = _shuffled(len(numbers))
  rows = rows[numbers[rows] >= 0][:MAX_TRAIN + 2 * MAX_HELD_OUT]
  rows = rows[np.argsort(numbers[rows], kind='stable')]
  numbers = numbers[rows]
  count = np.bincount(numbers, minlength=len(classes))
  rank = np.arange(len(rows)) - (np.cumsum(count) - count)[numbers]
  fifth = count[numbers] // 5
  part = np.where(rank < fifth, 2, np.where(rank < 2 * fifth, 1, 0))
  return _checked(Labelled(grouping, len(classes), tuple(
      Part('test', rows[part == p], numbers[part == p]) for p in range(3))))


def _classes(ids: np.ndarray) -> np.ndarray:
  """Labels of enough rows, at most `MAX_CLASSES` of them."""
  count = np.bincount(ids[ids >= 0])
  large = np.flatnonzero(count >= MIN_ROWS)
  return np.sort(large[_shuffled(len(large))[:MAX_CLASSES]])


def _shuffled(count: int) -> np.ndarray:
  # For all groupings of a split alike: the rows they choose hardly differ.
  return np.random.default_rng(SEED).permutation(count)


def _checked(labelled: Labelled) -> Labelled | None:
  """None where the parts do not allow a probe."""
  present = [len(np.unique(part.labels)) for part in labelled.parts]
  return labelled if min(present) > 0 and present[0] > 1 < present[2] else None
