"""Sums over the rows of groups, accurate for groups of any length.

Adding a million similar numbers one after the other can be a percent off in
float32, so long groups are summed in a tree of short chains.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mlvae_jax.grouping.normal import at_least_float32

# About the longest run of additions into one accumulator: rounding errors
# stay near 128 * 2**-24 = 8e-6 even where they all have the same sign.
_CHAIN = 128
# Rounds where the number of rows is a symbol: enough for 128 ** 4 rows.
_ROUNDS = 3
_HASH_MULTIPLIER = 2654435769  # 2**32 / golden ratio, spreads row numbers.


def segment_sum(values: jax.Array, group_ids: jax.Array, num_groups: int
                ) -> jax.Array:
  """Sums rows by group, accurate to float32 for groups of any length.

  Args:
    values: `[N, ...]` float; low precisions are summed in float32.
    group_ids: `[N]` int in `[0, num_groups)`.
    num_groups: static int, G.

  Returns:
    `[G, ...]`.
  """
  values = at_least_float32(values)
  chains = Chains(group_ids, num_groups)
  return chains.fold(
      jax.ops.segment_sum(values, chains.slots, chains.num_slots))


class Chains:
  """Accumulators for the rows of groups, so that no sum has too many terms.

  A group of n rows gets ceil(n / 128) accumulators, its rows are spread over
  them, and the accumulators are summed in the same way. The first one is the
  group's own; only the others (at most N / 128) need that second round.

  Attributes:
    slots: `[N]` ints, the accumulator of each row.
    num_slots: number of accumulators, S: static unless N is a symbol.
  """

  def __init__(self, group_ids: jax.Array, num_groups: int,
               rounds: int = _ROUNDS):
    """Assigns accumulators.

    Args:
      group_ids: `[N]` int in `[0, num_groups)`.
      num_groups: static int, G.
      rounds: largest number of further rounds, where N is a symbol.
    """
    self._num_groups, self._rounds = num_groups, rounds
    self._extra, num_rows = None, group_ids.shape[0]
    max_extra = num_rows // _CHAIN
    if isinstance(max_extra, int):
      is_short = max_extra <= 4
    else:  # In `jax.export` it is a symbol, and may or may not be 0.
      is_short = rounds == 0
      max_extra += 1
    if is_short:
      self.slots, self.num_slots = group_ids, num_groups
      return
    extra = jnp.maximum(_count(group_ids, num_groups) - 1, 0) // _CHAIN
    self._extra = extra
    self.slots = jax.lax.cond(
        jnp.any(extra > 0), self._spread, lambda ids: ids, group_ids)
    self.num_slots = num_groups + max_extra

  def _spread(self, group_ids: jax.Array) -> jax.Array:
    """The accumulator of each row, where some groups have several."""
    extra = self._extra
    first_extra = self._num_groups + jnp.cumsum(extra) - extra
    # A row's accumulator is chosen by a hash of the row's number. The plain
    # remainder would crowd a few accumulators where the rows of a group lie at
    # regular distances.
    row_hash = jnp.arange(group_ids.shape[0], dtype=jnp.uint32) * jnp.uint32(
        _HASH_MULTIPLIER)
    row_hash = row_hash ^ (row_hash >> 15)
    choice = (row_hash % (extra[group_ids] + 1).astype(jnp.uint32)).astype(
        jnp.int32)
    return jnp.where(
        choice == 0, group_ids, first_extra[group_ids] + choice - 1)

  def fold(self, table: jax.Array) -> jax.Array:
    """Adds each group's accumulators up: `[S, ...]` to `[G, ...]`."""
    if self._extra is None:
      return table
    own, others = table[:self._num_groups], table[self._num_groups:]
    owner = jnp.repeat(
        jnp.arange(self._num_groups), self._extra,
        total_repeat_length=others.shape[0])
    chains = Chains(owner, self._num_groups, self._rounds - 1)
    return own + chains.fold(
        jax.ops.segment_sum(others, chains.slots, chains.num_slots))


def _count(group_ids: jax.Array, num_groups: int) -> jax.Array:
  return jax.ops.segment_sum(
      jnp.ones_like(group_ids), group_ids, num_groups)
