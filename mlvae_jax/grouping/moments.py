"""The mean of the members' moments (Group VAE; Hosoya 2019)."""

from __future__ import annotations

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
  """q(C | X_G) is the Normal of the members' mean mean and mean variance.

  The group VAE of Hosoya (IJCAI 2019). The variance does not fall as evidence
  grows: a group is as uncertain as its members are on average.
  """

  def combine(self, q: Normal, group_ids: jax.Array, num_groups: int,
              mask: jax.Array | None = None) -> Normal:
    """Averages means and variances; arguments as for `GroupPosterior`."""
    return average_moments(
        q, *check_group_ids(group_ids, q.mean.shape[0], num_groups, mask),
        num_groups)

  def _sample(self, key: jax.Array, members: Members, num_groups: int,
              sample_per: str, axis_name: str | None) -> Sampled:
    q_group = average_moments(
        members.q, members.group_ids, members.mask & members.evidence,
        num_groups, axis_name)
    return sample_normal(key, q_group, members, sample_per, axis_name)


def average_moments(q: Normal, group_ids: jax.Array, mask: jax.Array,
                    num_groups: int, axis_name: str | None = None) -> Normal:
  """Normals of the mean mean and the mean variance of each group.

  Args:
    q: Normal of `[N, D]`.
    group_ids: `[N]` ints in `[0, num_groups)`, checked.
    mask: `[N]` bool; False drops a row.
    num_groups: static int, G.
    axis_name: mapped axis over which the rows are spread, if any.

  Returns:
    Normal of `[G, D]`; N(0, I) for a group without rows.
  """
  def total(values: jax.Array) -> jax.Array:
    found = segment_sum(values, group_ids, num_groups)
    return found if axis_name is None else jax.lax.psum(found, axis_name)

  q = Normal(*map(at_least_float32, q.masked(mask)))
  weight = mask[:, None].astype(q.mean.dtype)
  count = total(weight)
  # Rows are weighted before they are added: a sum of variances that is divided
  # afterwards could overflow.
  share = weight / jnp.maximum(count, 1.0)[group_ids]
  mean, var = jnp.split(total(
      share * jnp.concatenate([q.mean, jnp.exp(q.logvar)], axis=-1)), 2, -1)
  return Normal(mean, jnp.log(jnp.where(count > 0, var, 1.0)))
