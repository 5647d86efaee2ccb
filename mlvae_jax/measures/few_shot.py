"""Few-shot recognition of groups never seen in training, from codes.

Given a few images of each person, whom does another image show? (The protocol
is that of Hosoya, arXiv 1809.02383.) Codes are compared, by the cosine of their
means or by their posteriors (see `membership`); nothing is trained. Rows are
sorted by group: with `offsets [G + 1]`, group g has the rows
offsets[g]:offsets[g + 1].
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import numpy as np

from mlvae_jax.data.ids import check_offsets
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.grouping.posterior import GroupPosterior
from mlvae_jax.grouping.product import Product
from mlvae_jax.measures.membership import membership_scores
from mlvae_jax.measures.sorted_rows import (
    check_at_least,
    draw_rows,
    unit_rows,
)

SCORES = ('cosine', 'posterior')
_PRODUCT = Product()
_BLOCK = 2048  # Queries per matrix product, which bounds the memory.


class _Codes(NamedTuple):
  """Means and log variances of rows, `[N, D]` each."""

  mean: np.ndarray
  logvar: np.ndarray


class FewShot(NamedTuple):
  """How often queries are assigned to the right group.

  Attributes:
    accuracy: fraction of an episode's queries that are assigned to the right
      group, averaged over episodes.
    standard_error: standard error of that mean; NaN for a single episode. All
      episodes draw from the same images, whose choice it does not account for.
    chance: accuracy of guessing, 1 / ways.
    num_episodes: number of episodes, each a random split.
    ways: number of groups to choose from in each episode.
  """

  accuracy: float
  standard_error: float
  chance: float
  num_episodes: int
  ways: int

  @property
  def margin(self) -> float:
    """Half the width of the accuracy's 95 % confidence interval over episodes.

    NaN for a single episode.
    """
    return 1.96 * self.standard_error


def few_shot(
    codes: Normal | np.ndarray, offsets: np.ndarray, *, ways: int | None,
    shots: int, fuse: bool, score: str = 'cosine',
    group_posterior: GroupPosterior = _PRODUCT, num_episodes: int = 100,
    max_queries: int = 20, seed: int = 0) -> FewShot:
  """Assigns images to groups, given a few other images of each group.

  In each episode, `shots` random images of each group are the gallery and its
  others are queries. A query is assigned to the group of its nearest neighbour
  in the gallery, by the cosine of the means; or to the group under whose
  posterior, given its gallery, it has the highest predictive density. Splits
  depend only on offsets, numbers and seed, so different codes and scores, fused
  or not, are compared on the same ones.

  Args:
    codes: Normal of `[N, D]`; or an array `[N, D]`, such as pixels, which is
      taken for means of equal variances.
    offsets: `[G + 1]` ints; group g has the rows offsets[g]:offsets[g + 1].
    ways: number of random groups to choose from in each episode; None for all
      groups of more than `shots` images.
    shots: number of gallery images per group.
    fuse: whether to combine the Normals of a group's gallery into one code,
      rather than compare with each of its images.
    score: 'cosine', or 'posterior', which needs `fuse`.
    group_posterior: how Normals are combined; by default their product (paper
      eqs. 6-7).
    num_episodes: number of random splits.
    max_queries: largest number of random queries per group and episode.
    seed: seed of the splits.

  Returns:
    The accuracy.

  Raises:
    ValueError: on wrong shapes, NaN or infinite codes, too few groups of more
      than `shots` images, ways < 2, other numbers < 1, or an unknown score.
  """
  if score not in SCORES or (score == 'posterior' and not fuse):
    raise ValueError(
        f'expected a score of {SCORES}, the latter with fuse=True, got '
        f'{score!r} and fuse={fuse}')
  found = _as_codes(codes)
  offsets = check_offsets(offsets, len(found.mean))
  check_at_least(
      1, shots=shots, num_episodes=num_episodes, max_queries=max_queries)
  able = np.flatnonzero(np.diff(offsets) > shots)
  needed = 2 if ways is None else ways
  check_at_least(2, ways=needed)
  if len(able) < needed:
    raise ValueError(
        f'expected at least {needed} groups of more than {shots} images, got '
        f'{len(able)}')
  ways = len(able) if ways is None else ways
  rng = np.random.default_rng(seed)
  classify = (functools.partial(_by_posterior, group_posterior)
              if score == 'posterior' else
              functools.partial(_by_cosine, group_posterior, fuse))
  accuracy = [  # Groups in random order, since argmax gives ties to the first.
      _episode(rng, found, offsets, rng.permutation(able)[:ways], shots,
               max_queries, classify)
      for _ in range(num_episodes)]
  error = np.nan if num_episodes == 1 else (
      np.std(accuracy, ddof=1) / np.sqrt(num_episodes))
  return FewShot(
      float(np.mean(accuracy)), float(error), 1 / ways, num_episodes, ways)


def _episode(rng, codes, offsets, groups, shots, max_queries, classify):
  """The fraction of the queries of one random split that is right."""
  starts = offsets[groups]
  rows, way, rank = draw_rows(
      rng, starts, offsets[groups + 1] - starts, shots + max_queries)
  # Rows of a group are in random order: the first few are its gallery.
  query = rank >= shots
  gallery = rows[~query].reshape(len(groups), shots)
  return np.mean(classify(codes, gallery, rows[query]) == way[query])


def _by_cosine(group_posterior, fuse, codes, gallery, asked):
  """The way of each query `[Q]` whose gallery `[G, K]` is nearest."""
  shots = 1 if fuse else gallery.shape[1]
  if fuse and not group_posterior.includes_prior:  # A product of Normals.
    known = _fuse(_Codes(codes.mean[gallery], codes.logvar[gallery]))
  elif fuse:
    known = _combine(group_posterior, codes, gallery).mean
  else:
    known = _alone(group_posterior, codes, gallery.ravel()).mean
  known = unit_rows(known)
  nearest = np.concatenate([
      np.argmax(unit_rows(_alone(
          group_posterior, codes, asked[i:i + _BLOCK]).mean) @ known.T, axis=1)
      for i in range(0, len(asked), _BLOCK)])
  return nearest // shots


def _by_posterior(group_posterior, codes, gallery, asked):
  """The way of each query `[Q]` in whose gallery `[G, K]` it is most likely."""
  return np.argmax(membership_scores(
      _alone(group_posterior, codes, asked),
      _combine(group_posterior, codes, gallery),
      includes_prior=group_posterior.includes_prior), axis=1)


def _alone(group_posterior, codes, rows):
  """The posteriors of single rows `[R]`: Normal of `[R, D]`."""
  return group_posterior.alone(Normal(codes.mean[rows], codes.logvar[rows]))


def _combine(group_posterior, codes, gallery):
  """The posterior of each gallery `[G, K]`: Normal of `[G, D]`."""
  ways, shots = gallery.shape
  rows = gallery.ravel()
  return _jitted_combine(
      group_posterior, Normal(codes.mean[rows], codes.logvar[rows]),
      np.repeat(np.arange(ways), shots), ways)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _jitted_combine(group_posterior, q, group_ids, num_groups):
  return group_posterior.combine(q, group_ids, num_groups)


def _fuse(q):
  """The mean of products of Normals: `[G, K, D]` to `[G, D]` (eqs. 6-7)."""
  log_precision = -np.asarray(q.logvar, np.float64)
  # A mean depends only on the ratios of precisions: scaled so that the largest
  # is 1, none overflows.
  precision = np.exp(log_precision - np.max(log_precision, 1, keepdims=True))
  return np.sum(precision * q.mean, axis=1) / np.sum(precision, axis=1)


def _as_codes(codes):
  """NumPy arrays `[N, D]` of a Normal; arrays get variances of 1."""
  if isinstance(codes, Normal):
    codes = _Codes(np.asarray(codes.mean), np.asarray(codes.logvar))
  else:
    mean = np.asarray(codes)
    codes = _Codes(mean, np.broadcast_to(0.0, mean.shape))  # Takes no memory.
  if codes.mean.ndim != 2 or codes.mean.shape != codes.logvar.shape:
    raise ValueError(
        'expected codes of [N, D], got a mean of '
        f'{list(codes.mean.shape)} and a logvar of '
        f'{list(codes.logvar.shape)}')
  if not all(np.all(np.isfinite(part)) for part in codes):
    raise ValueError('expected finite codes, got NaN or infinity')
  return codes
