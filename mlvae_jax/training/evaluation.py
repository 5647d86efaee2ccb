"""The ELBO of many images: over a pass of a feed, and as averages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlvae_jax.data.feed import (
    DEVICES,
    Feed,
    all_devices,
    chunk_bounds,
    local_batch,
)
from mlvae_jax.inference import free as free_lib
from mlvae_jax.model.model import Model, Params
from mlvae_jax.objective.elbo import ElboTerms, elbo_terms, sum_terms

_EVAL_STEPS = 256  # Per dispatch.
_INFER = 0xFFFF1FE2  # Folded into a step's key; distinct from factors' keys.


def make_evaluate(
    model: Model, num_groups: Mapping[str, int],
    devices: Sequence[jax.Device] | None = None
) -> Callable[..., ElboTerms]:
  """Builds evaluate(params, key, a, *feed.chunk(a, b)) -> sums over a chunk.

  Terms are those of the unweighted ELBO, with one sample per image. For an
  SVI model the posteriors are inferred batch by batch.

  Args:
    model: static.
    num_groups: static number of groups per grouped factor.
    devices: those of the feed, all if None.

  Returns:
    The function.
  """

  def run(params, key, start, images, index, pixels):
    def step(number, inputs):
      batch = local_batch(model, images, *inputs)
      step_key, free = jax.random.fold_in(key, number), None
      if not model.has_encoder:
        free = free_lib.fit(
            model, params, jax.random.fold_in(step_key, _INFER), batch,
            tuple(num_groups.items()), axis_name=DEVICES)
      terms = elbo_terms(
          model, params, step_key, batch, num_groups, free=free,
          axis_name=DEVICES)
      return number + 1, jax.lax.psum(sum_terms(terms), DEVICES)

    _, sums = jax.lax.scan(step, start, (index, pixels))
    return jax.tree.map(lambda value: jnp.sum(value, axis=0), sums)

  return jax.pmap(
      run, axis_name=DEVICES, in_axes=(None, None, None, None, 0, 0),
      out_axes=None, devices=devices or all_devices())


def evaluate_elbo(model: Model, params: Params, feed: Feed, *, seed: int = 0,
                  max_images: int | None = None,
                  evaluate: Callable[..., ElboTerms] | None = None
                  ) -> dict[str, Any]:
  """The ELBO over one epoch of a feed, or the first part of it.

  Args:
    model: static.
    params: its parameters.
    feed: whose stream does not shuffle, to see every image once.
    seed: of the noise.
    max_images: stop after about this many; None for all.
    evaluate: what `make_evaluate` built, to compile it only once.

  Returns:
    `summarize`'s dict.
  """
  evaluate = evaluate or make_evaluate(
      model, feed.num_groups, feed.devices)
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
  """Sums to averages: per group as in eq. 5, and per image.

  Args:
    sums: scalars, or arrays over steps, which are added up.

  Returns:
    {'elbo', 'log_lik', 'kl': {factor: ...}} in nats per group,
    'elbo_per_image', and where there are any 'penalties': {kind/factor: ...}
    per image.
  """
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
