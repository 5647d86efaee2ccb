"""Stochastic variational inference (SVI) for groups of new images.

The model is that of the ML-VAE without the encoder (paper fig. 3a): every group
and every observation has a posterior with free parameters. In training these
are in tables (`training.tables`). For new images they are found here, by
optimisation with the decoder held fixed.

A posterior is a row of 2 D numbers, mean and log-variance.
"""

from __future__ import annotations

from collections.abc import Mapping
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mlvae_jax.devices import own_copies, varying_axes
from mlvae_jax.grouping.normal import Normal, at_least_float32
from mlvae_jax.model.factors import Batch
from mlvae_jax.model.model import Model, Params
from mlvae_jax.objective.elbo import elbo_terms, sum_terms

# Started at the prior's 0, samples would be almost all noise, and the gradient
# of the means with them.
START_LOGVAR = -2.0
NUM_STEPS = 150  # Enough for MNIST, see `experiments.svi_comparison`.
LEARNING_RATE = 0.2
# Of Adam's average of squared gradients, which are large at the start. With the
# usual 0.999 they would slow down all of so few steps.
_DECAY = 0.9

FreeValues = dict[str, jax.Array]  # `[G or N, 2 D]` per factor.


def as_normals(free: Mapping[str, jax.Array]) -> dict[str, Normal]:
  """Converts rows `[M, 2 D]` per factor to Normals of `[M, D]`."""
  return {name: Normal(*jnp.split(value, 2, axis=-1))
          for name, value in free.items()}


@functools.partial(jax.jit, static_argnums=(0, 4),
                   static_argnames=('num_steps', 'learning_rate', 'axis_name'))
def fit(model: Model, params: Params, key: jax.Array, batch: Batch,
        num_groups: tuple[tuple[str, int], ...], *,
        num_steps: int = NUM_STEPS, learning_rate: float = LEARNING_RATE,
        start: Mapping[str, Normal] | None = None,
        axis_name: str | None = None) -> dict[str, Normal]:
  """Infers the posteriors of a batch, with the decoder held fixed.

  Adam maximises the batch's ELBO, with new noise at every step and a learning
  rate that decays to 0 along a cosine.

  Args:
    model: the model; static.
    params: parameters, of which only the decoder's are used.
    key: random key; consumed.
    batch: the rows, or this device's share of them.
    num_groups: static (factor name, number of groups) pairs.
    num_steps: number of steps of Adam.
    learning_rate: learning rate at the start.
    start: posteriors to start from, in the form of the result; by default
      Normals of mean 0.
    axis_name: mapped axis over which the batch is spread, if any.

  Returns:
    Normal of `[G, D]` per grouped factor, of `[N, D]` per ungrouped one.

  Raises:
    ValueError: where the start is not of this form.
  """
  sizes = dict(num_groups)
  rows = batch.mask.shape[0]
  if start is not None:
    _check_start(model, start, sizes, rows)
  optimizer = optax.adam(
      optax.cosine_decay_schedule(learning_rate, num_steps), b2=_DECAY)
  shared = [f.name for f in model.grouped]
  axes = varying_axes(batch.mask)

  def begin(factor):
    size = (sizes.get(factor.name, rows), factor.dim)
    free = jnp.concatenate(
        [jnp.zeros(size), jnp.full(size, START_LOGVAR)] if start is None else
        [at_least_float32(value) for value in start[factor.name]], axis=1)
    # In a scan a carry's type must not change, and under `shard_map` that says
    # over which axes it varies: rows' posteriors over all of the batch's axes,
    # groups' not over the one that the batch is spread over.
    return own_copies(
        (free, optimizer.init(free)),
        axes if factor.grouping is None else axes - {axis_name})

  def loss(free: FreeValues, step_key: jax.Array) -> jax.Array:
    return -sum_terms(elbo_terms(
        model, params, step_key, batch, sizes, free=as_normals(free),
        axis_name=axis_name)).elbo()

  def step(carry: Any, step_key: jax.Array) -> Any:
    free = {name: value for name, (value, _) in carry.items()}
    grads = jax.grad(loss)(own_copies(free, [axis_name]), step_key)
    # A group may have rows on several devices; a row is on one.
    if axis_name is not None:
      grads |= jax.lax.psum({name: grads[name] for name in shared}, axis_name)
    for name, (value, opt_state) in carry.items():
      updates, opt_state = optimizer.update(grads[name], opt_state)
      carry = carry | {name: (optax.apply_updates(value, updates), opt_state)}
    return carry, None

  found, _ = jax.lax.scan(step, {f.name: begin(f) for f in model.factors},
                          jax.random.split(key, num_steps))
  return as_normals({name: value for name, (value, _) in found.items()})


def _check_start(model: Model, start: Mapping[str, Normal],
                 sizes: Mapping[str, int], rows: int) -> None:
  """Raises a ValueError unless there is a Normal of the right shape for all."""
  if set(start) != {f.name for f in model.factors}:
    raise ValueError(
        'expected start to have the factors '
        f'{", ".join(f.name for f in model.factors)}, got {", ".join(start)}')
  for factor in model.factors:
    if not isinstance(start[factor.name], Normal):
      raise ValueError(
          f'expected the start of {factor.name!r} to be a Normal, got '
          f'{type(start[factor.name]).__name__}')
    expected = (sizes.get(factor.name, rows), factor.dim)
    for part, value in zip(Normal._fields, start[factor.name]):
      if jnp.shape(value) != expected:
        raise ValueError(
            f'expected the {part} of the start of {factor.name!r} to be '
            f'{list(expected)}, got {list(jnp.shape(value))}')


def infer(model: Model, params: Params, x: jax.Array,
          group_ids: Mapping[str, jax.Array],
          num_groups: Mapping[str, int], *,
          mask: jax.Array | None = None, num_steps: int = NUM_STEPS,
          learning_rate: float = LEARNING_RATE,
          start: Mapping[str, Normal] | None = None, seed: int = 0
          ) -> dict[str, Normal]:
  """Infers posteriors of observations and of their groups, by optimisation.

  Args:
    model: the model; static.
    params: the model's parameters.
    x: observations `[N, ...]`, as `Model.prepare` gives them.
    group_ids: group of each row, `[N]` ints per grouped factor.
    num_groups: number of groups per grouped factor.
    mask: optional `[N]` bool; False drops a row.
    num_steps: number of steps of the optimisation.
    learning_rate: learning rate at the start.
    start: posteriors to start from, as `fit` takes them.
    seed: seed of its noise.

  Returns:
    Normal of `[G, D]` per grouped factor, of `[N, D]` per ungrouped one; N(0,
    I) for groups without rows and for rows that are dropped.

  Raises:
    ValueError: where the start is not of this form.
  """
  num_rows = x.shape[0]
  mask = jnp.ones(num_rows, bool) if mask is None else mask
  found = fit(
      model, params, jax.random.key(seed),
      Batch(x, {name: jnp.asarray(ids) for name, ids in
                     group_ids.items()}, mask, jnp.arange(num_rows)),
      tuple(sorted(num_groups.items())), num_steps=num_steps,
      learning_rate=learning_rate, start=start)
  present = {
      name: jax.ops.segment_max(mask.astype(jnp.int32), group_ids[name],
                                num_groups[name]) > 0
      for name in group_ids}
  # Without rows there is no gradient: these have not moved from the start.
  return {name: q.masked(present.get(name, mask)) for name, q in found.items()}
