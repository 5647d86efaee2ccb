"""The equal mixture of the members' Normals (paper, section 3.3)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from mlvae_jax.grouping.checks import check_group_ids
from mlvae_jax.grouping.normal import Normal, standard_normal
from mlvae_jax.grouping.posterior import (
    GroupPosterior,
    Members,
    Sampled,
    code_noise,
    share_of_kl,
)
from mlvae_jax.grouping.segment_sum import segment_sum


@dataclasses.dataclass(frozen=True)
class Mixture(GroupPosterior):
  """q(C | X_G) is the equal mixture of the members' Normals.

  Its KL is estimated from the codes.
  """

  is_normal = False

  def combine(self, q: Normal, group_ids: jax.Array, num_groups: int,
              mask: jax.Array | None = None) -> Normal:
    """The mixtures' means and variances."""
    group_ids, mask = check_group_ids(
        group_ids, q.mean.shape[0], num_groups, mask)
    # Counts and moments in bfloat16 would stop growing at 256.
    dtype = jnp.promote_types(q.mean.dtype, jnp.float32)
    q = Normal(*(jnp.where(mask[:, None], value, 0.0).astype(dtype)
                 for value in q))
    weight = mask[:, None].astype(q.mean.dtype)
    count = segment_sum(weight, group_ids, num_groups)
    # Each row's share of its group, not a sum to be divided: that overflows.
    share = weight / jnp.maximum(count, 1.0)[group_ids]
    mean = segment_sum(share * q.mean, group_ids, num_groups)
    spread = jnp.exp(q.logvar) + jnp.square(q.mean - mean[group_ids])
    var = segment_sum(share * spread, group_ids, num_groups)
    logvar = jnp.log(jnp.where(count > 0, var, 1.0))
    return Normal(mean, logvar)

  def _sample(self, key: jax.Array, members: Members, num_groups: int,
              sample_per: str, axis_name: str | None) -> Sampled:
    """Stratified: the members of a group draw from different components.

    Row i draws from the component of the member that stands r places after it
    in the group's circle, r uniform: each code is a draw of the mixture, and
    together they visit every component once. KL = E[log q(c) - log p(c)] is
    averaged over these codes. Which component is drawn does not depend on
    parameters, so the gradient through the reparameterised code is unbiased.
    """
    ids, mask = check_group_ids(
        members.group_ids, members.group_ids.shape[0], num_groups, members.mask)
    members = members._replace(group_ids=ids, mask=mask, q=Normal(*(
        jnp.where(mask[:, None], value, 0.0) for value in members.q)))
    everyone = members._replace(kl_share=None)
    if axis_name is not None:
      everyone = jax.lax.all_gather(everyone, axis_name, tiled=True)
    dim = members.q.mean.shape[1]
    same = _same_group(members, everyone)  # [N, M]: this row, a member.
    count = jnp.sum(same, axis=1)
    place = _num_before(everyone, everyone)
    shift_key, noise_key = jax.random.split(key)
    shift = jax.vmap(lambda group: jax.random.uniform(
        jax.random.fold_in(shift_key, group)))(ids)
    target = jnp.floor(shift * count).astype(jnp.int32)
    if sample_per == 'row':
      target += _num_before(
          members, everyone._replace(evidence=everyone.mask))
    target %= jnp.maximum(count, 1)
    component = jnp.argmax(same & (place == target[:, None]), axis=1)
    noise = code_noise(noise_key, members, num_groups, dim, sample_per)
    is_empty = count == 0  # No evidence: the prior, as for padding rows.
    codes = jnp.where(is_empty[:, None], noise,
                      everyone.q.take(component).reparameterize(noise))
    # Every code under every component; only those of its own group count.
    log_q = jnp.sum(everyone.q.log_prob(codes[:, None]), axis=-1)
    log_q = jnp.where(same | is_empty[:, None], log_q, -jnp.inf)
    log_q = jax.nn.logsumexp(log_q, axis=1) - jnp.log(jnp.maximum(count, 1))
    log_p = jnp.sum(standard_normal((dim,)).log_prob(codes), axis=-1)
    kl_share = share_of_kl(members, num_groups, axis_name)
    kl = jnp.where(
        is_empty | (kl_share == 0), 0.0, kl_share * (log_q - log_p))
    return Sampled(codes, *(jax.ops.segment_sum(value, ids, num_groups)
                            for value in (kl, kl_share)))


def _same_group(rows: Members, others: Members) -> jax.Array:
  """`[N, M]`: which of the others are evidence about a row's group."""
  return (rows.mask[:, None] & others.mask & others.evidence
          & (rows.group_ids[:, None] == others.group_ids))


def _num_before(rows: Members, others: Members) -> jax.Array:
  """`[N]`: evidence about a row's group that has a lower row number."""
  before = others.rows < rows.rows[:, None]
  return jnp.sum(_same_group(rows, others) & before, axis=1)
