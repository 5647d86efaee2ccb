"""The training loop: chunks of steps under pmap, one dispatch each.

A chunk is a `lax.scan` over its steps. On a CPU or with a small model,
dispatching every step by itself would take longer than computing it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
import dataclasses
import functools
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
    replicate,
)
from mlvae_jax.devices import Device
from mlvae_jax.model.model import Model
from mlvae_jax.objective.penalties.registry import Kind, kinds_of
from mlvae_jax.training.step import Metrics, TrainConfig, TrainState, train_step


class DivergedError(RuntimeError):
  """The objective or its gradient is not finite."""


def make_chunk(
    model: Model, config: TrainConfig, num_groups: Mapping[str, int],
    devices: Sequence[Device] | None = None
) -> Callable[..., tuple[TrainState, Metrics]]:
  """Builds chunk(state, *feed.chunk(a, b)) -> (state, metrics `[b - a]`).

  One dispatch scans all steps of a chunk on all devices, including those of
  other processes. The state is replicated; with a single process it is donated,
  so that it is not in memory twice. A process compiles a chunk once, for all
  seeds and runs that agree in the rest.

  Args:
    model: the model; static.
    config: settings of the optimisation; static.
    num_groups: static number of groups per grouped factor.
    devices: devices of the feed; all if None.

  Returns:
    The function.
  """
  shared = dataclasses.replace(config, seed=0)
  if not shared.decay_fraction:  # Then nothing depends on the number of steps.
    shared = dataclasses.replace(shared, num_steps=0)
  program = _program(
      model, shared, kinds_of(shared.penalties), tuple(num_groups.items()),
      tuple(devices or all_devices()), jax.process_count() == 1)
  return functools.partial(program, jax.random.key(config.seed))


@functools.lru_cache(maxsize=16)
def _program(
    model: Model, config: TrainConfig, kinds: tuple[Kind, ...],
    num_groups: tuple[tuple[str, int], ...], devices: tuple[Device, ...],
    donates: bool
) -> Callable[..., tuple[TrainState, Metrics]]:
  """The chunk of any seed: its first argument is the key of a run."""
  del kinds  # The config only names them, and what a name means may change.
  # With a single device there is nothing to sum, and a sum over it would copy
  # every gradient.
  axis_name = DEVICES if len(devices) > 1 else None

  def run(key, state, x, index, gathered):
    def step(state, inputs):
      batch = local_batch(model, x, *inputs)
      table_rows = None
      if state.tables is not None:
        table_rows = _table_rows(model, inputs[0])
      return train_step(
          model, config, dict(num_groups), state, batch, axis_name, table_rows,
          key)

    return jax.lax.scan(step, state, (index, gathered))

  # `train_step` sums gradients over the devices, so the new state is the same
  # on all of them, and out_axes=None takes one without stacking copies.
  return jax.pmap(
      run, axis_name=DEVICES, in_axes=(None, None, None, 0, 0), out_axes=None,
      devices=devices,
      # With other processes pmap copies the state, and warns if it is donated.
      donate_argnums=1 if donates else ())


def train(
    state: TrainState,
    feed: Feed,
    chunk: Callable[..., tuple[TrainState, Metrics]],
    *,
    num_steps: int,
    chunk_steps: int,
) -> Generator[tuple[TrainState, Metrics], None, None]:
  """Trains until `num_steps`; yields the state and metrics of each chunk.

  Chunks end at multiples of `chunk_steps`, wherever the run started. The
  yielded state is donated to the next chunk: copy what must outlive it.

  Args:
    state: state to start from; its step determines the first batch.
    feed: feed of training data.
    chunk: function that `make_chunk` built.
    num_steps: step number at which training ends.
    chunk_steps: number of steps per dispatch.

  Yields:
    The state after a chunk, and its metrics `[steps]` on the host.

  Raises:
    DivergedError: where a step's ELBO or gradient is not finite; the states
      yielded before are not affected.
  """
  start = int(state.step)
  state = replicate(state, feed.devices)
  bounds = chunk_bounds(start, num_steps, chunk_steps)
  for (first, _), inputs in zip(bounds, feed.chunks(bounds)):
    state, metrics = chunk(state, *inputs)
    metrics = jax.device_get(metrics)
    # Both: a gradient can overflow while the ELBO is still finite.
    finite = np.isfinite(metrics.sums.elbo()) & np.isfinite(metrics.grad_norm)
    if not finite.all():
      raise DivergedError(
          f'the ELBO or its gradient is not finite at step '
          f'{first + int(np.argmin(finite)) + 1}')
    yield state, metrics


def _table_rows(model: Model, index: Any) -> dict[str, jax.Array]:
  """Rows of the tables that hold the posteriors of a step; -1 for padding."""
  rows = jnp.where(index.mask, index.rows, -1)
  return {f.name: rows if f.grouping is None else index.groups[f.grouping]
          for f in model.factors}
