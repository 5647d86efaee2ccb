"""Uncertainty: does a code know how sure it is about its group?

An image belongs to one of G known groups, or to none of them. Each group has
the posterior q(c | X_G) of some of its images, and the image x its own
posterior q(c | x). By Bayes' rule q(c | x) / p(c) is in proportion to the
likelihood p(x | c), so that the predictive density of x in a group, relative to
that in a new group, of which only the prior p(c) = N(0, I) is known, is

  p(x | X_G) / p(x) = integral of q(c | X_G) q(c | x) / p(c) dc.

If an image is as likely to come from one group as from another, probabilities
of membership are the softmax of its logarithm over the groups.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mlvae_jax.grouping.normal import Normal
from mlvae_jax.measures.sorted_rows import check_at_least
from mlvae_jax.measures.verification import verify

_MAX_LOGVAR = 300.0  # Products of two such variances still fit a float64.
_BLOCK = 1 << 22  # Numbers `[rows, G, D]` at a time, which bounds the memory.


class Reliability(NamedTuple):
  """How often the most probable group is right, by its probability.

  Attributes:
    confidence: `[B]`, mean probability of the most probable group of the rows
      in each bin; NaN for a bin without rows.
    accuracy: `[B]`, fraction of these rows that are of that group; NaN for a
      bin without rows.
    count: `[B]` ints, number of rows of each bin.
    calibration_error: expected calibration error, which is the mean over rows
      of |accuracy - confidence| of their bin.
    log_loss: mean of -log probability of the right group, in nats.
  """

  confidence: np.ndarray
  accuracy: np.ndarray
  count: np.ndarray
  calibration_error: float
  log_loss: float


def membership_scores(q: Normal, q_groups: Normal) -> np.ndarray:
  """Log predictive density of rows in each group, relative to a new group.

  In each dimension, with means m and M and variances v and V of the row and of
  the group, the integral above is

    log score = -1/2 log d + (V m^2 + v M^2 - (m - M)^2) / (2 d),
    where d = v + V - v V.

  It exists only if d > 0. A posterior that is wider than the prior would make
  the likelihood grow without bound away from its mean, so variances of rows
  are taken as at most 1, that of the prior; then d > 0 for all groups.

  Args:
    q: Normal of `[N, D]`, posteriors of single rows.
    q_groups: Normal of `[G, D]`, posteriors of groups, made of other rows.

  Returns:
    `[N, G]` float64 in nats, summed over D; above 0 where the group is more
    likely than a new one.

  Raises:
    ValueError: on wrong shapes, or posteriors that are not finite.
  """
  (mean, var), (group_mean, group_var) = map(_moments, (q, q_groups))
  if mean.shape[1] != group_mean.shape[1]:
    raise ValueError(
        'expected posteriors of the same number of dimensions, got '
        f'{mean.shape[1]} and {group_mean.shape[1]}')
  var = np.minimum(var, 1.0)
  step = max(1, _BLOCK // max(1, group_mean.size))
  scores = np.empty((len(mean), len(group_mean)))
  for start in range(0, len(mean), step):
    rows = slice(start, start + step)
    m, v = mean[rows, None], var[rows, None]
    # Not v + V - v V, which could lose all digits of a small V.
    d = v + group_var * (1.0 - v)
    # Each term over d by itself: their products could overflow.
    distance = (np.square(m - group_mean) / d - np.square(m) * (group_var / d)
                - np.square(group_mean) * (v / d))
    scores[rows] = -0.5 * np.sum(np.log(d) + distance, axis=-1)
  return scores


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
  """Log of how likely a row is in one of the groups, relative to a new one.

  Args:
    scores: `[N, G]`, as `membership_scores` gives them.

  Returns:
    `[N]` float64: log of the mean over groups of exp(score).
  """
  scores = np.asarray(scores, np.float64)
  highest = np.max(scores, axis=1)
  return highest + np.log(np.mean(np.exp(scores - highest[:, None]), axis=1))


def unknown_auc(known: np.ndarray, unknown: np.ndarray) -> float:
  """Area under the ROC curve of the detection of rows of no known group.

  Args:
    known: `[N]`, `evidence_of_known` of rows of a known group.
    unknown: `[M]`, the same of rows of no known group.

  Returns:
    How often a row of a known group has more evidence of being known than one
    of no known group; a tie counts half. 0.5 is chance.

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
    ValueError: on wrong shapes or labels, no rows, or num_bins < 1.
  """
  probabilities = np.asarray(probabilities, np.float64)
  labels = np.asarray(labels)
  check_at_least(1, num_bins=num_bins)
  if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or (
      not labels.size):
    raise ValueError(
        'expected probabilities [N, G] and labels [N], N > 0, got '
        f'{list(probabilities.shape)} and {list(labels.shape)}')
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
  log_loss = -np.mean(np.log(np.maximum(chosen, np.finfo(float).tiny)))
  return Reliability(
      confidence, accuracy, count, float(error), float(log_loss))


def nested_sets(offsets: np.ndarray, size: int, max_sets: int, seed: int = 0
                ) -> np.ndarray:
  """Draws sets of rows of one group, whose first k rows are smaller sets.

  Args:
    offsets: `[G + 1]` ints; group g has the rows offsets[g]:offsets[g + 1].
    size: number of rows of a set. Smaller groups have none.
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


def _moments(q: Normal) -> tuple[np.ndarray, np.ndarray]:
  """Mean and variance `[N, D]` in float64."""
  mean, logvar = (np.asarray(value, np.float64) for value in q)
  if mean.ndim != 2 or mean.shape != logvar.shape:
    raise ValueError(
        'expected posteriors of [N, D], got a mean of '
        f'{list(mean.shape)} and a logvar of {list(logvar.shape)}')
  if not (np.all(np.isfinite(mean)) and np.all(np.isfinite(logvar))):
    raise ValueError('expected finite posteriors, got NaN or infinity')
  return mean, np.exp(np.clip(logvar, -_MAX_LOGVAR, _MAX_LOGVAR))
