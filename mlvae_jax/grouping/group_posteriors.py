"""How the members of a group make up its posterior q(C | X_G).

The paper multiplies the members' Normals (section 3.3), and names a mixture
of their densities as an alternative. Both are here in two forms: `combine`
gives a Normal per group, for codes and figures; `sample_codes` gives what the
ELBO needs, a code for each row and the KL of each group.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlvae_jax.grouping.evidence import (
    check_group_ids,
    evidence,
    product_of_normals,
    segment_sum,
)
from mlvae_jax.grouping.normal import Normal, kl_divergence, standard_normal

GROUP_POSTERIORS = ('product', 'mixture')
SAMPLE_PER = ('row', 'group')


class Members(NamedTuple):
  """Rows with the groups that they are members of.

  Attributes:
    q: Normal of `[N, D]`, each row's own posterior.
    group_ids: `[N]` ints.
    mask: `[N]` bool, False for padding.
    evidence: `[N]` bool, rows that their group's posterior is made of.
    rows: `[N]` int32, numbers of the rows, which name their noise.
    shares: `[N]` part of its group's KL that a row stands for, or None: the
      rows present share one among them.
  """

  q: Normal
  group_ids: jax.Array
  mask: jax.Array
  evidence: jax.Array
  rows: jax.Array
  shares: jax.Array | None = None


class Sampled(NamedTuple):
  """Codes of rows, and what their groups pay.

  Attributes:
    codes: `[N, D]`, of each row from its group's posterior.
    kl: `[G]` in nats, times `share`.
    share: `[G]`, the part of each group that this batch stands for; on one
      of several devices, this device's part of it.
  """

  codes: jax.Array
  kl: jax.Array
  share: jax.Array


def combine(kind: str, q: Normal, group_ids: jax.Array, num_groups: int,
            mask: jax.Array | None = None) -> Normal:
  """The groups' posteriors as Normals.

  Args:
    kind: 'product' gives the product of the members' Normals (eqs. 6-7);
      'mixture' the mean and variance of the equal mixture of them.
    q: Normal of `[N, D]`.
    group_ids: `[N]` ints in `[0, num_groups)`.
    num_groups: static int, G.
    mask: optional `[N]` bool; False drops a row.

  Returns:
    Normal of `[G, D]`; N(0, I) for a group without rows.

  Raises:
    ValueError: as `evidence` does.
  """
  if kind == 'product':
    return product_of_normals(q, group_ids, num_groups, mask)
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


def sample_codes(kind: str, key: jax.Array, members: Members, num_groups: int,
                 *, sample_per: str = 'row', axis_name: str | None = None
                 ) -> Sampled:
  """Draws codes from the groups' posteriors, with their KLs.

  Args:
    kind: 'product' or 'mixture'.
    key: consumed. Noise is a function of key and `members.rows` (or of the
      group) alone.
    members: the rows, or this device's share of them.
    num_groups: static int, G.
    sample_per: 'row' draws anew for every member (algorithm 1), 'group' once.
    axis_name: mapped axis over which the rows are spread, if any.

  Returns:
    Codes and KLs. The product's KL is exact; the mixture's is estimated from
    the codes.

  Raises:
    ValueError: on another `kind` or `sample_per`.
  """
  if kind not in GROUP_POSTERIORS:
    raise ValueError(f'expected one of {GROUP_POSTERIORS}, got {kind!r}')
  check_sample_per(sample_per)
  members = jax.tree.map(jnp.asarray, members)
  sample = _sample_product if kind == 'product' else _sample_mixture
  return sample(key, members, num_groups, sample_per, axis_name)


def sample_from(key: jax.Array, q_group: Normal, members: Members,
                sample_per: str = 'row', axis_name: str | None = None
                ) -> Sampled:
  """As `sample_codes`, from given posteriors `[G, D]`."""
  ids, num_groups = members.group_ids, q_group.mean.shape[0]
  dim = q_group.mean.shape[1]
  shares = _shares(members, num_groups, axis_name)
  share = jax.ops.segment_sum(shares, ids, num_groups)
  noise = _noise(key, members, num_groups, dim, sample_per)
  codes = q_group.take(ids).reparameterize(noise)
  return Sampled(codes, kl_divergence(q_group) * share, share)


def check_sample_per(sample_per: str) -> None:
  """Raises a ValueError where `sample_per` is not one of `SAMPLE_PER`."""
  if sample_per not in SAMPLE_PER:
    raise ValueError(
        f'expected sample_per of {SAMPLE_PER}, got {sample_per!r}')


def row_noise(key: jax.Array, rows: jax.Array, dim: int) -> jax.Array:
  """Standard Normal noise `[N, dim]`, each row a function of (key, row)."""
  row_keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)
  return jax.vmap(lambda row_key: jax.random.normal(row_key, (dim,)))(row_keys)


def _sample_product(key, members, num_groups, sample_per, axis_name):
  q, ids = members.q, members.group_ids
  found = evidence(q, ids, num_groups, members.mask & members.evidence)
  if axis_name is not None:
    found = found.psum(axis_name)
  return sample_from(key, found.to_normal(), members, sample_per, axis_name)


def _sample_mixture(key, members, num_groups, sample_per, axis_name):
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
  everyone = members._replace(shares=None)
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
  noise = _noise(noise_key, members, num_groups, dim, sample_per)
  is_empty = count == 0  # No evidence: the prior, as for padding rows.
  codes = jnp.where(is_empty[:, None], noise,
                    everyone.q.take(component).reparameterize(noise))
  # Every code under every component; only those of its own group count.
  log_q = jnp.sum(everyone.q.log_prob(codes[:, None]), axis=-1)
  log_q = jnp.where(same | is_empty[:, None], log_q, -jnp.inf)
  log_q = jax.nn.logsumexp(log_q, axis=1) - jnp.log(jnp.maximum(count, 1))
  log_p = jnp.sum(standard_normal((dim,)).log_prob(codes), axis=-1)
  shares = _shares(members, num_groups, axis_name)
  kl = jnp.where(
      is_empty | (shares == 0), 0.0, shares * (log_q - log_p))
  return Sampled(codes, *(
      jax.ops.segment_sum(value, ids, num_groups) for value in (kl, shares)))


def _same_group(rows: Members, others: Members) -> jax.Array:
  """`[N, M]`: which of the others are evidence about a row's group."""
  return (rows.mask[:, None] & others.mask & others.evidence
          & (rows.group_ids[:, None] == others.group_ids))


def _num_before(rows: Members, others: Members) -> jax.Array:
  """`[N]`: evidence about a row's group that has a lower row number."""
  before = others.rows < rows.rows[:, None]
  return jnp.sum(_same_group(rows, others) & before, axis=1)


def _noise(key, members: Members, num_groups: int, dim: int, sample_per: str
           ) -> jax.Array:
  """Standard Normal noise `[N, D]`, by row or the same for a group's rows."""
  if sample_per == 'group':
    return row_noise(key, jnp.arange(num_groups), dim)[members.group_ids]
  return row_noise(key, members.rows, dim)


def _shares(members: Members, num_groups: int, axis_name: str | None
            ) -> jax.Array:
  """`[N]`: the part of its group that a row stands for; 0 for padding."""
  if members.shares is not None:
    return jnp.where(members.mask, members.shares, 0.0)
  real = members.mask.astype(jnp.float32)
  count = jax.ops.segment_sum(real, members.group_ids, num_groups)
  if axis_name is not None:  # A group may straddle devices.
    count = jax.lax.psum(count, axis_name)
  return real / jnp.maximum(count, 1.0)[members.group_ids]
