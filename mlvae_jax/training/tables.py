"""Free posteriors of the training images and their groups, in tables.

A model without an encoder (SVI, paper fig. 3a) keeps a row of 2 D numbers,
mean and log-variance, for every group and every image. A step moves the rows
of its batch.
"""

from __future__ import annotations

from collections.abc import Mapping
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlvae_jax.inference.free import START_LOGVAR, FreeValues
from mlvae_jax.model.model import Model

_START_STD = 0.1
_BLOCK = 1 << 16
_DECAY, _EPSILON = 0.999, 1e-8  # As optax.adam has.


class Table(NamedTuple):
  """The free posteriors of a factor, with the state of their optimiser.

  That is Adam without momentum, and with one second moment for all of a
  posterior's means and one for its log-variances: a tenth of Adam's state, as
  good here.

  Attributes:
    value: `[T, 2 D]`, mean and log-variance.
    square: `[T, 2]`, running means of their squared gradients.
    count: `[T]` int32, how often a row was updated.
  """

  value: jax.Array
  square: jax.Array
  count: jax.Array


def init_tables(model: Model, key: jax.Array, sizes: Mapping[str, int]
                ) -> dict[str, Table]:
  """Tables of free posteriors.

  Args:
    model: static.
    key: consumed.
    sizes: rows T per factor: the number of groups, or of images.

  Returns:
    A table per factor.
  """
  keys = jax.random.split(key, len(model.factors))
  return {f.name: _init_table(factor_key, sizes[f.name], f.dim)
          for f, factor_key in zip(model.factors, keys)}


@functools.partial(jax.jit, static_argnums=(1, 2))
def _init_table(key: jax.Array, size: int, dim: int) -> Table:
  # Block by block: what is drawn at once needs memory beside the table.
  block = min(size, _BLOCK)
  value = jnp.full((size, 2 * dim), START_LOGVAR)

  def fill(i, value):
    mean = _START_STD * jax.random.normal(
        jax.random.fold_in(key, i), (block, dim))
    return jax.lax.dynamic_update_slice(
        value, mean, (jnp.minimum(i * block, size - block), 0))

  value = jax.lax.fori_loop(0, -(-size // block), fill, value)
  return Table(value, jnp.zeros((size, 2)), jnp.zeros(size, jnp.int32))


def gather(tables: Mapping[str, Table], table_rows: Mapping[str, jax.Array]
           ) -> FreeValues:
  """The rows of a batch; zeros, the prior, for -1.

  Args:
    tables: per factor.
    table_rows: per factor `[G or N]` ints, rows of its table; -1 for none.

  Returns:
    `[G or N, 2 D]` per factor.
  """
  return {
      name: jnp.where(
          table_rows[name][:, None] >= 0, table.value[table_rows[name]], 0.0)
      for name, table in tables.items()}


def update(
    model: Model,
    tables: Mapping[str, Table],
    table_rows: Mapping[str, jax.Array],
    grads: FreeValues,
    learning_rate: float,
    axis_name: str | None = None,
) -> dict[str, Table]:
  """A step up on the rows of a batch, which leaves the others alone.

  Args:
    model: static.
    tables: per factor.
    table_rows: as in `gather`; no row twice.
    grads: of the loss, `[G or N, 2 D]` per factor.
    learning_rate: of the optimiser that `Table` describes.
    axis_name: mapped axis over which the batch is spread, if any.

  Returns:
    The new tables, the same on every device.
  """
  new = {}
  for factor in model.factors:
    name = factor.name
    rows, grad = table_rows[name], grads[name]
    if axis_name is not None:
      if factor.grouping is not None:  # Devices share the batch's groups.
        grad = jax.lax.psum(grad, axis_name)
      else:
        rows, grad = jax.lax.all_gather(
            (rows, grad), axis_name, tiled=True, to='invarying')
    new[name] = _step(tables[name], rows, grad, learning_rate)
  return new


def _step(table: Table, rows: jax.Array, grad: jax.Array,
          learning_rate: float) -> Table:
  """Updates some rows; each counts its own updates for the bias correction."""
  target = jnp.where(rows >= 0, rows, table.count.shape[0])  # Then dropped.
  halves = grad.reshape(len(grad), 2, -1)  # Of means, and of log-variances.
  count = table.count[rows] + 1
  square = _DECAY * table.square[rows] + (1 - _DECAY) * jnp.mean(
      jnp.square(halves), axis=-1)
  correct = 1 - _DECAY ** count.astype(jnp.float32)
  scale = jnp.sqrt(square / correct[:, None]) + _EPSILON
  value = table.value[rows] - learning_rate * (
      halves / scale[..., None]).reshape(grad.shape)
  return Table(*(
      old.at[target].set(new, mode='drop')
      for old, new in zip(table, (value, square, count))))
