"""Evidence about groups: natural parameters, added over ragged group ids.

A product of Normal densities adds natural parameters (paper eqs. 6-7):
precisions add, and so does eta = precision * mean. Evidence is therefore
additive: it can be accumulated in chunks, merged, taken back, and summed
across devices. No prior enters.

Two things keep it exact in float32. Every entry carries its own scale
(`log_scale`), so that logvar from -80 to 80 neither overflows nor vanishes
when a million rows meet; and long groups are summed by `segment_sum`.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
from jax import export
import jax.numpy as jnp
import numpy as np

from mlvae_jax.grouping.checks import check_group_ids, is_traced
from mlvae_jax.grouping.normal import Normal, at_least_float32
from mlvae_jax.grouping.segment_sum import segment_sum

# Rounding errors of sums, in units of their last place, and which share of
# what is left they may make up: three significant digits.
_ULPS, _MAX_ERROR = 16, 1e-3


class Evidence(NamedTuple):
  """Natural parameters of G groups, scaled by exp(log_scale).

  Attributes:
    precision: `[G, D]`, sum of the members' precisions / exp(log_scale).
      Below 1 only after `remove`; the smaller, the fewer accurate digits
      remain.
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
  group_ids, mask = check_group_ids(
      group_ids, q.mean.shape[0], num_groups, mask)
  return _accumulate(q, group_ids, num_groups, mask)


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

  Where `part` holds nearly all of the evidence, the digits of what is left
  are lost: fewer than about three are an error. Digits of a mean count from
  the mean or the standard deviation, whichever is larger. What is lost adds up
  over a chain of `merge` and `remove`: of a window that slides on and on,
  accumulate the evidence again from time to time.

  Args:
    whole: evidence about G groups.
    part: some of it.

  Returns:
    What is left. A group without rows is empty again.

  Raises:
    ValueError: on other groups; where a group would have fewer than 0 rows,
      or rows with too few accurate digits. Under a transformation the values
      are unknown: these entries are then NaN.
  """
  _check_same_groups(whole, part)
  left, is_lost = _subtract(whole, part)
  if not any(map(is_traced, (*whole, *part))):
    _check_left(np.asarray(left.count), np.asarray(is_lost))
  return left


@functools.partial(jax.jit, static_argnames='num_groups')
def _accumulate(
    q: Normal, group_ids: jax.Array, num_groups: int, mask: jax.Array
) -> Evidence:
  q = Normal(*map(at_least_float32, q))
  dtype = jnp.result_type(*q)
  mask_row = mask[:, None]
  # Masking precision alone would let NaN through: 0 * NaN is NaN.
  mean = jnp.where(mask_row, q.mean, 0.0)
  lowest = jnp.finfo(dtype).min
  log_precision = jnp.where(mask_row, -q.logvar, lowest)
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


@jax.jit
def _subtract(whole: Evidence, part: Evidence) -> tuple[Evidence, jax.Array]:
  """What is left, and `[G, D]` where that has too few digits."""
  log_scale = jnp.maximum(whole.log_scale, part.log_scale)
  sides = whole.rescale(log_scale), part.rescale(log_scale)
  left = Evidence(
      sides[0].precision - sides[1].precision, sides[0].eta - sides[1].eta,
      log_scale, whole.count - part.count)
  # Rounding errors are in proportion to what was added up, and stay. The new
  # scale keeps its size, so that later removals see them, too.
  sizes = [jnp.maximum(side.precision, jnp.exp(before - log_scale))
           for side, before in zip(sides, (whole.log_scale, part.log_scale))]
  unit = jax.lax.stop_gradient(functools.reduce(jnp.maximum, [
      *sizes, *(size * _spread(side) / _spread(left)
                for size, side in zip(sizes, sides))]))
  left = left.rescale(log_scale + jnp.log(unit))
  count = left.count[:, None]
  threshold = _ULPS * jnp.finfo(log_scale.dtype).eps / _MAX_ERROR
  is_lost = (left.precision < threshold) & (count > 0)
  empty = 0.0, 0.0, jnp.finfo(log_scale.dtype).min
  values = (jnp.where(count == 0, default, jnp.where(
      is_lost | (count < 0), jnp.nan, value))
            for value, default in zip(left, empty))
  return Evidence(*values, left.count), is_lost


def _spread(found: Evidence) -> jax.Array:
  """Of the group posteriors, |mean| or std, whichever is larger, `[G, D]`."""
  tiny = jnp.finfo(found.precision.dtype).tiny
  q = found._replace(
      precision=jnp.maximum(found.precision, tiny)).to_normal()
  return jnp.maximum(jnp.abs(q.mean), q.std)


def _check_left(count: np.ndarray, is_lost: np.ndarray) -> None:
  """Raises where `remove` leaves fewer than 0 rows, or too few digits."""
  if np.any(count < 0):
    group = int(np.argmin(count))
    raise ValueError(
        f'expected a part of the whole, but group {group} would be left with '
        f'{count[group]} rows; remove only what was merged before')
  if np.any(is_lost):
    group = int(np.argmax(np.any(is_lost, axis=1)))
    raise ValueError(
        f'the part holds nearly all of the evidence about group {group}: the '
        f'rest would have fewer than three significant digits; accumulate '
        'the rest again from its rows')


def _check_same_groups(first: Evidence, second: Evidence) -> None:
  if first.eta.shape != second.eta.shape:
    raise ValueError(
        'expected evidence about the same groups, got [G, D] of '
        f'{list(first.eta.shape)} and {list(second.eta.shape)}')
