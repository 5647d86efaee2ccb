"""The view of a batch that penalties get, and comparisons between its rows.

Rows are compared with all other rows of the batch, on all devices.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlvae_jax.grouping.normal import Normal, at_least_float32


class Other(NamedTuple):
  """A grouping that a factor's codes should not reveal.

  Attributes:
    group_ids: `[N]` ints, the group of each row within the batch.
    num_groups: static number of groups of the batch, G.
    numbers: `[G]` ints, the number of each group within the data.
  """

  group_ids: jax.Array
  num_groups: int
  numbers: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
  """The rows of a batch, or this device's share of them, for one factor.

  Attributes:
    q: Normal of `[N, D]`, each row's own posterior; N(0, I) for padding.
    mask: `[N]` bool, False for padding.
    group_ids: `[N]` ints, groups of the factor's own grouping; None where it is
      not grouped.
    num_groups: static number of these groups; None where it is not grouped.
    others: the groupings of the grouped factors with another grouping, by the
      factor's name.
    axis_name: mapped axis over which the batch is spread, if any.
  """

  q: Normal
  mask: jax.Array
  group_ids: jax.Array | None
  num_groups: int | None
  others: Mapping[str, Other]
  axis_name: str | None = None

  def with_gradients(self, scale: jax.typing.ArrayLike) -> Rows:
    """The same rows; gradients with respect to them are multiplied by scale."""
    def scaled(x: jax.Array) -> jax.Array:
      constant = jax.lax.stop_gradient(x)
      return constant + (scale * (x - constant)).astype(x.dtype)

    return dataclasses.replace(self, q=jax.tree.map(scaled, self.q))

  def signal_to_noise(self) -> jax.Array:
    """How far codes of different rows are apart, in units of their noise.

    Returns:
      A constant for gradients: the deviation of the means over the real rows,
      at most 1, divided by the posterior deviation (a geometric mean over
      rows), as root mean square over dimensions. 0 where the code says nothing
      of its row.
    """
    mean, logvar = at_least_float32(self.q.mean), at_least_float32(
        self.q.logvar)
    real = self.mask[:, None].astype(mean.dtype)

    def average(x: jax.Array) -> jax.Array:
      total, count = jnp.sum(real * x, axis=0), jnp.sum(real)
      if self.axis_name is not None:
        total, count = jax.lax.psum((total, count), self.axis_name)
      return total / jnp.maximum(count, 1.0)

    # At most that of the prior: penalties that do not depend on the scale of
    # means do not stop noise in their gradients from making means grow.
    variance = jnp.minimum(average((mean - average(mean)) ** 2), 1.0)
    # Not infinite where a variance underflows: a weight of 0 has to give 0.
    logvar = jnp.maximum(average(logvar), -80.0)
    return jax.lax.stop_gradient(
        jnp.sqrt(jnp.mean(variance * jnp.exp(-logvar))))


def pairs(values: jax.Array, group_ids: jax.Array, mask: jax.Array,
          axis_name: str | None) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Every row's value, and which pairs of rows are of the same group.

  Args:
    values: `[N, D]`.
    group_ids: `[N]` ints, the group of each row.
    mask: `[N]` bool, False for padding.
    axis_name: mapped axis over which the batch is spread, if any.

  Returns:
    The values `[M, D]` of the M rows on all devices, and two masks `[N, M]` of
    pairs (this row, any row) of different real rows: of the same group, and of
    different groups.
  """
  row = jnp.arange(values.shape[0])
  everyone, all_ids, all_real, all_rows = values, group_ids, mask, row
  if axis_name is not None:
    # Numbered across devices, to tell a row from its own gathered copy.
    row = row + values.shape[0] * jax.lax.axis_index(axis_name)
    everyone, all_ids, all_real, all_rows = jax.lax.all_gather(
        (values, group_ids, mask, row), axis_name, tiled=True)
  pair = mask[:, None] & all_real & (row[:, None] != all_rows)
  same_group = group_ids[:, None] == all_ids
  return everyone, pair & same_group, pair & ~same_group


def mean_where(chosen: jax.Array, values: jax.Array) -> jax.Array:
  """Mean of the chosen values over the last axis; 0 where none is chosen."""
  # `where` rather than a product: values that are not chosen may be -inf.
  total = jnp.sum(jnp.where(chosen, values, 0.0), axis=-1)
  return total / jnp.maximum(jnp.sum(chosen, axis=-1), 1)
