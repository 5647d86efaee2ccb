"""Verification of groups never seen in training: are two images of one group?

The codes of two images are compared, by cosine or by the ratio of evidence
(see `membership`); nothing is trained. Rows are sorted by group: with
`offsets [G + 1]`, group g has the rows offsets[g]:offsets[g + 1].
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mlvae_jax.data.ids import check_offsets
from mlvae_jax.measures.sorted_rows import (
    check_at_least,
    draw_rows,
    unit_rows,
)


class Pairs(NamedTuple):
  """Pairs of rows, first < second; those of the same group come first.

  Attributes:
    first: `[P]` int, row numbers.
    second: `[P]` int, row numbers.
    same: `[P]` bool, whether both are of the same group.
  """

  first: np.ndarray
  second: np.ndarray
  same: np.ndarray


class Verification(NamedTuple):
  """How well a score separates pairs of one group from pairs of two.

  Attributes:
    auc: area under the ROC curve, which is how often a pair of the same group
      scores above a pair of different groups; a tie counts half.
    equal_error_accuracy: 1 - the error rate at the threshold where false
      accepts, as a fraction of the different pairs, equal false rejects, as a
      fraction of the same pairs.
    num_same: number of pairs of the same group.
    num_different: number of pairs of different groups.
  """

  auc: float
  equal_error_accuracy: float
  num_same: int
  num_different: int


def verification_pairs(
    offsets: np.ndarray, *, max_per_group: int = 10,
    num_different: int = 20_000, seed: int = 0) -> Pairs:
  """Draws pairs to verify, among a few random rows of each group.

  Args:
    offsets: `[G + 1]` ints; group g has the rows offsets[g]:offsets[g + 1].
    max_per_group: largest number of rows drawn of each group, of which all
      pairs are taken.
    num_different: number of random pairs of different groups among the rows
      drawn, without repeats; all of them if there are fewer.
    seed: seed of rows and pairs.

  Returns:
    The pairs.

  Raises:
    ValueError: on bad offsets, max_per_group < 1, or num_different < 0.
  """
  offsets = check_offsets(offsets)
  check_at_least(1, max_per_group=max_per_group)
  check_at_least(0, num_different=num_different)
  rng = np.random.default_rng(seed)
  rows, group, _ = draw_rows(rng, offsets[:-1], np.diff(offsets), max_per_group)
  rows = np.sort(rows)
  # A place pairs with those after it: up to `end` with the rest of its group,
  # from there on with other groups.
  after = np.arange(len(rows)) + 1
  end = np.searchsorted(group, group, side='right')
  num_same, total = int(np.sum(end - after)), int(np.sum(len(rows) - end))
  # Pairs are too many to list: they are numbered, and numbers are drawn.
  chosen = rng.choice(
      total, min(num_different, total), replace=False, shuffle=False)
  first, second = np.concatenate([
      _pairs_of_numbers(np.arange(num_same), after, end - after),
      _pairs_of_numbers(chosen, end, len(rows) - end)], axis=1)
  return Pairs(rows[first], rows[second], np.arange(len(first)) < num_same)


def verify(scores: np.ndarray, same: np.ndarray) -> Verification:
  """Measures how well scores separate pairs: ROC AUC and equal error rate.

  Args:
    scores: `[P]`, higher for pairs that are more likely of the same group.
    same: `[P]` bool, whether they are.

  Returns:
    AUC and accuracy. The ROC curve is taken as straight between thresholds.

  Raises:
    ValueError: on wrong shapes, NaN scores, or pairs of only one kind.
  """
  scores, same = np.asarray(scores), np.asarray(same, bool)
  if scores.ndim != 1 or scores.shape != same.shape:
    raise ValueError(
        'expected scores [P] and same [P], got '
        f'{list(scores.shape)} and {list(same.shape)}')
  if np.any(np.isnan(scores)):
    raise ValueError('expected scores without NaN')
  num_same, num_different = int(np.sum(same)), int(np.sum(~same))
  if not num_same or not num_different:
    raise ValueError(
        'expected pairs of the same group and pairs of different ones, got '
        f'{num_same} and {num_different}')
  # AUC = P(same > different) + P(tie) / 2, by histograms of distinct scores.
  levels, level = np.unique(scores, return_inverse=True)
  accepted, alarms = (  # From the highest score down, in exact integers.
      np.bincount(level[kind], minlength=len(levels))[::-1]
      for kind in (same, ~same))
  below = num_different - np.cumsum(alarms)
  twice = np.sum(accepted * (2 * below + alarms))
  return Verification(
      float(twice / (2 * num_same * num_different)),
      _equal_error_accuracy(accepted, alarms), num_same, num_different)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Cosine similarity of rows.

  Args:
    a: `[P, D]`.
    b: `[P, D]`.

  Returns:
    `[P]` float64; 0 where a row is all zeros.
  """
  return np.sum(unit_rows(a) * unit_rows(b), axis=-1)


def _pairs_of_numbers(number, start, count):
  """Pairs by number, where place i pairs with the count[i] from start[i]."""
  last = np.cumsum(count)
  first = np.searchsorted(last, number, side='right')
  return first, (start - last + count)[first] + number


def _equal_error_accuracy(accepted, alarms):
  """The hit rate where false accepts equal false rejects on the ROC curve."""
  hit_rate, alarm_rate = (
      np.concatenate([[0], np.cumsum(steps)]) / np.sum(steps)
      for steps in (accepted, alarms))
  # It grows strictly from -1 to 1, since every step accepts some pair, so the
  # root is unique. There hit rate = 1 - alarm rate, the accuracy.
  excess = hit_rate + alarm_rate - 1
  return float(np.interp(0.0, excess, hit_rate))
