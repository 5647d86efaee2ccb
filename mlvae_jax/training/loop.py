"""The loop of training: chunks of steps under pmap, one dispatch each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

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
from mlvae_jax.data.index_stream import IndexBatch
from mlvae_jax.model.model import Model
from mlvae_jax.training.step import Metrics, TrainConfig, TrainState, train_step


class DivergedError(RuntimeError):
  """The objective or its gradient is not finite."""


def make_chunk(
    model: Model, config: TrainConfig, num_groups: Mapping[str, int]
) -> Callable[..., tuple[TrainState, Metrics]]:
  """Builds chunk(state, *feed.chunk(a, b)) -> (state, metrics `[b - a]`).

  One dispatch scans all the steps of a chunk on all devices, those of other
  processes too. The state is replicated, and donated where there is one
  process.
  """

  def run(state, images, index, pixels):
    def step(state, inputs):
      batch = local_batch(model, images, *inputs)
      table_rows = None
      if state.tables is not None:
        table_rows = _table_rows(model, inputs[0])
      return train_step(
          model, config, num_groups, state, batch, DEVICES, table_rows)

    return jax.lax.scan(step, state, (index, pixels))

  return jax.pmap(
      run, axis_name=DEVICES, in_axes=(None, None, 0, 0), out_axes=None,
      devices=all_devices(),
      # What pmap hands to other processes it copies, and warns if donated.
      donate_argnums=() if jax.process_count() > 1 else 0)


def train(
    state: TrainState,
    feed: Feed,
    chunk: Callable[..., tuple[TrainState, Metrics]],
    *,
    num_steps: int,
    chunk_steps: int,
) -> Iterator[tuple[TrainState, Metrics]]:
  """Trains until `num_steps`; yields the state and metrics of each chunk.

  Chunks end at multiples of `chunk_steps`, wherever the run started. The
  yielded state is donated to the next chunk: copy what must outlive it.

  Args:
    state: where to start; its step says from which batch.
    feed: of training data.
    chunk: what `make_chunk` built.
    num_steps: step number at which training ends.
    chunk_steps: steps per dispatch.

  Yields:
    The state after a chunk, and metrics `[steps]` on the host.

  Raises:
    DivergedError: when a step's ELBO or gradient is not finite; the states
      yielded before are good.
  """
  start = int(state.step)
  state = replicate(state)
  bounds = chunk_bounds(start, num_steps, chunk_steps)
  for (first, _), inputs in zip(bounds, feed.chunks(bounds)):
    state, metrics = chunk(state, *inputs)
    metrics = jax.device_get(metrics)
    finite = np.isfinite(metrics.sums.elbo()) & np.isfinite(metrics.grad_norm)
    if not finite.all():
      raise DivergedError(
          f'the ELBO or its gradient is not finite at step '
          f'{first + int(np.argmin(finite)) + 1}')
    yield state, metrics


def _table_rows(model: Model, index: IndexBatch) -> dict[str, jax.Array]:
  """Which rows of the tables are the posteriors of a step."""
  rows = jnp.where(index.mask, index.rows, -1)
  return {f.name: rows if f.grouping is None else index.groups[f.grouping]
          for f in model.factors}
