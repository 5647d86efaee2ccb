"""The mean of the members' moments (Group VAE; Hosoya 2019)."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses

import jax
import jax.numpy as jnp

from mlvae_jax.grouping.checks import check_group_ids
from mlvae_jax.grouping.normal import Normal, at_least_float32
from mlvae_jax.grouping.posterior import (
    GroupPosterior,
    Members,
    Sampled,
    sample_normal,
)
from mlvae_jax.grouping.segment_sum import segment_sum


@dataclasses.dataclass(frozen=True)
class Moments(GroupPosterior):
  """q(C | X_G) has the average of the members' means, and of their variances.

  The group VAE of Hosoya (IJCAI 2019). The variance does not fall as evidence
  grows: a group is as uncertain as its members are on average. It does not
  depend on how far apart the members' means are; `Mixture` adds that variance.
  """

  def combine(self, q: Normal, group_ids: jax.Array, num_groups: int,
              mask: jax.Array | None = None) -> Normal:
    """Averages means and variances; arguments as in `GroupPosterior`."""
    return average_moments(
        q, *check_group_ids(group_ids, q.mean.shape[0], num_groups, mask),
        num_groups)

  def _sample(self, key: jax.Array, members: Members, num_groups: int,
              sample_per: str, axis_name: str | None) -> Sampled:
    ids, mask = check_group_ids(
        members.group_ids, members.group_ids.shape[0], num_groups,
        members.mask & members.evidence)
    q_group = average_moments(members.q, ids, mask, num_groups, axis_name)
    return sample_normal(key, q_group, members, sample_per, axis_name)


def average_moments(q: Normal, group_ids: jax.Array, mask: jax.Array,
                    num_groups: int, axis_name: str | None = None) -> Normal:
  """Averages the means, and the variances, of the members of each group.

  Args:
    q: Normal of `[N, D]`.
    group_ids: `[N]` ints in `[0, num_groups)`, checked.
    mask: `[N]` bool; False drops a row, whatever it holds.
    num_groups: static int, G.
    axis_name: mapped axis over which the rows are spread, if any.

  Returns:
    Normal of `[G, D]`; N(0, I) for a group without rows.
  """
  q = Normal(*map(at_least_float32, q.masked(mask)))
  average, is_empty = averaging(
      group_ids, mask, num_groups, q.mean.dtype, axis_name)
  # Variances are scaled by the largest of their group, so that none overflows.
  # The scale cancels, so it needs no gradient.
  lowest = jnp.finfo(q.logvar.dtype).min
  logvar = jnp.where(mask[:, None], q.logvar, lowest)
  log_scale = jnp.maximum(jax.ops.segment_max(
      jax.lax.stop_gradient(logvar), group_ids, num_groups), lowest)
  if axis_name is not None:
    log_scale = jax.lax.pmax(log_scale, axis_name)
  var = average(jnp.exp(jnp.where(
      mask[:, None], q.logvar - log_scale[group_ids], 0.0)))
  return Normal(average(q.mean), jnp.where(
      is_empty, 0.0, jnp.log(jnp.where(is_empty, 1.0, var)) + log_scale))


def averaging(group_ids: jax.Array, mask: jax.Array, num_groups: int,
              dtype: jnp.dtype, axis_name: str | None = None
              ) -> tuple[Callable[[jax.Array], jax.Array], jax.Array]:
  """Prepares means over the members of groups.

  Args:
    group_ids: `[N]` ints in `[0, num_groups)`, checked.
    mask: `[N]` bool; False drops a row, which must not be NaN.
    num_groups: static int, G.
    dtype: type of the values to average.
    axis_name: mapped axis over which the rows are spread, if any.

  Returns:
    A function from values `[N, D]` to their means `[G, D]`, 0 for a group
    without rows; and `[G, 1]` bool, whether a group is without rows.
  """
  def total(values: jax.Array) -> jax.Array:
    found = segment_sum(values, group_ids, num_groups)
    return found if axis_name is None else jax.lax.psum(found, axis_name)

  weight = mask[:, None].astype(dtype)
  count = total(weight)
  # Rows are weighted before they are added: a sum that is divided afterwards
  # could overflow.
  share = weight / jnp.maximum(count, 1.0)[group_ids]
  return lambda values: total(share * values), count == 0
