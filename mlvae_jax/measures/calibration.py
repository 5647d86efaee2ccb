"""Uncertainty: are the probabilities right that codes give to groups?

An image belongs to one of G known groups, or to none of them. The scores
`[N, G]` are those of `membership.membership_scores`: log p(x | X_G) / p(x), the
predictive density of an image in a group relative to that in a new group.
If an image is as likely to come from one group as from another, probabilities
of membership are their softmax over the groups.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mlvae_jax.measures.sorted_rows import check_at_least
from mlvae_jax.measures.verification import verify


class Reliability(NamedTuple):
  """How often the most probable group is right, by its probability.

  Attributes:
    confidence: `[B]`, mean probability of the most probable group of the rows
      in each bin; NaN for a bin without rows.
    accuracy: `[B]`, fraction of these rows that are of that group; NaN for a
      bin without rows.
    count: `[B]` ints, number of rows in each bin.
    calibration_error: expected calibration error, which is the mean over rows
      of `|accuracy - confidence|` of their bin.
    log_loss: mean of -log probability of the right group, in nats.
  """

  confidence: np.ndarray
  accuracy: np.ndarray
  count: np.ndarray
  calibration_error: float
  log_loss: float


def membership_probabilities(scores: np.ndarray) -> np.ndarray:
  """Probabilities of membership: the softmax over groups.

  Args:
    scores: `[N, G]`, as `membership_scores` gives them.

  Returns:
    `[N, G]` float64, which add up to 1 in each row.
  """
  scores = np.asarray(scores, np.float64)
  weights = np.exp(scores - np.max(scores, axis=1, keepdims=True))
  return weights / np.sum(weights, axis=1, keepdims=True)


def evidence_of_known(scores: np.ndarray) -> np.ndarray:
  """Log of how likely a row is in one of the groups, relative to a new group.

  Args:
    scores: `[N, G]`, as `membership_scores` gives them.

  Returns:
    `[N]` float64: log of the mean over groups of exp(score).
  """
  scores = np.asarray(scores, np.float64)
  highest = np.max(scores, axis=1)
  return highest + np.log(np.mean(np.exp(scores - highest[:, None]), axis=1))


def unknown_auc(known: np.ndarray, unknown: np.ndarray) -> float:
  """Area under the ROC curve for detecting rows of unknown groups.

  Args:
    known: `[N]`, `evidence_of_known` of rows of known groups.
    unknown: `[M]`, the same of rows of unknown groups.

  Returns:
    How often a row of a known group has more evidence of being known than one
    of an unknown group; a tie counts half. 0.5 is chance.

  Raises:
    ValueError: on wrong shapes, NaN, or no rows of either kind.
  """
  known, unknown = np.asarray(known), np.asarray(unknown)
  if known.ndim != 1 or unknown.ndim != 1 or not len(known) or not len(unknown):
    raise ValueError(
        'expected values [N] of rows of known groups and [M] of others, N and '
        f'M > 0, got {list(known.shape)} and {list(unknown.shape)}')
  return verify(np.concatenate([known, unknown]),
                np.arange(len(known) + len(unknown)) < len(known)).auc


def reliability(probabilities: np.ndarray, labels: np.ndarray,
                num_bins: int = 10) -> Reliability:
  """Compares probabilities of membership with how often they are right.

  Args:
    probabilities: `[N, G]`, which add up to 1 in each row.
    labels: `[N]` ints in `[0, G)`, the right group of each row.
    num_bins: number B of bins of equal width of the highest probability.

  Returns:
    The reliability diagram, the expected calibration error and the log loss.

  Raises:
    ValueError: on wrong shapes or labels, NaN, no rows, or num_bins < 1.
  """
  probabilities = np.asarray(probabilities, np.float64)
  labels = np.asarray(labels)
  check_at_least(1, num_bins=num_bins)
  if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or (
      not labels.size):
    raise ValueError(
        'expected probabilities [N, G] and labels [N], N > 0, got '
        f'{list(probabilities.shape)} and {list(labels.shape)}')
  if np.any(np.isnan(probabilities)):
    raise ValueError('expected probabilities without NaN')
  if not 0 <= labels.min() <= labels.max() < probabilities.shape[1]:
    raise ValueError(
        f'expected labels in [0, {probabilities.shape[1]}), got labels from '
        f'{labels.min()} to {labels.max()}')
  highest = np.max(probabilities, axis=1)
  is_right = np.argmax(probabilities, axis=1) == labels
  bins = np.minimum((highest * num_bins).astype(int), num_bins - 1)
  count = np.bincount(bins, minlength=num_bins)
  confidence, accuracy = (
      np.where(count, np.bincount(bins, values, num_bins), np.nan)
      / np.maximum(count, 1) for values in (highest, is_right))
  error = np.nansum(count * np.abs(accuracy - confidence)) / len(labels)
  chosen = probabilities[np.arange(len(labels)), labels]
  # A probability may have been rounded to 0.
  log_loss = abs(np.mean(np.log(np.maximum(chosen, np.finfo(float).tiny))))
  return Reliability(
      confidence, accuracy, count, float(error), float(log_loss))


def nested_sets(offsets: np.ndarray, size: int, max_sets: int, seed: int = 0
                ) -> np.ndarray:
  """Draws sets of rows of one group, of which the first k are smaller sets.

  Args:
    offsets: `[G + 1]` ints; group g has the rows offsets[g]:offsets[g + 1].
    size: number of rows of a set. Smaller groups have no sets.
    max_sets: maximum number of sets; groups take turns.
    seed: seed of the sets.

  Returns:
    Rows `[M, size]`, each in at most one set.
  """
  rng = np.random.default_rng(seed)
  found = []  # (turn, random number, rows)
  for start, stop in zip(offsets[:-1], offsets[1:]):
    rows = start + rng.permutation(stop - start)
    whole = rows[:len(rows) // size * size].reshape(-1, size)
    found += [(turn, rng.random(), own) for turn, own in enumerate(whole)]
  found.sort(key=lambda item: item[:2])
  return np.array([rows for *_, rows in found[:max_sets]], int).reshape(
      -1, size)
