"""What every kind of group posterior q(C | X_G) provides.

The paper multiplies the members' Normals (section 3.3) and names a mixture of
their densities as an alternative. Each kind is a `GroupPosterior` in a file of
its own, with two methods: `combine` gives a Normal per group, for codes and
figures; `sample` gives what the ELBO needs, a code per row and a KL per group.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from mlvae_jax.grouping.normal import Normal, kl_divergence
from mlvae_jax.grouping.row_noise import row_noise

SAMPLE_PER = ('row', 'group')


class Members(NamedTuple):
  """Rows with the groups that they are members of.

  Attributes:
    q: Normal of `[N, D]`, each row's own posterior; where posteriors are
      free, Normal of `[G, D]`, the groups' posteriors.
    group_ids: `[N]` ints, the group of each row.
    mask: `[N]` bool, False for padding.
    evidence: `[N]` bool, whether the group's posterior is made of this row.
    rows: `[N]` int32, numbers of the rows, which determine their noise.
    kl_share: `[N]`, the share of its group's KL that a row pays; None where
      the rows present pay the whole KL in equal shares.
    weights: `[N]`, the number of rows that a row represents in the likelihood;
      None for one each.
  """

  q: Normal
  group_ids: jax.Array
  mask: jax.Array
  evidence: jax.Array
  rows: jax.Array
  kl_share: jax.Array | None = None
  weights: jax.Array | None = None


class Sampled(NamedTuple):
  """Codes of rows, and the KLs of their groups.

  Attributes:
    codes: `[N, D]`, a code of each row from its group's posterior.
    kl: `[G]`, each group's KL to the prior in nats, times `kl_share`; with the
      KLs of its rows in dimensions that they do not share (`Adaptive`).
    kl_share: `[G]`, the share of each group's KL that this batch pays: the sum
      of its rows' shares, on this device where there are several.
  """

  codes: jax.Array
  kl: jax.Array
  kl_share: jax.Array


class GroupPosterior:
  """A way of combining the members' posteriors into their group's.

  Each is a frozen dataclass, named in `group_posteriors.GROUP_POSTERIORS`.

  Attributes:
    has_encoder: whether an encoder gives the posteriors of rows; otherwise
      the posteriors of groups are free parameters.
    is_normal: whether the posterior is the Normal that `combine` gives;
      otherwise that Normal only has the posterior's mean and variance.
    includes_prior: whether the Normals that `combine` gives include the prior
      once, for groups of any size; otherwise, as in the paper's product, they
      are messages proportional to the likelihood (see `measures.membership`).
    shares_all: whether the members share all dimensions of the code; otherwise
      each has a code of its own in some dimensions, which is another model.
  """

  has_encoder: ClassVar[bool] = True
  is_normal: ClassVar[bool] = True
  # True for an average of posteriors, each of which includes the prior.
  includes_prior: ClassVar[bool] = True
  shares_all: ClassVar[bool] = True

  def combine(self, q: Normal, group_ids: jax.Array, num_groups: int,
              mask: jax.Array | None = None) -> Normal:
    """Combines the members' posteriors into their groups', as Normals.

    Args:
      q: Normal of `[N, D]`, each row's own posterior.
      group_ids: `[N]` ints in `[0, num_groups)`.
      num_groups: static int, G.
      mask: optional `[N]` bool; False drops a row.

    Returns:
      Normal of `[G, D]`; N(0, I) for a group without rows.

    Raises:
      ValueError: as `evidence` does.
    """
    raise NotImplementedError

  def alone(self, q: Normal) -> Normal:
    """Gives the posteriors of groups of one row each: `[N, D]` to `[N, D]`.

    This is what `combine` gives for such groups. For most kinds it is the row's
    own Normal.
    """
    return q

  def sample(self, key: jax.Array, members: Members, num_groups: int, *,
             sample_per: str = 'row', axis_name: str | None = None) -> Sampled:
    """Draws codes from the groups' posteriors, with their KLs.

    Args:
      key: random key; consumed. Noise is a function of key and `members.rows`
        (or of the group) alone.
      members: the rows, or this device's share of them.
      num_groups: static int, G.
      sample_per: 'row' draws a code for every member (algorithm 1), 'group'
        one code for all of them.
      axis_name: mapped axis over which the rows are spread, if any.

    Returns:
      Codes and KLs, which are exact, or estimated from the codes.

    Raises:
      ValueError: on an unknown `sample_per`.
    """
    check_sample_per(sample_per)
    members = jax.tree.map(jnp.asarray, members)
    return self._sample(key, members, num_groups, sample_per, axis_name)

  def _sample(self, key: jax.Array, members: Members, num_groups: int,
              sample_per: str, axis_name: str | None) -> Sampled:
    """Does what `sample` promises; its arguments have been checked."""
    raise NotImplementedError


def sample_normal(key: jax.Array, q_group: Normal, members: Members,
                  sample_per: str, axis_name: str | None) -> Sampled:
  """Draws codes from Normals of groups, with their exact KLs.

  Args:
    key: random key; consumed.
    q_group: Normal of `[G, D]`, the groups' posteriors.
    members: the rows; `members.q` is not used.
    sample_per: 'row' or 'group'.
    axis_name: mapped axis over which the rows are spread, if any.

  Returns:
    Codes and KLs.
  """
  ids, num_groups = members.group_ids, q_group.mean.shape[0]
  dim = q_group.mean.shape[1]
  # Summed over devices the shares of a group present are 1: it pays its KL
  # once, though every device computes the KL in full.
  kl_share = jax.ops.segment_sum(
      share_of_kl(members, num_groups, axis_name), ids, num_groups)
  noise = code_noise(key, members, num_groups, dim, sample_per)
  codes = q_group.take(ids).reparameterize(noise)
  return Sampled(codes, kl_divergence(q_group) * kl_share, kl_share)


def check_sample_per(sample_per: str) -> None:
  """Raises a ValueError where `sample_per` is not one of `SAMPLE_PER`."""
  if sample_per not in SAMPLE_PER:
    raise ValueError(
        f'expected sample_per of {SAMPLE_PER}, got {sample_per!r}')


def code_noise(key: jax.Array, members: Members, num_groups: int, dim: int,
               sample_per: str) -> jax.Array:
  """Standard Normal noise `[N, D]`, one draw per row or one per group."""
  if sample_per == 'group':
    return row_noise(key, jnp.arange(num_groups), dim)[members.group_ids]
  return row_noise(key, members.rows, dim)


def share_of_kl(members: Members, num_groups: int, axis_name: str | None
                ) -> jax.Array:
  """`[N]`, the share of its group's KL that a row pays; 0 for padding."""
  if members.kl_share is not None:
    return jnp.where(members.mask, members.kl_share, 0.0)
  real = members.mask.astype(jnp.float32)
  count = jax.ops.segment_sum(real, members.group_ids, num_groups)
  if axis_name is not None:  # A group may straddle devices.
    count = jax.lax.psum(count, axis_name)
  # Groups without real rows have a count of 0, and their padding pays 0 / 1.
  return real / jnp.maximum(count, 1.0)[members.group_ids]
