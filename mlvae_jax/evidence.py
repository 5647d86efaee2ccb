"""Evidence about groups: products of Normals over ragged group ids.

A product of Normal densities adds natural parameters (paper eqs. 6-7):
precisions add, and so does eta = precision * mean. Evidence is therefore
additive: it can be accumulated in chunks, merged, taken back, and summed
across devices. No prior enters.

Two things keep it exact in float32. Every entry carries its own scale
(`log_scale`), so that logvar from -80 to 80 neither overflows nor vanishes
when a million rows meet; and long groups are summed in a tree of short
chains, because adding a million similar numbers one after the other loses
up to a percent.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
from jax import export
import jax.numpy as jnp
import numpy as np

from mlvae_jax.normal import Normal

# About the longest run of additions into one accumulator: rounding errors
# stay near 128 * 2**-24 = 8e-6 even where they all have the same sign.
_CHAIN = 128
_HASH_MULTIPLIER = 2654435769  # 2**32 / golden ratio, spreads row numbers.


class Evidence(NamedTuple):
  """Natural parameters of G groups, scaled by exp(log_scale).

  Attributes:
    precision: `[G, D]`, sum of the members' precisions / exp(log_scale).
    eta: `[G, D]`, sum of precision * mean / exp(log_scale).
    log_scale: `[G, D]`, logarithm of the scale of the two above.
    count: `[G]` int32, number of rows accumulated.
  """

  precision: jax.Array
  eta: jax.Array
  log_scale: jax.Array
  count: jax.Array

  def to_normal(self) -> Normal:
    """The group posteriors, Normal of `[G, D]`; N(0, I) without any rows."""
    empty = (self.count == 0)[:, None]
    precision = jnp.where(empty, 1.0, self.precision)
    mean = jnp.where(empty, 0.0, self.eta / precision)
    logvar = jnp.where(empty, 0.0, -(jnp.log(precision) + self.log_scale))
    return Normal(mean, logvar)

  def rescale(self, log_scale: jax.Array) -> Evidence:
    """The same evidence, expressed at another scale."""
    factor = jnp.exp(self.log_scale - log_scale)
    return Evidence(
        self.precision * factor, self.eta * factor, log_scale, self.count)

  def psum(self, axis_name: str) -> Evidence:
    """Sums the evidence that the devices of a mapped axis hold."""
    scaled = self.rescale(jax.lax.pmax(self.log_scale, axis_name))
    return Evidence(
        jax.lax.psum(scaled.precision, axis_name),
        jax.lax.psum(scaled.eta, axis_name),
        scaled.log_scale,
        jax.lax.psum(scaled.count, axis_name))


export.register_namedtuple_serialization(
    Evidence, serialized_name='mlvae_jax.Evidence')


def evidence(
    q: Normal,
    group_ids: jax.Array,
    num_groups: int,
    mask: jax.Array | None = None,
) -> Evidence:
  """Accumulates the evidence that rows hold about their groups.

  Args:
    q: Normal of `[N, D]`.
    group_ids: `[N]` integers in `[0, num_groups)`, in any order.
    num_groups: static int, G.
    mask: optional `[N]` bool; False drops a row, whatever it holds, even NaN.

  Returns:
    Evidence of G groups.

  Raises:
    ValueError: on wrong shapes or dtypes, or concrete ids out of range.
      Under a transformation the values are unknown: rows whose id is out of
      range are then dropped.
  """
  q = Normal(jnp.asarray(q.mean), jnp.asarray(q.logvar))
  if q.mean.ndim != 2 or q.mean.shape != q.logvar.shape:
    raise ValueError(
        'expected a Normal of [N, D], got a mean of '
        f'{list(q.mean.shape)} and a logvar of {list(q.logvar.shape)}')
  group_ids = check_group_ids(group_ids, q.mean.shape[0], num_groups, mask)
  if mask is None:
    mask = jnp.ones(group_ids.shape, bool)
  return _accumulate(q, group_ids, num_groups, jnp.asarray(mask))


def product_of_normals(
    q: Normal,
    group_ids: jax.Array,
    num_groups: int,
    mask: jax.Array | None = None,
) -> Normal:
  """Multiplies the Normals of each group (paper eqs. 6-7).

  Precisions add; no prior enters. A group without rows is N(0, I), so its KL
  is 0.

  Args:
    q: Normal of `[N, D]`.
    group_ids: `[N]` integers in `[0, num_groups)`, in any order.
    num_groups: static int, G.
    mask: optional `[N]` bool; False drops a row.

  Returns:
    Normal of `[G, D]`.

  Raises:
    ValueError: as `evidence` does.
  """
  return evidence(q, group_ids, num_groups, mask).to_normal()


def merge(first: Evidence, second: Evidence) -> Evidence:
  """Adds two pieces of evidence about the same G groups."""
  _check_same_groups(first, second)
  log_scale = jnp.maximum(first.log_scale, second.log_scale)
  first, second = first.rescale(log_scale), second.rescale(log_scale)
  return Evidence(
      first.precision + second.precision, first.eta + second.eta,
      log_scale, first.count + second.count)


def remove(whole: Evidence, part: Evidence) -> Evidence:
  """Takes back evidence that was merged before: remove(merge(a, b), b) = a.

  Where `part` holds nearly all of the precision, what is left has lost the
  digits that the two share.
  """
  _check_same_groups(whole, part)
  part = part.rescale(whole.log_scale)
  return Evidence(
      whole.precision - part.precision, whole.eta - part.eta,
      whole.log_scale, whole.count - part.count)


def segment_sum(values: jax.Array, group_ids: jax.Array, num_groups: int
                ) -> jax.Array:
  """Sums rows by group, exact to float32 for groups of any length.

  A group of n rows gets ceil(n / 128) accumulators, its rows are spread over
  them, and the accumulators are summed in the same way. The first one is the
  group's own; only the others (at most N / 128) need that second round.

  Args:
    values: `[N, ...]` float.
    group_ids: `[N]` int in `[0, num_groups)`.
    num_groups: static int, G.

  Returns:
    `[G, ...]`.
  """
  num_rows = values.shape[0]
  max_extra = num_rows // _CHAIN
  if max_extra <= 4:
    return jax.ops.segment_sum(values, group_ids, num_groups)
  count = _count(group_ids, num_groups)
  extra = jnp.maximum(count - 1, 0) // _CHAIN
  first_extra = num_groups + jnp.cumsum(extra) - extra
  # A row's accumulator comes from its hashed number: rows of a group may lie
  # at regular distances, which would crowd a plain remainder.
  row_hash = jnp.arange(num_rows, dtype=jnp.uint32) * jnp.uint32(
      _HASH_MULTIPLIER)
  row_hash = row_hash ^ (row_hash >> 15)
  choice = (row_hash % (extra[group_ids] + 1).astype(jnp.uint32)).astype(
      jnp.int32)
  slot = jnp.where(
      choice == 0, group_ids, first_extra[group_ids] + choice - 1)
  table = jax.ops.segment_sum(values, slot, num_groups + max_extra)
  owner = jnp.repeat(
      jnp.arange(num_groups), extra, total_repeat_length=max_extra)
  return table[:num_groups] + segment_sum(
      table[num_groups:], owner, num_groups)


def check_group_ids(
    group_ids: jax.Array, num_rows: int, num_groups: int,
    mask: jax.Array | None) -> jax.Array:
  """Checks ids `[N]` and mask `[N]`; returns the ids as int32."""
  # Not yet into JAX, which would cut int64 ids to 32 bits.
  xp = jnp if isinstance(group_ids, jax.Array) else np
  group_ids = xp.asarray(group_ids)
  if group_ids.shape != (num_rows,) or not np.issubdtype(
      group_ids.dtype, np.integer):
    raise ValueError(
        f'expected group_ids of [{num_rows}] integers, one per row, got '
        f'{group_ids.dtype} of {list(group_ids.shape)}')
  if num_groups < 1:
    raise ValueError(f'expected num_groups >= 1, got {num_groups}')
  if mask is not None:
    mask = jnp.asarray(mask)
    if mask.shape != (num_rows,) or mask.dtype != bool:
      raise ValueError(
          f'expected a mask of [{num_rows}] bool, got {mask.dtype} of '
          f'{list(mask.shape)}')
  if num_rows and not _is_traced(group_ids) and not _is_traced(mask):
    real = group_ids if mask is None else xp.where(
        xp.asarray(mask), group_ids, 0)
    low, high = int(real.min()), int(real.max())
    if low < 0 or high >= num_groups:
      raise ValueError(
          f'expected group ids in [0, {num_groups}), got ids from {low} to '
          f'{high}; raise num_groups or mask the rows')
  return jnp.asarray(group_ids.astype(np.int32))


@functools.partial(jax.jit, static_argnames='num_groups')
def _accumulate(
    q: Normal, group_ids: jax.Array, num_groups: int, mask: jax.Array
) -> Evidence:
  dtype = jnp.promote_types(q.mean.dtype, jnp.float32)
  mask = mask & (group_ids >= 0) & (group_ids < num_groups)
  group_ids = jnp.where(mask, group_ids, 0)
  mask_row = mask[:, None]
  # Masking precision alone would let NaN through: 0 * NaN is NaN.
  mean = jnp.where(mask_row, q.mean, 0.0).astype(dtype)
  lowest = jnp.finfo(dtype).min
  log_precision = jnp.where(mask_row, -q.logvar.astype(dtype), lowest)
  # The scale cancels in what the evidence stands for: no gradient.
  log_scale = jnp.maximum(
      jax.ops.segment_max(
          jax.lax.stop_gradient(log_precision), group_ids, num_groups),
      lowest)
  precision = jnp.where(
      mask_row, jnp.exp(log_precision - log_scale[group_ids]), 0.0)
  sums = segment_sum(
      jnp.concatenate([precision, precision * mean], axis=-1),
      group_ids, num_groups)
  precision, eta = jnp.split(sums, 2, axis=-1)
  count = jax.ops.segment_sum(
      mask.astype(jnp.int32), group_ids, num_groups)
  return Evidence(precision, eta, log_scale, count)


def _count(group_ids: jax.Array, num_groups: int) -> jax.Array:
  return jax.ops.segment_sum(
      jnp.ones_like(group_ids), group_ids, num_groups)


def _check_same_groups(first: Evidence, second: Evidence) -> None:
  if first.eta.shape != second.eta.shape:
    raise ValueError(
        'expected evidence about the same groups, got [G, D] of '
        f'{list(first.eta.shape)} and {list(second.eta.shape)}')


def _is_traced(value) -> bool:
  return isinstance(value, jax.core.Tracer)
