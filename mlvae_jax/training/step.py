"""One step of training, as a pure function: (state, batch) -> (state, metrics).

Noise and batches are functions of (seed, step, row), so a run draws the same
groups and the same noise on any number of devices, and after an interruption.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import dataclasses
import functools
import math
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from mlvae_jax.data.augment import Augment
from mlvae_jax.devices import own_copies
from mlvae_jax.grouping.checks import check_count, check_number
from mlvae_jax.inference.free import as_normals
from mlvae_jax.model.factors import Batch
from mlvae_jax.model.model import Model, Params
from mlvae_jax.objective.draws import draw_codes
from mlvae_jax.objective.elbo import (
    ElboTerms,
    elbo_of_codes,
    sum_terms,
    warm_up,
)
from mlvae_jax.objective.penalties.registry import (
    Kind,
    Penalty,
    init_critics,
    kinds_of,
    penalty_terms,
)
from mlvae_jax.training import tables as tables_lib
from mlvae_jax.training.tables import Table

# Numbers folded into the key of a run's seed, one per use of it.
_INIT, _STEPS, _TABLES, _CRITICS = 0, 1, 3, 4

# Learning rate of critics. It does not fall, so that they keep up with the
# encoder.
_CRITIC_LEARNING_RATE = 1e-3


class Critics(NamedTuple):
  """Classifiers that are trained against the encoder by some penalties.

  Attributes:
    params: parameters by the penalty's name.
    opt_state: state of their optax optimiser.
  """

  params: dict[str, Any]
  opt_state: Any


class TrainState(NamedTuple):
  """Everything that a step changes.

  Attributes:
    step: int32 scalar, number of steps taken.
    params: {'encoder': phi, 'decoder': theta}.
    opt_state: state of the optax optimiser.
    tables: free posteriors of an SVI model, a table per factor; else None.
    critics: critics of the penalties; None if no penalty has any.
  """

  step: jax.Array
  params: Params
  opt_state: Any
  tables: dict[str, Table] | None = None
  critics: Critics | None = None


class Metrics(NamedTuple):
  """Metrics of one batch, over all devices.

  Attributes:
    sums: sums of the terms of the ELBO, in nats.
    grad_norm: norm of the gradient that the optimiser was given.
    num_images: number of real rows.
  """

  sums: ElboTerms
  grad_norm: jax.Array
  num_images: jax.Array


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """Settings of the optimisation.

  Attributes:
    learning_rate: learning rate of Adam.
    seed: seed of initialisation and noise.
    kl_weights: (factor name, weight of its KL) pairs, or a dict of them; other
      weights are 1.
    kl_warmup_steps: number of steps over which all KL weights grow linearly
      from 0.
    sample_per: whether a group's code is drawn per 'row' (algorithm 1) or once
      per 'group'.
    penalties: penalties, each summed over images, that are subtracted from the
      ELBO; see `Penalty` for their weights.
    augment: random changes to the images; by default none.
    table_learning_rate: learning rate of the free posteriors of an SVI model.
    num_steps: number of steps at which training ends; used for the decay only.
    decay_fraction: fraction of the steps, at the end of training, over which
      both learning rates fall linearly to 0; by default none.
  """

  learning_rate: float = 1e-3
  seed: int = 0
  kl_weights: tuple[tuple[str, float], ...] = ()
  kl_warmup_steps: int = 0
  sample_per: str = 'row'
  penalties: tuple[Penalty, ...] = ()
  augment: Augment = Augment()
  table_learning_rate: float = 0.05
  num_steps: int = 0
  decay_fraction: float = 0.0

  def __post_init__(self):
    # Plain numbers and tuples can be hashed, and written as JSON.
    plain: dict[str, Any] = {
        name: check_count(getattr(self, name), name, 0)
        for name in ('seed', 'kl_warmup_steps', 'num_steps')}
    plain |= {
        name: check_number(getattr(self, name), name)
        for name in ('learning_rate', 'table_learning_rate', 'decay_fraction')}
    plain['kl_weights'] = _pairs(self.kl_weights)
    if isinstance(self.penalties, Iterable):
      plain['penalties'] = tuple(self.penalties)
    for name, value in plain.items():
      object.__setattr__(self, name, value)
    for name in ('learning_rate', 'table_learning_rate'):
      if not 0.0 < getattr(self, name) < math.inf:
        raise ValueError(f'expected {name} > 0, got {getattr(self, name)}')
    if not 0.0 <= self.decay_fraction <= 1.0:
      raise ValueError('expected decay_fraction in [0, 1], got '
                       f'{self.decay_fraction}')
    if not isinstance(self.penalties, tuple) or not all(
        isinstance(penalty, Penalty) for penalty in self.penalties):
      raise ValueError(
          'expected penalties to be a tuple such as (mlvae_jax.Penalty('
          f"'mean_leakage', 'style', 400.0),), got {self.penalties!r}")
    names = [penalty.name for penalty in self.penalties]
    if len(set(names)) < len(names):
      raise ValueError(f'expected every penalty once, got {", ".join(names)}')


def _pairs(weights: Any) -> tuple[tuple[str, float], ...]:
  """Weights of KLs as (factor name, weight) pairs."""
  try:
    pairs = [(name, weight) for name, weight in (
        weights.items() if isinstance(weights, Mapping) else weights)]
  except (TypeError, ValueError):
    raise ValueError(
        'expected kl_weights as a dict from factor names to weights, got '
        f'{weights!r}') from None
  found = tuple((name, check_number(weight, f'the KL weight of {name!r}'))
                for name, weight in pairs)
  for name, weight in found:
    if not 0.0 <= weight < math.inf:
      raise ValueError(
          f'expected a KL weight of at least 0 for {name!r}, got {weight}')
  return found


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
  """Adam, as in the first author's code; `train_step` applies the decay."""
  return optax.adam(config.learning_rate)


