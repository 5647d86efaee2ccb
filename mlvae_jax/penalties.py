"""Penalties beside the ELBO: what codes should tell of groups, and should not.

Both compare the rows of a batch with each other, over all devices.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def contrast(
    means: jax.Array,
    group_ids: jax.Array,
    mask: jax.Array,
    *,
    temperature: float = 0.1,
    axis_name: str | None = None,
) -> jax.Array:
  """How badly a row's code tells the row's group among the rows of a batch.

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
  norm = jnp.sqrt(jnp.sum(means ** 2, axis=-1, keepdims=True) + 1e-12)
  unit = means / norm
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
    axis_name: str | None = None,
) -> jax.Array:
  """How much codes that should not tell a row's group do.

  For row i, the mean of k(z_i, z_j) over the other rows j of its group, less
  that over the rows of other groups; k is the mean of Gaussian kernels of
  variances D / 4, D and 4 D. Its average over rows estimates, without bias,
  the squared maximum mean discrepancy between the codes of a group and of
  everyone (Gretton et al. 2012): zero where style is independent of the group.

  Args:
    z: `[N, D]` codes of single rows.
    group_ids: `[N]` ints, of the grouping that is not to be told.
    mask: `[N]` bool, False for padding.
    axis_name: mapped axis over which the batch is spread, if any.

  Returns:
    `[N]`; 0 for padding, and for rows without another of their group or
    without any of another group.
  """
  everyone, same, different = _pairs(z, group_ids, mask, axis_name)
  distance = jnp.sum((z[:, None] - everyone) ** 2, axis=-1) / z.shape[1]
  kernel = sum(
      jnp.exp(-0.5 * distance / scale) for scale in (0.25, 1.0, 4.0)) / 3.0
  value = _mean_where(same, kernel) - _mean_where(different, kernel)
  both = jnp.any(same, axis=1) & jnp.any(different, axis=1)
  return jnp.where(both, value, 0.0)


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
  real = mask[:, None].astype(values.dtype)
  total, count = (
      jax.ops.segment_sum(x, group_ids, num_groups)
      for x in (values * real, real))
  if axis_name is not None:
    total, count = jax.lax.psum((total, count), axis_name)
  mean = total / jnp.maximum(count, 1.0)
  return (values - mean[group_ids]) * real


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
