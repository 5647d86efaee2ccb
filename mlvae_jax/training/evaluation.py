"""The ELBO of a data set: sums over a pass of a feed, and their averages."""

from __future__ import annotations

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlvae_jax.data.feed import (
    DEVICES,
    Feed,
    chunk_bounds,
    local_batch,
)
from mlvae_jax.devices import Device
from mlvae_jax.inference import free as free_lib
from mlvae_jax.model.model import Model, Params
from mlvae_jax.objective.elbo import ElboTerms, elbo_terms, sum_terms

_EVAL_STEPS = 256  # Steps per dispatch.
# Folded into a step's key for the noise of SVI. It is larger than any index of
# a split, so it is not the key of a factor: fold_in(key, 1) is split(key)[1].
_INFER = 0xFFFF1FE2


@functools.lru_cache(maxsize=16)
def _program(
    model: Model, num_groups: tuple[tuple[str, int], ...],
    devices: tuple[Device, ...]) -> Callable[..., ElboTerms]:
  """Builds evaluate(params, key, a, *feed.chunk(a, b)) -> sums over a chunk.

  They are the terms of the unweighted ELBO (paper eqs. 3-5), with one sample
  per image. For an SVI model the posteriors are inferred batch by batch.
  """

  def run(params, key, start, x, index, gathered):
    def step(number, inputs):
      batch = local_batch(model, x, *inputs)
      # By the number of the step, so that chunks may be of any length.
      step_key, free = jax.random.fold_in(key, number), None
      if not model.has_encoder:
        free = free_lib.fit(
            model, params, jax.random.fold_in(step_key, _INFER), batch,
            num_groups, axis_name=DEVICES)
      terms = elbo_terms(
          model, params, step_key, batch, dict(num_groups), free=free,
          axis_name=DEVICES)
      return number + 1, jax.lax.psum(sum_terms(terms), DEVICES)

    _, sums = jax.lax.scan(step, start, (index, gathered))
    return jax.tree.map(lambda value: jnp.sum(value, axis=0), sums)

  # After the psum all devices have the same sums: out_axes=None takes one's.
  return jax.pmap(
      run, axis_name=DEVICES, in_axes=(None, None, None, None, 0, 0),
      out_axes=None, devices=devices)


def evaluate_elbo(model: Model, params: Params, feed: Feed, *, seed: int = 0,
                  max_images: int | None = None) -> dict[str, Any]:
  """Estimates the ELBO over one epoch of a feed, or over the start of it.

  Args:
    model: the model; static.
    params: the model's parameters.
    feed: feed whose stream does not shuffle, and so visits every image once.
    seed: seed of the noise.
    max_images: number of images after which to stop, approximately; None for
      all.

  Returns:
    A dict of averages, see `summarize`.
  """
  evaluate = _program(
      model, tuple(feed.num_groups.items()), feed.devices)
  key = jax.random.key(seed)
  steps = feed.stream.steps_per_epoch
  if max_images is not None:
    steps = min(
        steps, -(-max_images * steps // feed.stream.images_per_epoch))
  bounds = chunk_bounds(0, steps, _EVAL_STEPS)
  parts = [
      jax.device_get(evaluate(params, key, start, *chunk))
      for (start, _), chunk in zip(bounds, feed.chunks(bounds))]
  return summarize(jax.tree.map(lambda *values: np.stack(values), *parts))


def summarize(sums: ElboTerms) -> dict[str, Any]:
  """Turns sums into averages: per group as in eq. 5, and per image.

  Args:
    sums: sums as scalars, or as arrays over steps, which are added up.

  Returns:
    {'elbo', 'log_lik', 'kl': {factor: ...}} in nats per group,
    'elbo_per_image' in nats per image, and 'penalties': {kind/factor: ...} per
    image where there are any.
  """
  # In float64: sums over a large data set outgrow float32's digits. Counts are
  # divided by only here, so that batches count by their groups.
  total = jax.tree.map(
      lambda value: float(np.sum(np.asarray(value), dtype=np.float64)), sums)
  groups, rows = total.num_groups or 1.0, total.num_rows or 1.0
  result = {
      'elbo': float(total.elbo()) / groups,
      'elbo_per_image': float(total.elbo()) / rows,
      'log_lik': total.log_lik / groups,
      'kl': {name: kl / groups for name, kl in total.kl.items()},
  }
  if total.penalties:
    result['penalties'] = {
        name: value / rows for name, value in total.penalties.items()}
  return result