def init_state(model: Model, config: TrainConfig,
               table_sizes: Mapping[str, int] | None = None) -> TrainState:
  """Makes the state before the first step.

  Args:
    model: the model; static.
    config: settings, of which the seed is used.
    table_sizes: rows of the tables of an SVI model, see `Feed.table_sizes`.

  Returns:
    The state.
  """
  # As one program, for all seeds: hundreds of small ones would be compiled one
  # by one.
  return _init(
      model, dataclasses.replace(config, seed=0, num_steps=0),
      kinds_of(config.penalties), tuple((table_sizes or {}).items()),
      jax.random.key(config.seed))


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _init(model: Model, config: TrainConfig, kinds: tuple[Kind, ...],
          table_sizes: tuple[tuple[str, int], ...], key: jax.Array
          ) -> TrainState:
  del kinds  # The config only names them, and what a name means may change.
  init_key, table_key, critic_key = (
      jax.random.fold_in(key, use) for use in (_INIT, _TABLES, _CRITICS))
  params = model.init(init_key)
  tables = None
  if not model.has_encoder:
    tables = tables_lib.init_tables(model, table_key, dict(table_sizes))
  critics = init_critics(model, config.penalties, critic_key)
  return TrainState(
      jnp.zeros((), jnp.int32), params, make_optimizer(config).init(params),
      tables, None if critics is None else Critics(
          critics, _critic_optimizer().init(critics)))


