"""The equal mixture of the members' Normals (paper, section 3.3)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from mlvae_jax.grouping.checks import check_group_ids
from mlvae_jax.grouping.moments import averaging
from mlvae_jax.grouping.normal import (
    Normal,
    at_least_float32,
    standard_normal,
)
from mlvae_jax.grouping.posterior import (
    GroupPosterior,
    Members,
    Sampled,
    code_noise,
    share_of_kl,
)
from mlvae_jax.grouping.row_noise import row_uniforms


@dataclasses.dataclass(frozen=True)
class Mixture(GroupPosterior):
  """q(C | X_G) is the equal mixture of the members' Normals.

  It has no KL in closed form: the KL is estimated from the codes drawn.
  """

  is_normal = False

  def combine(self, q: Normal, group_ids: jax.Array, num_groups: int,
              mask: jax.Array | None = None) -> Normal:
    """Gives Normals of the mixtures' means and variances."""
    group_ids, mask = check_group_ids(
        group_ids, q.mean.shape[0], num_groups, mask)
    # Sums in bfloat16 would stop growing at 256.
    q = Normal(*map(at_least_float32, q.masked(mask)))
    average, is_empty = averaging(group_ids, mask, num_groups, q.mean.dtype)
    mean = average(q.mean)
    # Law of total variance: the mean variance, and the variance of the means.
    var = average(jnp.exp(q.logvar) + jnp.square(q.mean - mean[group_ids]))
    logvar = jnp.log(jnp.where(is_empty, 1.0, var))
    return Normal(mean, logvar)

  def _sample(self, key: jax.Array, members: Members, num_groups: int,
              sample_per: str, axis_name: str | None) -> Sampled:
    """Draws stratified: members of a group use different components.

    The members of a group form a circle. Row i draws from the component of the
    member r places after it, with r uniform and common to the group. So each
    code is a draw from the mixture, and together the codes visit every
    component once. KL = E[log q(c) - log p(c)] is averaged over these codes.
    Which component is drawn does not depend on parameters, so the gradient
    through the reparameterised code is unbiased.
    """
    ids, mask = check_group_ids(
        members.group_ids, members.group_ids.shape[0], num_groups, members.mask)
    members = members._replace(
        group_ids=ids, mask=mask, q=members.q.masked(mask))
    everyone = members._replace(kl_share=None, weights=None)
    if axis_name is not None:
      everyone = jax.lax.all_gather(everyone, axis_name, tiled=True)
    dim = members.q.mean.shape[1]
    same = _same_group(members, everyone)  # [N, M]: this row, a member.
    count = jnp.sum(same, axis=1)
    place = _num_before(everyone, everyone)
    shift_key, noise_key = jax.random.split(key)
    # One shift per group, by its id: the same on all devices that hold rows.
    shift = row_uniforms(shift_key, ids, 1)[:, 0]
    target = jnp.floor(shift * count).astype(jnp.int32)
    if sample_per == 'row':
      # Places of rows count all members, not only those that are evidence:
      # with unbiased subsampling, rows that are not need codes as well.
      target += _num_before(
          members, everyone._replace(evidence=everyone.mask))
    target %= jnp.maximum(count, 1)
    component = jnp.argmax(same & (place == target[:, None]), axis=1)
    noise = code_noise(noise_key, members, num_groups, dim, sample_per)
    is_empty = count == 0  # Without evidence codes come from the prior.
    codes = jnp.where(is_empty[:, None], noise,
                      everyone.q.take(component).reparameterize(noise))
    # log q(c) = logsumexp over the group's members m of log N(c; m), less the
    # logarithm of their number. Densities of all M rows are computed and other
    # groups' set to 0: one static shape, whatever the groups' sizes.
    log_q = jnp.sum(everyone.q.log_prob(codes[:, None]), axis=-1)
    log_q = jnp.where(same | is_empty[:, None], log_q, -jnp.inf)
    log_q = jax.nn.logsumexp(log_q, axis=1) - jnp.log(jnp.maximum(count, 1))
    log_p = jnp.sum(standard_normal((dim,)).log_prob(codes), axis=-1)
    kl_share = share_of_kl(members, num_groups, axis_name)
    # A row that pays nothing must not bring NaN into its group's sum.
    kl = jnp.where(
        is_empty | (kl_share == 0), 0.0, kl_share * (log_q - log_p))
    return Sampled(codes, *(jax.ops.segment_sum(value, ids, num_groups)
                            for value in (kl, kl_share)))


def _same_group(rows: Members, others: Members) -> jax.Array:
  """`[N, M]` bool: which others are evidence about a row's group."""
  return (rows.mask[:, None] & others.mask & others.evidence
          & (rows.group_ids[:, None] == others.group_ids))


def _num_before(rows: Members, others: Members) -> jax.Array:
  """`[N]`: how many rows of a group's evidence have a lower row number."""
  before = others.rows < rows.rows[:, None]
  return jnp.sum(_same_group(rows, others) & before, axis=1)
