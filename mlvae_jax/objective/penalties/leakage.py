"""Leakage: a row's code should not reveal the row's group in other groupings.

It is measured on standardised means: in samples, noise hides what a classifier
can still find in means.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mlvae_jax.grouping.normal import at_least_float32
from mlvae_jax.objective.penalties.rows import Rows, mean_where, pairs

# A floor of 0 would stop the gradient in every other batch of a code that
# hardly leaks. In batches of few rows, and with few dimensions, chance alone
# takes the estimate below this one now and then; such a batch has no gradient.
_FLOOR = -0.01


def mean_leakage(rows: Rows) -> jax.Array:
  """`discrepancy` of `comparable_means`, summed over other groupings, `[N]`.

  The discrepancy of a grouping has a gradient only while its average, over the
  rows of the batch that can be compared, is above -0.01. Below, there is
  nothing to reduce, and an encoder that recognises training images, or sees the
  group's code, would be paid for making members of a group repel each other.
  """
  means = comparable_means(rows)
  return jnp.asarray(sum(
      _above_floor(
          *_discrepancy(means, other.group_ids, rows.mask, rows.axis_name),
          rows.axis_name)
      for other in rows.others.values()))


def _above_floor(values: jax.Array, compared: jax.Array, axis_name: str | None
                 ) -> jax.Array:
  """The values, without a gradient if their average is not above _FLOOR."""
  total, count = jnp.sum(values), jnp.sum(compared)
  if axis_name is not None:
    total, count = jax.lax.psum((total, count), axis_name)
  return jnp.where(
      total > _FLOOR * count, values, jax.lax.stop_gradient(values))


def discrepancy(
    z: jax.Array,
    group_ids: jax.Array,
    mask: jax.Array,
    *,
    axis_name: str | None = None,
) -> jax.Array:
  """How much codes reveal of a group that they should not reveal.

  The squared maximum mean discrepancy (MMD; Gretton et al. 2012) between
  distributions p and q of codes is E k(p, p) + E k(q, q) - 2 E k(p, q); here k
  is the mean of Gaussian kernels of variances D / 4, D and 4 D. It is zero
  where the two are the same, hence where codes are independent of the group.

  This estimate is unbiased: for row i, the mean of k(z_i, z_j) over the other
  rows j of its group, less the mean over the rows of other groups. The average
  over rows of G equally large groups estimates half the squared MMD between
  two different groups, averaged over pairs, which is G / (G - 1) times the one
  between a group and all rows. It can be negative.

  Args:
    z: `[N, D]` codes of single rows.
    group_ids: `[N]` ints, of the grouping the code should not reveal.
    mask: `[N]` bool, False for padding.
    axis_name: mapped axis over which the batch is spread, if any.

  Returns:
    `[N]`; 0 for padding, and for rows that cannot be compared, because the
    batch has no other row of their group, or no row of another group.
  """
  return _discrepancy(z, group_ids, mask, axis_name)[0]


def _discrepancy(z: jax.Array, group_ids: jax.Array, mask: jax.Array,
                 axis_name: str | None) -> tuple[jax.Array, jax.Array]:
  """The discrepancy `[N]`, and which rows could be compared, `[N]` bool."""
  # NaN in padding must not reach the gradient.
  z = at_least_float32(jnp.where(mask[:, None], z, 0.0))
  everyone, same, different = pairs(z, group_ids, mask, axis_name)
  kernel = _kernel(z, everyone)
  value = mean_where(same, kernel) - mean_where(different, kernel)
  compared = jnp.any(same, axis=1) & jnp.any(different, axis=1)
  return jnp.where(compared, value, 0.0), compared


def _kernel(z: jax.Array, everyone: jax.Array) -> jax.Array:
  """The mean of three Gaussian kernels, of `[N, D]` and `[M, D]`: `[N, M]`."""
  # In units of D, so that variances of D / 4, D and 4 D are 1/4, 1 and 4.
  distance = _squared_distances(z, everyone) / z.shape[1]
  # Each is the fourth power of the next, and powers cost less than exp.
  wide = jnp.exp(-distance / 8.0)
  middle = jnp.square(jnp.square(wide))
  narrow = jnp.square(jnp.square(middle))
  return (narrow + middle + wide) / 3.0


def _squared_distances(a: jax.Array, b: jax.Array) -> jax.Array:
  """Squared distances `[N, M]` between rows `[N, D]` and `[M, D]`."""
  # By one matrix product, which is faster than [N, M, D] differences, forwards
  # and backwards. It loses digits of distances that are small next to the
  # norms, so all are measured from the mean, in full precision.
  centre = jax.lax.stop_gradient(jnp.mean(b, axis=0))
  a, b = a - centre, b - centre
  products = jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)
  return jnp.maximum(
      jnp.sum(a ** 2, axis=-1)[:, None] + jnp.sum(b ** 2, axis=-1)
      - 2.0 * products, 0.0)


def comparable_means(rows: Rows) -> jax.Array:
  """Standardised means of the rows, `[N, D]`; 0 for padding.

  For a grouped factor, the mean of the row's group is subtracted first.
  """
  means = rows.q.mean
  # A grouped factor's code is supposed to reveal its own group, and so whatever
  # that group determines: only what differs within groups counts as leakage.
  if rows.group_ids is not None and rows.num_groups is not None:
    means = around_groups(means, rows.group_ids, rows.mask, rows.num_groups,
                          axis_name=rows.axis_name)
  return standardize(means, rows.mask, axis_name=rows.axis_name)


def standardize(
    values: jax.Array, mask: jax.Array, *, axis_name: str | None = None
) -> jax.Array:
  """Standardises values: subtracts their mean, divides by their deviation.

  Args:
    values: `[N, D]`.
    mask: `[N]` bool, False for padding.
    axis_name: mapped axis over which the batch is spread, if any.

  Returns:
    `[N, D]` with mean 0 and standard deviation 1 over the real rows; 0 for
    padding, and in dimensions where all rows are the same.
  """
  # Sums in bfloat16 would stop growing at 256.
  values = at_least_float32(values)
  real = mask[:, None].astype(values.dtype)

  def mean(x: jax.Array) -> jax.Array:
    total, count = jnp.sum(x * real, axis=0), jnp.sum(real)
    # Not a pmean of means: devices may hold different numbers of real rows.
    if axis_name is not None:
      total, count = jax.lax.psum((total, count), axis_name)
    return total / jnp.maximum(count, 1.0)

  # The small term keeps 0 / 0 from dimensions that are the same in all rows.
  centred = (values - mean(values)) * real
  return centred / jnp.sqrt(mean(centred ** 2) + 1e-6)


def around_groups(
    values: jax.Array, group_ids: jax.Array, mask: jax.Array,
    num_groups: int, *, axis_name: str | None = None
) -> jax.Array:
  """Subtracts from values the mean of their group's real rows.

  Args:
    values: `[N, D]`.
    group_ids: `[N]` ints in `[0, num_groups)`.
    mask: `[N]` bool, False for padding.
    num_groups: static number of groups, G.
    axis_name: mapped axis over which the batch is spread, if any.

  Returns:
    `[N, D]`; 0 for padding.
  """
  values = at_least_float32(values)
  real = mask[:, None].astype(values.dtype)
  total, count = (
      jax.ops.segment_sum(x, group_ids, num_groups)
      for x in (values * real, real))
  if axis_name is not None:
    total, count = jax.lax.psum((total, count), axis_name)
  mean = total / jnp.maximum(count, 1.0)
  return (values - mean[group_ids]) * real
