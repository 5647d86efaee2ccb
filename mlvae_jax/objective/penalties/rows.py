"""The view of a batch that penalties get, and comparisons between its rows.

Rows are compared with all other rows of the batch, on all devices.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlvae_jax.grouping.normal import Normal


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
    encoded: Normal of `[N, D]`, each row's own posterior; anything for padding,
      even NaN.
    q: the same, but N(0, I) for padding.
    z: `[N, D]`, a code of each row, drawn from its own posterior.
    mask: `[N]` bool, False for padding.
    group_ids: `[N]` ints, groups of the factor's own grouping; None where it is
      not grouped.
    num_groups: static number of these groups; None where it is not grouped.
    others: the groupings of the grouped factors with another grouping, by the
      factor's name.
    axis_name: mapped axis over which the batch is spread, if any.
  """

  encoded: Normal
  q: Normal
  z: jax.Array
  mask: jax.Array
  group_ids: jax.Array | None
  num_groups: int | None
  others: Mapping[str, Other]
  axis_name: str | None = None

  def measured(self) -> Rows:
    """The same rows, whose values are constants for gradients."""
    return dataclasses.replace(self, **jax.lax.stop_gradient(
        {'encoded': self.encoded, 'q': self.q, 'z': self.z}))


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
