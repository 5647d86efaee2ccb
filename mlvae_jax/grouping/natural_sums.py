"""Sums of natural parameters by group, fast on CPUs for many rows.

On a CPU the sums are computed block by block: precisions and their products
with the means, which would otherwise be written to memory and read again, stay
in the cache. One pass without scales is enough for most rows; only where a sum
overflows, or nearly vanishes, does a second one follow, with the scale of every
group. An accelerator fuses these steps anyway, and would only be
slowed down by the loops.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mlvae_jax.grouping.segment_sum import Chains

_BLOCK = 16_384  # Number of rows.
# The least precision of a group that is taken without a scale. Next to it,
# precisions that vanish in float32 (below 1e-38) are negligible.
_MIN_UNSCALED = 1e-18


class Rows(NamedTuple):
  """What evidence is made of.

  Attributes:
    mean: `[N, D]`.
    logvar: `[N, D]`, natural logarithm of the variance.
    mask: `[N]` bool; False drops a row, whatever it holds, even NaN.
    group_ids: `[N]` ints in `[0, G)`.
  """

  mean: jax.Array
  logvar: jax.Array
  mask: jax.Array
  group_ids: jax.Array


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def natural_sums(rows: Rows, count: jax.Array, num_groups: int
                 ) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Sums precisions, and precision * mean (eqs. 6-7).

  Args:
    rows: the rows.
    count: `[G]` ints, the number of rows of each group.
    num_groups: static int, G.

  Returns:
    Three arrays `[G, D]`: the sums, divided by the scale of each group, and the
    natural logarithm of this scale. At this scale a sum of precisions is at
    least 1, but for rounding errors, and at most e or N; without rows it is 0,
    and the scale the lowest number. The scale cancels in a posterior, so it is
    a constant for gradients.
  """
  chains = Chains(rows.group_ids, num_groups)

  def exact(rows: Rows) -> tuple[jax.Array, jax.Array, jax.Array]:
    log_scale = _largest(rows, num_groups)
    return (*map(chains.fold, _sums(rows, chains, log_scale)), log_scale)

  def unscaled_first(rows: Rows) -> tuple[jax.Array, jax.Array, jax.Array]:
    precision, eta = map(chains.fold, _sums(rows, chains))
    is_empty = (count == 0)[:, None]
    is_right = is_empty | (
        (precision > _MIN_UNSCALED) & jnp.isfinite(precision)
        & jnp.isfinite(eta))
    # A whole number, which float32 has exactly: rounding errors of a logarithm
    # would be those of the sums.
    log_scale = jnp.floor(jnp.log(jnp.where(is_empty, 1.0, precision)))
    scale = jnp.exp(log_scale)
    found = (precision / scale, eta / scale, jnp.where(
        is_empty, jnp.finfo(precision.dtype).min, log_scale))

    def again(state):
      # Without a barrier, XLA moves what does not change out of the loop, and
      # so computes it always.
      return (exact(jax.lax.optimization_barrier((rows, state))[0]),
              jnp.ones_like(state[1]))

    # Not `cond`, because under `vmap` that would always compute both.
    return jax.lax.while_loop(
        lambda state: ~state[1], again, (found, jnp.all(is_right)))[0]

  return jax.lax.platform_dependent(rows, cpu=unscaled_first, default=exact)


@natural_sums.defjvp
def _natural_sums_jvp(num_groups, primals, tangents):
  rows, count = primals
  change, _ = tangents
  out = natural_sums(rows, count, num_groups)
  chains = Chains(rows.group_ids, num_groups)
  keep = rows.mask[:, None]
  # Masking the precision alone would let NaN through: 0 * NaN is NaN.
  mean, change_of_mean, change_of_logvar = (
      jnp.where(keep, x, 0.0)
      for x in (rows.mean, change.mean, change.logvar))
  precision = _precision(
      jnp.where(keep, rows.logvar, jnp.inf), out[2], rows.group_ids)
  more = -precision * change_of_logvar
  # In reverse mode only the transposes of these are computed: they gather.
  changes = (chains.fold(jax.ops.segment_sum(x, chains.slots, chains.num_slots))
             for x in (more, more * mean + precision * change_of_mean))
  return out, (*changes, jnp.zeros_like(out[2]))


def _precision(logvar: jax.Array, log_scale: jax.Array | None,
               group_ids: jax.Array) -> jax.Array:
  """Precisions `[N, D]`, divided by the scales of their groups."""
  return jnp.exp(
      -logvar if log_scale is None else -logvar - log_scale[group_ids])


def _sums(rows: Rows, chains: Chains, log_scale: jax.Array | None = None
          ) -> tuple[jax.Array, jax.Array]:
  """Sums of precisions and of precision * mean in all slots `[S, D]`."""
  def add(sums, part, is_new):
    rows, slots = part
    # Beyond the last slot, what is added is dropped.
    slots = jnp.where(rows.mask & is_new, slots, chains.num_slots)
    precision = _precision(rows.logvar, log_scale, rows.group_ids)
    return (sums[0].at[slots].add(precision, mode='drop'),
            sums[1].at[slots].add(precision * rows.mean, mode='drop'))

  zeros = jnp.zeros((chains.num_slots, rows.mean.shape[1]), rows.mean.dtype)
  return _in_blocks(add, (zeros, zeros), (rows, chains.slots))


def _largest(rows: Rows, num_groups: int) -> jax.Array:
  """The largest log-precision of each group; the lowest number for none."""
  def add(found, rows, is_new):
    ids = jnp.where(rows.mask, rows.group_ids, num_groups)
    return found.at[ids].max(-rows.logvar, mode='drop')

  # Not -inf: -inf - -inf would be NaN when empty groups are rescaled.
  start = jnp.full((num_groups, rows.mean.shape[1]),
                   jnp.finfo(rows.logvar.dtype).min)
  return _in_blocks(add, start, rows)


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

    # Under shard_map a carry has to vary from the start as it does later.
    number = jax.tree.leaves(rows)[-1][0]
    start = jax.tree.map(lambda x: jnp.where(number < number, 0, x), start)
    return jax.lax.fori_loop(0, -(-size // _BLOCK), body, start)

  return jax.lax.platform_dependent(start, rows, cpu=blocked, default=whole)
