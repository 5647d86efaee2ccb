"""The two strategies of encoding, compared: section "strategies".

Strategy 1 ignores the groups of test images: each image is its own group.
Strategy 2 accumulates the evidence of several images of a group into the codes
that they share (paper, section 4). Here a set is an image and up to ten others
of its group, as in fig. 5. If the posterior of a group is a mixture, the Normal
with its mean and variance is used instead. A factor that is given others is
inferred from each image alone and the codes drawn of them, as in training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.evaluation.context import Context
from mlvae_jax.data.grouped import GroupedData
from mlvae_jax.data.ids import fill_unknown, offsets_of, rank_within_group
from mlvae_jax.grouping.normal import Normal, kl_divergence
from mlvae_jax.model.factors import Factor
from mlvae_jax.model.model import Model, Params

SET_SIZE = 11
_MAX_IMAGES = 10_000
_DECODE_ROWS = 1024
_SEED = 0


def strategy_rows(context: Context) -> dict[str, list[dict[str, Any]]]:
  """Reconstruction and group ELBO under strategies 1 and 2.

  A factor's sets are of its own grouping; its KL counts once per set (paper
  eq. 3). Both strategies see the same images and the same noise.

  Args:
    context: context of the evaluation. If there are more than 10,000 images,
      sets of the first grouping are chosen at random.

  Returns:
    Two rows of "strategy", "split", "images", "set_size" (the maximum), and in
    nats per image: "elbo_per_image", "log_lik" (of one sample), "kl" by
    factor, "log_lik_of_means" (of the posterior means); "squared_error" is
    per pixel and channel, for the image expected from the means. No rows if no
    factor is grouped, or there are no images.
  """
  model, params = context.models['trained']
  images, split = context.scored, context.split
  if not model.grouped or not len(images):
    return {'strategies': []}
  rows = _choose_rows(images)
  encoded = context.encoded('trained', {split: rows})
  found = []
  for strategy in (1, 2):
    posteriors, kl = {}, {}
    for factor in model.factors:
      if _is_late(factor):
        continue  # Its posterior depends on the codes drawn of others.
      q, ids = encoded.alone(split, factor.name, rows), np.arange(len(rows))
      if strategy == 2 and factor.grouping is not None:
        ids = split_into_sets(
            images.labels_of(factor.grouping).ids[rows], SET_SIZE, _SEED)
        q = encoded.together(
            split, factor.name, rows, ids, int(ids.max()) + 1)
      # A sum over sets, divided by images: the share of one image.
      kl[factor.name] = float(np.sum(kl_divergence(q))) / len(rows)
      posteriors[factor.name] = Normal(*map(np.asarray, q)).take(ids)
    found.append({
        'strategy': strategy, 'split': split, 'images': len(rows),
        'set_size': 1 if strategy == 1 else SET_SIZE,
        **_likelihoods(model, params, images.x, rows, posteriors, kl)})
  return {'strategies': found}


def split_into_sets(ids: np.ndarray, size: int, seed: int) -> np.ndarray:
  """Divides every group at random into sets of nearly equal sizes.

  Args:
    ids: group of each row, `[N]` ints; a row with -1 is a group of its own.
    size: maximum size of a set.
    seed: random seed of the division.

  Returns:
    The set of each row, `[N]` ints, counted from 0.
  """
  order = np.random.default_rng(seed).permutation(len(ids))
  _, group = np.unique(fill_unknown(ids)[order], return_inverse=True)
  num_sets = -(-np.bincount(group) // size)  # Rounded up.
  rank, _ = rank_within_group(group)
  sets = np.empty(len(ids), np.int64)
  sets[order] = offsets_of(num_sets)[group] + rank % num_sets[group]
  return sets


def _choose_rows(test: GroupedData) -> np.ndarray:
  """All rows, or those of some sets of the first grouping."""
  if len(test) <= _MAX_IMAGES:
    return np.arange(len(test))
  sets = split_into_sets(test.labels, SET_SIZE, _SEED)
  # Whole sets, so that strategy 2 has all of their evidence.
  rank = np.random.default_rng(_SEED).permutation(sets.max() + 1)[sets]
  order = np.argsort(rank, kind='stable')
  last = rank[order[_MAX_IMAGES - SET_SIZE]]
  return np.flatnonzero(rank <= last)


def _likelihoods(model: Model, params: Params, images: np.ndarray,
                 rows: np.ndarray, posteriors: dict[str, Normal],
                 kl: dict[str, float]) -> dict[str, Any]:
  """The terms that need the decoder, and the ELBO, as averages."""
  late = [factor for factor in model.factors if _is_late(factor)]
  totals, late_kl = np.zeros(3), dict.fromkeys((f.name for f in late), 0.0)
  for x, codes, noise in _batches(images, rows, posteriors, late):
    samples = {name: q.reparameterize(noise[name])
               for name, q in codes.items()}
    means = {name: q.mean for name, q in codes.items()}
    for factor in late:
      q = _infer_given(model, params, factor, x, samples)
      samples[factor.name] = q.reparameterize(noise[factor.name])
      late_kl[factor.name] += float(np.sum(kl_divergence(q)))
      means[factor.name] = _infer_given(model, params, factor, x, means).mean
    totals += [
        _reconstruct(model, params, x, samples)[0],
        *_reconstruct(model, params, x, means)]
  log_lik, of_means, error = (float(v) for v in totals / len(rows))
  late_kl = {name: value / len(rows) for name, value in late_kl.items()}
  kl = {f.name: (kl | late_kl)[f.name] for f in model.factors}
  return {
      'elbo_per_image': log_lik - sum(kl.values()), 'log_lik': log_lik,
      'kl': kl, 'log_lik_of_means': of_means, 'squared_error': error}


def _batches(images: np.ndarray, rows: np.ndarray,
             posteriors: dict[str, Normal], late: Sequence[Factor]
             ) -> Iterator[tuple[np.ndarray, dict[str, Normal], dict]]:
  """Images, posteriors and noise, a block of rows at a time."""
  # The generator starts again for each strategy, so both see the same noise.
  rng = np.random.default_rng(_SEED)
  for start in range(0, len(rows), _DECODE_ROWS):
    which = slice(start, start + _DECODE_ROWS)
    codes = {name: q.take(which) for name, q in posteriors.items()}
    noise = {name: rng.standard_normal(q.mean.shape, np.float32)
             for name, q in codes.items()}
    noise |= {
        f.name: rng.standard_normal((len(rows[which]), f.dim), np.float32)
        for f in late}
    yield images[rows[which]], codes, noise


def _is_late(factor: Factor) -> bool:
  """Whether a posterior of each row depends on the codes drawn of others."""
  return bool(factor.given) and factor.grouping is None


@functools.partial(jax.jit, static_argnums=(0, 2))
def _infer_given(model, params, factor, images, codes):
  return model.posterior(
      params, factor, model.encode_rows(params, model.prepare(images)), codes)


@functools.partial(jax.jit, static_argnums=0)
def _reconstruct(model, params, images, codes):
  """Sums over images: log likelihood, and squared error per pixel.

  For tokens the error is that of their probabilities (Brier score).
  """
  x = model.prepare(images)
  logits = model.decode(params, codes)
  found = model.likelihood.mean(logits)
  if images.dtype == jnp.uint8 and model.likelihood.takes_pixels:
    found = jnp.clip(found, 0.0, 1.0)  # A Gaussian may leave their range.
  error = jnp.square(found - model.likelihood.as_mean(x))
  return (jnp.sum(model.likelihood.log_prob(logits, x)),
          jnp.sum(error) / error[0].size)
