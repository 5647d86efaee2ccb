"""Evidence about groups: natural parameters, added over ragged group ids.

A product of Normal densities adds natural parameters (paper eqs. 6-7):
precisions add, and so does eta = precision * mean. Evidence is therefore
additive: it can be accumulated in chunks, merged, removed again, and summed
across devices. No prior enters.

Two things keep it exact in float32. Every entry carries its own scale
(`log_scale`), so that logvar from -80 to 80 neither overflows nor vanishes
when a million rows meet; and long groups are summed in `Chains`.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
from jax import export
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from mlvae_jax.grouping.checks import check_count, check_group_ids, is_traced
from mlvae_jax.grouping.natural_sums import Rows, natural_sums
from mlvae_jax.grouping.normal import Normal, at_least_float32

# The rounding error assumed of a sum, in units of its last place, and the
# largest relative error accepted in what `remove` leaves: three digits.
_ULPS, _MAX_ERROR = 16, 1e-3


class Evidence(NamedTuple):
  """Natural parameters of G groups, scaled by exp(log_scale).

  Attributes:
    precision: `[G, D]`, sum of the members' precisions / exp(log_scale). It is
      below 1 only after `remove`; the smaller it is, the fewer digits are
      accurate.
    eta: `[G, D]`, sum of the members' precision * mean / exp(log_scale).
    log_scale: `[G, D]`, natural logarithm of the scale of the two above.
    count: `[G]` int32, number of rows accumulated.
  """

  precision: jax.Array
  eta: jax.Array
  log_scale: jax.Array
  count: jax.Array

  def to_normal(self) -> Normal:
    """The group posteriors, Normal of `[G, D]`; N(0, I) without any rows."""
    # The denominator is replaced, not just the result: the gradient of 0 / 0
    # is NaN, also where `where` does not choose it.
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
    # The largest scale of all devices: at a smaller one its owner's evidence
    # could overflow, while what vanishes at the largest was negligible.
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
    group_ids: ArrayLike,
    num_groups: int,
    mask: ArrayLike | None = None,
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
      Inside a JAX transformation ids are unknown; rows whose id is out of
      range are then dropped.
  """
  q = Normal(jnp.asarray(q.mean), jnp.asarray(q.logvar))
  if q.mean.ndim != 2 or q.mean.shape != q.logvar.shape:
    raise ValueError(
        'expected a Normal of [N, D], got a mean of '
        f'{list(q.mean.shape)} and a logvar of {list(q.logvar.shape)}')
  num_groups = check_count(num_groups, 'num_groups')
  group_ids, mask = check_group_ids(
      group_ids, q.mean.shape[0], num_groups, mask)
  return _accumulate(q, group_ids, num_groups, mask)


def merge(first: Evidence, second: Evidence) -> Evidence:
  """Adds two pieces of evidence about the same G groups.

  Args:
    first: evidence about G groups.
    second: evidence from other rows about the same groups.

  Returns:
    Evidence from the rows of both.

  Raises:
    ValueError: on evidence of different shapes.
  """
  _check_same_groups(first, second)
  log_scale = jnp.maximum(first.log_scale, second.log_scale)
  first, second = first.rescale(log_scale), second.rescale(log_scale)
  return Evidence(
      first.precision + second.precision, first.eta + second.eta,
      log_scale, first.count + second.count)


def remove(whole: Evidence, part: Evidence) -> Evidence:
  """Removes evidence that was merged before: remove(merge(a, b), b) = a.

  Where `part` holds nearly all of the evidence, what is left has few accurate
  digits; fewer than about three are an error. The digits of a mean are those
  relative to the mean or the standard deviation, whichever is larger. Errors
  add up over a chain of `merge` and `remove`: for a window that slides over
  many rows, accumulate the evidence again from time to time.

  Args:
    whole: evidence about G groups.
    part: evidence that is contained in it.

  Returns:
    The evidence that is left. A group without rows is empty again.

  Raises:
    ValueError: on evidence of different shapes or with NaN, or where a group
      would be left with fewer than 0 rows, or too few accurate digits. Inside a
      transformation the values are unknown; such entries are then NaN.
  """
  _check_same_groups(whole, part)
  left, is_lost = _subtract(whole, part)
  if not any(map(is_traced, (*whole, *part))):
    for name, found in (('whole', whole), ('part', part)):
      if any(np.isnan(value).any() for value in found):
        raise ValueError(f'expected evidence without NaN, got NaN in {name}')
    _check_left(np.asarray(left.count), np.asarray(is_lost))
  return left


@functools.partial(jax.jit, static_argnames='num_groups')
def _accumulate(
    q: Normal, group_ids: jax.Array, num_groups: int, mask: jax.Array
) -> Evidence:
  q = Normal(*map(at_least_float32, q))
  count = jax.ops.segment_sum(
      mask.astype(jnp.int32), group_ids, num_groups)
  # Eqs. 6-7: precisions add, and so does eta = precision * mean.
  precision, eta, log_scale = natural_sums(
      Rows(q.mean, q.logvar, mask, group_ids), count, num_groups)
  return Evidence(precision, eta, log_scale, count)


@jax.jit
def _subtract(whole: Evidence, part: Evidence) -> tuple[Evidence, jax.Array]:
  """The evidence left, and `[G, D]` bool, where it has too few digits."""
  log_scale = jnp.maximum(whole.log_scale, part.log_scale)
  sides = whole.rescale(log_scale), part.rescale(log_scale)
  left = Evidence(
      sides[0].precision - sides[1].precision, sides[0].eta - sides[1].eta,
      log_scale, whole.count - part.count)
  # Rounding errors are proportional to the sums and outlast the subtraction.
  # The sums' size becomes the new scale, so that the precision left over, now
  # below 1, shows how few digits are accurate, to later removals as well.
  sizes = [jnp.maximum(side.precision, jnp.exp(before - log_scale))
           for side, before in zip(sides, (whole.log_scale, part.log_scale))]
  # Eta can be far larger than the precision: where |mean| exceeds the standard
  # deviation before but not after, its error weighs more by that ratio.
  unit = jax.lax.stop_gradient(functools.reduce(jnp.maximum, [
      *sizes, *(size * _spread(side) / _spread(left)
                for size, side in zip(sizes, sides))]))
  left = left.rescale(log_scale + jnp.log(unit))
  count = left.count[:, None]
  threshold = _ULPS * jnp.finfo(log_scale.dtype).eps / _MAX_ERROR
  is_lost = (left.precision < threshold) & (count > 0)
  empty = 0.0, 0.0, jnp.finfo(log_scale.dtype).min
  precision, eta, scale = (jnp.where(count == 0, default, jnp.where(
      is_lost | (count < 0), jnp.nan, value))
            for value, default in zip(left, empty))
  return Evidence(precision, eta, scale, left.count), is_lost


def _spread(found: Evidence) -> jax.Array:
  """|mean| or std of the posteriors, whichever is larger, `[G, D]`."""
  # What a removal leaves may have a precision of 0, or slightly less.
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
        f'the part holds nearly all of the evidence about group {group}, so '
        'the rest would have fewer than three significant digits; accumulate '
        'the rest again from its rows')


def _check_same_groups(first: Evidence, second: Evidence) -> None:
  if first.eta.shape != second.eta.shape:
    raise ValueError(
        'expected evidence about the same groups, got [G, D] of '
        f'{list(first.eta.shape)} and {list(second.eta.shape)}')
