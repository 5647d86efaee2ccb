"""Free posteriors of the training images and their groups, in tables.

A model without an encoder (SVI, paper fig. 3a) keeps a row of 2 D numbers,
mean and log-variance, for every group and every image. A step updates only the
rows of its batch, so its cost does not depend on the size of the tables.
"""

from __future__ import annotations

from collections.abc import Mapping
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlvae_jax.inference.free import START_LOGVAR, FreeValues
from mlvae_jax.model.model import Model

_START_STD = 0.1  # Of the means, so that rows start out different.
_BLOCK = 1 << 16  # Rows that are drawn at once.
_DECAY, _EPSILON = 0.999, 1e-8  # The defaults of optax.adam.


class Table(NamedTuple):
  """The free posteriors of a factor, with the state of their optimiser.

  The optimiser is Adam without momentum, with one second moment for all means
  of a posterior and one for its log-variances. Its state is a tenth of Adam's,
  and it works as well here.

  Attributes:
    value: `[T, 2 D]`, means and log-variances.
    square: `[T, 2]`, running averages of the squared gradients of the means and
      of the log-variances.
    count: `[T]` int32, number of updates of each row.
  """

  value: jax.Array
  square: jax.Array
  count: jax.Array


def init_tables(model: Model, key: jax.Array, sizes: Mapping[str, int]
                ) -> dict[str, Table]:
  """Makes tables of free posteriors, with small random means.

  Args:
    model: the model; static.
    key: random key; consumed.
    sizes: number of rows T per factor: of groups, or of images.

  Returns:
    A table per factor.
  """
  keys = jax.random.split(key, len(model.factors))
  return {f.name: _init_table(factor_key, sizes[f.name], f.dim)
          for f, factor_key in zip(model.factors, keys)}


@functools.partial(jax.jit, static_argnums=(1, 2))
def _init_table(key: jax.Array, size: int, dim: int) -> Table:
  # Block by block: random numbers for the whole table would need as much memory
  # again. The last block is moved back to fit, over rows of the one before.
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
  """Gathers the rows of a batch from the tables.

  Args:
    tables: the table of each factor.
    table_rows: rows of each factor's table, `[G or N]` ints; -1 for padding.

  Returns:
    `[G or N, 2 D]` per factor; zeros, which are the prior, for padding.
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
    learning_rate: float | jax.Array,
    axis_name: str | None = None,
) -> dict[str, Table]:
  """Updates the rows of a batch by a step of the optimiser; others stay.

  Args:
    model: the model; static.
    tables: the table of each factor.
    table_rows: rows as in `gather`, none of them twice.
    grads: gradients of the loss, `[G or N, 2 D]` per factor.
    learning_rate: learning rate of the optimiser that `Table` describes.
    axis_name: mapped axis over which the batch is spread, if any.

  Returns:
    The new tables, the same on every device.
  """
  new = {}
  for factor in model.factors:
    name = factor.name
    rows, grad = table_rows[name], grads[name]
    if axis_name is not None:
      if factor.grouping is not None:  # Devices have the same groups.
        grad = jax.lax.psum(grad, axis_name)
      else:  # Devices have different rows, and each table needs all of them.
        rows, grad = jax.lax.all_gather(
            (rows, grad), axis_name, tiled=True, to='invarying')
    new[name] = _step(tables[name], rows, grad, learning_rate)
  return new


def _step(table: Table, rows: jax.Array, grad: jax.Array,
          learning_rate: float | jax.Array) -> Table:
  """Updates some rows; each counts its own updates for the bias correction."""
  # Padding is moved past the end, where mode='drop' ignores it; -1 would be
  # the last row.
  target = jnp.where(rows >= 0, rows, table.count.shape[0])
  halves = grad.reshape(len(grad), 2, -1)  # Of means, and of log-variances.
  count = table.count[rows] + 1
  square = _DECAY * table.square[rows] + (1 - _DECAY) * jnp.mean(
      jnp.square(halves), axis=-1)
  # Adam's bias correction, by a row's own count: rows are updated at different
  # steps, and all start from a running average of 0.
  correct = 1 - _DECAY ** count.astype(jnp.float32)
  scale = jnp.sqrt(square / correct[:, None]) + _EPSILON
  value = table.value[rows] - learning_rate * (
      halves / scale[..., None]).reshape(grad.shape)
  return Table(*(
      old.at[target].set(new, mode='drop')
      for old, new in zip(table, (value, square, count))))