def train_step(
    model: Model,
    config: TrainConfig,
    num_groups: Mapping[str, int],
    state: TrainState,
    batch: Batch,
    axis_name: str | None = None,
    table_rows: Mapping[str, jax.Array] | None = None,
    key: jax.Array | None = None,
) -> tuple[TrainState, Metrics]:
  """One step of Adam up the average group ELBO (paper eq. 5) less penalties.

  Critics take a step of their own, up their penalties.

  Args:
    model: the model; static.
    config: settings of the optimisation; static.
    num_groups: static number of groups per grouped factor.
    state: state before the step.
    batch: the rows, or this device's share of them.
    axis_name: mapped axis over which the batch is spread, if any.
    table_rows: rows of `state.tables` with the posteriors of an SVI model's
      batch, as `tables.gather` takes them.
    key: the run's key, that of `config.seed` if None. Given here, it is no part
      of a compiled program, which is then the same for all seeds.

  Returns:
    The state after the step, and the whole batch's metrics before it.
  """
  if key is None:
    key = jax.random.key(config.seed)
  key, augment_key = jax.random.split(jax.random.fold_in(
      jax.random.fold_in(key, _STEPS), state.step))
  batch = batch._replace(
      x=config.augment(augment_key, batch.x, batch.rows))
  kl_weights = _kl_weights(model, config, state.step)

  def total_loss(params, free, critics):
    drawn = draw_codes(
        model, params, key, batch, num_groups, sample_per=config.sample_per,
        free=None if free is None else as_normals(free),
        axis_name=axis_name)
    # The penalties are traced before the decoder: gradients are added up in
    # reverse order, on which their last bits depend.
    penalties = penalty_terms(
        model, config.penalties, drawn, num_groups, critics,
        axis_name=axis_name)
    sums = sum_terms(
        elbo_of_codes(model, params, drawn)._replace(penalties=penalties))
    # The weights of penalties are in their gradients.
    return sum(sums.penalties.values()) - sums.elbo(kl_weights), sums

  tables, table_rows = state.tables, table_rows or {}
  free = None if tables is None else tables_lib.gather(tables, table_rows)
  critics = state.critics and state.critics.params
  # With respect to a device's own copies: then the gradients are its own too,
  # and are summed over devices once, below.
  (_, sums), (grads, free_grads, critic_grads) = jax.value_and_grad(
      total_loss, argnums=(0, 1, 2), has_aux=True)(
          *own_copies((state.params, free, critics), [axis_name]))
  num_images = jnp.sum(batch.mask)
  if axis_name is not None:
    grads, critic_grads, sums, num_images = jax.lax.psum(
        (grads, critic_grads, sums, num_images), axis_name)
  # Eq. 5: the sum over groups becomes an average, over groups on all devices.
  scale = 1.0 / jnp.where(sums.num_groups > 0, sums.num_groups, 1.0)
  grads, free_grads, critic_grads = jax.tree.map(
      lambda g: g * scale, (grads, free_grads, critic_grads))
  decay = _decay(state.step, config)
  if tables is not None:
    tables = tables_lib.update(
        model, tables, table_rows, free_grads,
        config.table_learning_rate * decay, axis_name)
  # Adam's updates are scaled, not its gradients, to which it is indifferent.
  updates, opt_state = make_optimizer(config).update(
      grads, state.opt_state, state.params)
  params = cast(Params, optax.apply_updates(
      state.params, jax.tree.map(lambda u: u * decay, updates)))
  critics = state.critics and _ascend(state.critics, critic_grads)
  return (TrainState(state.step + 1, params, opt_state, tables, critics),
          Metrics(sums, _norm(grads), num_images))


def _norm(grads: Params) -> jax.Array:
  """The Euclidean norm of all gradients together."""
  # By products with themselves: before it sums, XLA writes squares to memory,
  # which takes a CPU nearly as long as Adam's update.
  return jnp.sqrt(sum(
      jnp.vdot(g, g, precision=jax.lax.Precision.HIGHEST)
      for g in jax.tree.leaves(grads)))


def _critic_optimizer() -> optax.GradientTransformation:
  return optax.adam(_CRITIC_LEARNING_RATE)


def _ascend(critics: Critics, grads: dict[str, Any]) -> Critics:
  """One step of Adam up the penalties."""
  updates, opt_state = _critic_optimizer().update(
      jax.tree.map(jnp.negative, grads), critics.opt_state)
  params = cast(dict, optax.apply_updates(critics.params, updates))
  return Critics(params, opt_state)


def _kl_weights(model: Model, config: TrainConfig, step: jax.Array
                ) -> dict[str, jax.Array]:
  """The weight of every factor's KL at a step, warm-up included."""
  warm = warm_up(step, config.kl_warmup_steps)
  weights = {f.name: warm for f in model.factors}
  for name, weight in config.kl_weights:
    weights[name] = weight * warm
  return weights


def _decay(step: jax.Array, config: TrainConfig) -> jax.Array | float:
  """The number in [0, 1] that the learning rates are multiplied by."""
  if not config.decay_fraction:
    return 1.0
  decay_steps = config.decay_fraction * config.num_steps
  return jnp.clip((config.num_steps - step) / decay_steps, 0.0, 1.0)
