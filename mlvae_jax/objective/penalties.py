"""Penalties on codes: what they should reveal of groups, and should not.

Both compare the rows of a batch with each other, over all devices.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

ESTIMATES = ('unbiased', 'nonnegative')
_MIN_NORM = 0.01  # Codes have a norm of about sqrt(D) under the prior.


def contrast(
    means: jax.Array,
    group_ids: jax.Array,
    mask: jax.Array,
    *,
    temperature: float = 0.1,
    axis_name: str | None = None,
) -> jax.Array:
  """How badly a row's code predicts the row's group within a batch.

  The supervised contrastive loss of Khosla et al. (arXiv 2004.11362),

    -mean over rows j of i's group of log softmax_j(cos(m_i, m_j) / T),

  j over all other real rows. A penalty with it makes codes of single images
  recognisable, which the ELBO alone does not ask for: there a group's code
  only has to be good when all the members' evidence is put together.

  Args:
    means: `[N, D]` posterior means of single rows.
    group_ids: `[N]` ints.
    mask: `[N]` bool, False for padding.
    temperature: T.
    axis_name: mapped axis over which the batch is spread, if any.

  Returns:
    `[N]` in nats; 0 for padding and for rows without another of their group.
  """
  # Even NaN in padding must reach no gradient.
  unit = _unit(jnp.where(mask[:, None], means, 0.0))
  everyone, same, different = _pairs(unit, group_ids, mask, axis_name)
  others = same | different
  logits = jnp.where(others, unit @ everyone.T / temperature, -jnp.inf)
  # Where there are no others at all, log_softmax would give NaN.
  logits = jnp.where(jnp.any(others, axis=1, keepdims=True), logits, 0.0)
  return -_mean_where(same, jax.nn.log_softmax(logits))


def leakage(
    z: jax.Array,
    group_ids: jax.Array,
    mask: jax.Array,
    *,
    estimate: str = 'unbiased',
    axis_name: str | None = None,
) -> jax.Array:
  """How much codes that should not reveal a row's group reveal it.

  The squared maximum mean discrepancy (MMD; Gretton et al. 2012) between
  distributions p and q of codes is E k(p, p) + E k(q, q) - 2 E k(p, q); here k
  is the mean of Gaussian kernels of variances D / 4, D and 4 D. It is zero
  where the two are the same, so where style is independent of the group.

  - 'unbiased': for row i, the mean of k(z_i, z_j) over the other rows j of its
    group, less that over the rows of other groups. The average over rows of G
    equally large groups estimates, without bias, half the squared MMD between
    two different groups, averaged over pairs: G / (G - 1) times that between a
    group and everyone. It can be negative: within a batch, members of a group
    whose encoder sees the group's code can be made to repel each other.
  - 'nonnegative': the mean of k(z_i, z_j) over all rows j of its group, itself
    included, less that over all rows. The average over rows is the squared MMD
    between a group's rows and all rows, weighted by the group's size. It is
    never below zero, and 0 only where all groups have the same codes: rows of
    groups of n members that are independent of them are charged about
    (1 - E k) / n.

  Args:
    z: `[N, D]` codes of single rows.
    group_ids: `[N]` ints, of the grouping the code should not reveal.
    mask: `[N]` bool, False for padding.
    estimate: one of `ESTIMATES`.
    axis_name: mapped axis over which the batch is spread, if any.

  Returns:
    `[N]`; 0 for padding, and where nothing can be compared: for rows without
    another of their group ('unbiased'), or without any of another group.

  Raises:
    ValueError: on another estimate.
  """
  if estimate not in ESTIMATES:
    raise ValueError(f'expected estimate of {ESTIMATES}, got {estimate!r}')
  z = _at_least_float32(jnp.where(mask[:, None], z, 0.0))
  everyone, same, different = _pairs(z, group_ids, mask, axis_name)
  distance = jnp.sum((z[:, None] - everyone) ** 2, axis=-1) / z.shape[1]
  kernel = sum(
      jnp.exp(-0.5 * distance / scale) for scale in (0.25, 1.0, 4.0)) / 3.0
  if estimate == 'unbiased':
    value = _mean_where(same, kernel) - _mean_where(different, kernel)
    compared = jnp.any(same, axis=1) & jnp.any(different, axis=1)
    return jnp.where(compared, value, 0.0)
  # A row's kernel with itself is 1, and adds one member.
  num_same, num_different = (
      jnp.sum(pairs, axis=1) for pairs in (same, different))
  total_same, total_different = (
      jnp.sum(jnp.where(pairs, kernel, 0.0), axis=1)
      for pairs in (same, different))
  value = (1.0 + total_same) / (1 + num_same) - (
      1.0 + total_same + total_different) / (1 + num_same + num_different)
  return jnp.where(mask, value, 0.0)


def standardize(
    values: jax.Array, mask: jax.Array, *, axis_name: str | None = None
) -> jax.Array:
  """Values less their mean over the real rows, over their deviation.

  Args:
    values: `[N, D]`.
    mask: `[N]` bool, False for padding.
    axis_name: mapped axis over which the batch is spread, if any.

  Returns:
    `[N, D]`; 0 for padding. A dimension that is the same in all rows is 0.
  """
  values = _at_least_float32(values)
  real = mask[:, None].astype(values.dtype)

  def mean(x: jax.Array) -> jax.Array:
    total, count = jnp.sum(x * real, axis=0), jnp.sum(real)
    if axis_name is not None:
      total, count = jax.lax.psum((total, count), axis_name)
    return total / jnp.maximum(count, 1.0)

  centred = (values - mean(values)) * real
  return centred / jnp.sqrt(mean(centred ** 2) + 1e-6)


def around_groups(
    values: jax.Array, group_ids: jax.Array, mask: jax.Array,
    num_groups: int, *, axis_name: str | None = None
) -> jax.Array:
  """Values less the mean of their group's real rows.

  Args:
    values: `[N, D]`.
    group_ids: `[N]` ints in `[0, num_groups)`.
    mask: `[N]` bool, False for padding.
    num_groups: static G.
    axis_name: mapped axis over which the batch is spread, if any.

  Returns:
    `[N, D]`; 0 for padding.
  """
  values = _at_least_float32(values)
  real = mask[:, None].astype(values.dtype)
  total, count = (
      jax.ops.segment_sum(x, group_ids, num_groups)
      for x in (values * real, real))
  if axis_name is not None:
    total, count = jax.lax.psum((total, count), axis_name)
  mean = total / jnp.maximum(count, 1.0)
  return (values - mean[group_ids]) * real


def _unit(means: jax.Array) -> jax.Array:
  """Directions of rows `[N, D]`; of rows near 0 shorter than 1.

  The gradient of a direction grows without bound towards 0, where there is
  none: below `_MIN_NORM` it grows no more.
  """
  means = _at_least_float32(means)
  square = jnp.sum(jnp.square(means), axis=-1, keepdims=True)
  return means / jnp.sqrt(jnp.maximum(square, _MIN_NORM ** 2))


def _at_least_float32(values: jax.Array) -> jax.Array:
  """Sums over rows in bfloat16 would stop growing at 256."""
  return values.astype(jnp.promote_types(values.dtype, jnp.float32))


def _pairs(values: jax.Array, group_ids: jax.Array, mask: jax.Array,
           axis_name: str | None) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Every row's value `[M, D]`, and masks `[N, M]` of (this row, any row).

  The masks are of pairs of different rows: of the same group, and not.
  """
  row = jnp.arange(values.shape[0])
  everyone, all_ids, all_real, all_rows = values, group_ids, mask, row
  if axis_name is not None:
    row = row + values.shape[0] * jax.lax.axis_index(axis_name)
    everyone, all_ids, all_real, all_rows = jax.lax.all_gather(
        (values, group_ids, mask, row), axis_name, tiled=True)
  pair = mask[:, None] & all_real & (row[:, None] != all_rows)
  same_group = group_ids[:, None] == all_ids
  return everyone, pair & same_group, pair & ~same_group


def _mean_where(chosen: jax.Array, values: jax.Array) -> jax.Array:
  """Mean over the last axis of the chosen values; 0 where none is."""
  total = jnp.sum(jnp.where(chosen, values, 0.0), axis=-1)
  return total / jnp.maximum(jnp.sum(chosen, axis=-1), 1)
