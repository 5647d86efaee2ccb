"""Bounds on log p(X_G) of some groups of images: section "bounds"."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from experiments.evaluation.context import Context
from experiments.evaluation.formatting import standard_error
from experiments.evaluation.strategies.rows import split_into_sets
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.inference import free as free_lib
from mlvae_jax.model.model import Model, Params
from mlvae_jax.objective.bounds import group_likelihood_bound, why_no_bound

SET_SIZE = 5
# K outer and L inner samples. With one of each, the mean is the ELBO.
NUM_SAMPLES = ((1, 1), (8, 8), (32, 16))
# Elements of observations to decode, which takes a few seconds on a CPU.
_MAX_DECODED = 2e8
_MIN_IMAGES, _MAX_IMAGES = 20, 400
_SEED = 0


def bound_rows(context: Context) -> dict[str, list[dict[str, Any]]]:
  """Importance-weighted bounds on the log likelihood of groups of images.

  The groups are random sets of up to `SET_SIZE` images of a group of the split
  to score on, as many as `_MAX_DECODED` allows. In a VAE each of their images
  is a group of its own.

  Args:
    context: context of the evaluation.

  Returns:
    For each number of samples a row of "split", "groups", "images",
    "set_size" (the maximum), "num_outer", "num_inner", and in nats "bound" and
    "bound_per_image" with their standard errors over groups, None for a single
    group. No rows without images, or for a model that has no bound.
  """
  model, params = context.models['trained']
  images, split = context.scored, context.split
  if why_no_bound(model) or not len(images):
    return {'bounds': []}
  grouping = model.groupings[0] if model.groupings else images.grouping
  rows, ids = choose_sets(
      images.labels_of(grouping).ids, num_images(model.observation_shape))
  if not model.groupings:
    ids = np.arange(len(rows))
  num_groups = int(ids.max()) + 1
  sizes = np.bincount(ids, minlength=num_groups)
  x, groups = images.x[rows], (ids, num_groups) if model.groupings else ()
  free = None if model.has_encoder else _infer(model, params, x, *groups)

  num_outer, num_inner = zip(*NUM_SAMPLES)
  values = np.asarray(group_likelihood_bound(
      model, params, x, *groups, key=jax.random.key(_SEED), free=free,
      num_outer=num_outer, num_inner=num_inner), np.float64)
  return {'bounds': [{
      'split': split, 'groups': num_groups, 'images': len(rows),
      'set_size': int(sizes.max()),
      'num_outer': num_outer, 'num_inner': num_inner,
      **averages(one, sizes)}
      for (num_outer, num_inner), one in zip(NUM_SAMPLES, values)]}


def num_images(observation_shape: tuple[int, ...]) -> int:
  """Number of images that can be decoded in a few seconds."""
  decodings = max(outer * inner for outer, inner in NUM_SAMPLES)
  return int(np.clip(_MAX_DECODED / decodings / np.prod(observation_shape),
                     _MIN_IMAGES, _MAX_IMAGES))


def choose_sets(ids: np.ndarray, max_images: int
                ) -> tuple[np.ndarray, np.ndarray]:
  """Chooses random sets of up to `SET_SIZE` images of a group.

  Args:
    ids: group of each image, `[N]` ints; an image of -1 is a group of its own.
    max_images: maximum number of images, of which at least one set remains.

  Returns:
    Rows of the images `[M]`, and the set of each, `[M]` ints from 0.
  """
  sets = split_into_sets(ids, SET_SIZE, _SEED)
  rank = np.random.default_rng(_SEED).permutation(sets.max() + 1)[sets]
  rows = np.argsort(rank, kind='stable')
  # Whole sets: those up to the rank of the first image that does not fit.
  if len(rows) > max_images:
    last = max(rank[rows[max_images]], 1)
    rows = rows[rank[rows] < last]
  return rows, rank[rows]


def averages(values: np.ndarray, sizes: np.ndarray) -> dict[str, float | None]:
  """Averages of bounds over groups and over images, with standard errors.

  Args:
    values: bound of each group, `[G]`.
    sizes: number of images of each group, `[G]`.

  Returns:
    'bound', 'bound_error', 'bound_per_image', 'bound_per_image_error'; errors
    are None for a single group.
  """
  per_image = values.sum() / sizes.sum()
  # A ratio of two sums over groups: its error is that of the residuals' mean.
  residuals = (values - per_image * sizes) / sizes.mean()
  return {'bound': float(values.mean()),
          'bound_error': standard_error(values),
          'bound_per_image': float(per_image),
          'bound_per_image_error': standard_error(residuals)}


def _infer(model: Model, params: Params, x: np.ndarray, ids: np.ndarray,
           num_groups: int) -> dict[str, Normal]:
  """The posteriors of an SVI model, by optimisation."""
  names = [factor.name for factor in model.grouped]
  return free_lib.infer(
      model, params, model.prepare(x), dict.fromkeys(names, ids),
      dict.fromkeys(names, num_groups))
