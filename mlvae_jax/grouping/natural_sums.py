"""Sums of natural parameters by group, fast on CPUs for many rows.

On a CPU the sums are computed block by block: precisions and their products
with the means, which would otherwise be written to memory and read again, stay
in the cache. That is several times as fast for a million rows. An accelerator
fuses these steps anyway, and would only be slowed down by the loop.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

_BLOCK = 16_384  # Number of rows.


class Rows(NamedTuple):
  """What evidence is made of.

  Attributes:
    mean: `[N, D]`; finite, for padding too.
    log_precision: `[N, D]`; the lowest number for padding.
    mask: `[N]` bool, False for padding.
    slots: `[N]` ints, where a row is added.
  """

  mean: jax.Array
  log_precision: jax.Array
  mask: jax.Array
  slots: jax.Array


def largest(rows: Rows, num_slots: int) -> jax.Array:
  """The largest log-precision in each slot `[S, D]`; -inf for empty ones."""
  start = jnp.full(
      (num_slots, rows.mean.shape[1]), -jnp.inf, rows.log_precision.dtype)
  return _in_blocks(
      lambda found, part, is_new: found.at[part.slots].max(part.log_precision),
      start, rows)


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def natural_sums(rows: Rows, log_scale: jax.Array, groups: jax.Array,
                 num_slots: int) -> tuple[jax.Array, jax.Array]:
  """Sums precisions, and precision * mean (eqs. 6-7).

  Args:
    rows: the rows.
    log_scale: `[G, D]`, natural logarithm of the scale of each group's sums; a
      constant for gradients.
    groups: `[N]` ints, the row of `log_scale` that applies to each row.
    num_slots: static number of slots, S.

  Returns:
    Two arrays `[S, D]`, divided by exp(log_scale).
  """
  def add(sums, part, is_new):
    part, groups = part
    part = part._replace(mask=part.mask & is_new)
    precision = _scaled(part, log_scale, groups)
    return (sums[0].at[part.slots].add(precision),
            sums[1].at[part.slots].add(precision * part.mean))

  zeros = jnp.zeros((num_slots, rows.mean.shape[1]), rows.mean.dtype)
  return _in_blocks(add, (zeros, zeros), (rows, groups))


@natural_sums.defjvp
def _natural_sums_jvp(num_slots, primals, tangents):
  rows, log_scale, groups = primals
  change, _, _ = tangents
  precision = _scaled(rows, log_scale, groups)
  more = precision * change.log_precision
  # In reverse mode only the transposes of these are computed: they gather.
  out = tuple(jax.ops.segment_sum(x, rows.slots, num_slots) for x in (
      more, more * rows.mean + precision * change.mean))
  return natural_sums(rows, log_scale, groups, num_slots), out


def _scaled(rows: Rows, log_scale: jax.Array, groups: jax.Array) -> jax.Array:
  """Precisions divided by the scales of their groups, 0 for padding."""
  return jnp.where(rows.mask[:, None], jnp.exp(
      rows.log_precision - log_scale[groups]), 0.0)


def _in_blocks(step: Callable[..., Any], start: Any, rows: Any) -> Any:
  """Applies step(carry, part of the rows, which of them are new) to all rows.

  Args:
    step: function that takes up a part of the rows.
    start: the carry before any row.
    rows: pytree of `[N, ...]`.

  Returns:
    The carry after all rows.
  """
  def whole(start, rows):
    size = jax.tree.leaves(rows)[0].shape[0]
    return step(start, rows, jnp.ones(size, bool))

  size = jax.tree.leaves(rows)[0].shape[0]
  if not isinstance(size, int) or size <= 2 * _BLOCK:
    return whole(start, rows)

  def blocked(start, rows):
    def body(i, carry):
      # The last block is as long as the others, so some of its rows are old.
      first = jnp.minimum(i * _BLOCK, size - _BLOCK)
      part = jax.tree.map(
          lambda x: jax.lax.dynamic_slice_in_dim(x, first, _BLOCK), rows)
      return step(carry, part, first + jnp.arange(_BLOCK) >= i * _BLOCK)

    return jax.lax.fori_loop(0, -(-size // _BLOCK), body, start)

  return jax.lax.platform_dependent(start, rows, cpu=blocked, default=whole)
