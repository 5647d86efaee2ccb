"""Adaptive choice of the dimensions that a group shares (Locatello 2020)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from mlvae_jax.grouping.checks import check_group_ids
from mlvae_jax.grouping.mixture import Mixture
from mlvae_jax.grouping.moments import average_moments, averaging
from mlvae_jax.grouping.normal import Normal, at_least_float32, kl_divergence
from mlvae_jax.grouping.posterior import (
    GroupPosterior,
    Members,
    Sampled,
    code_noise,
    share_of_kl,
)
from mlvae_jax.grouping.row_noise import row_noise

# Differences that are rounding errors, in nats and relative to the largest.
_TOLERANCE = 1e-5
# Larger KLs count as this many nats, so that their sums are finite.
_MAX_KL = 1e30


@dataclasses.dataclass(frozen=True)
class Adaptive(GroupPosterior):
  """The members share only the dimensions in which they agree.

  Locatello et al. (ICML 2020, "Weakly-supervised disentanglement without
  compromises"), for groups of any size. In dimensions in which the members of a
  group differ by less than the threshold of `shared_dimensions`, all have the
  average of their moments, as in `Moments` (Ada-GVAE in that article); in the
  others every row keeps its own posterior. No gradient passes through the
  choice.

  The KL of a dimension that a group shares counts once, that of any other once
  per row. So the ELBO bounds the likelihood of a model in which each row has
  codes of its own in those dimensions. It cannot be compared with the ELBOs of
  the other kinds, where a group shares every dimension.
  """

  is_normal = False
  shares_all = False

  def combine(self, q: Normal, group_ids: jax.Array, num_groups: int,
              mask: jax.Array | None = None) -> Normal:
    """Gives the moments of a member's code: a mixture's where not shared."""
    ids, mask = check_group_ids(
        group_ids, q.mean.shape[0], num_groups, mask)
    average, is_shared = shared_dimensions(q, ids, mask, num_groups)
    mixture = Mixture().combine(q, ids, num_groups, mask)
    return _where(is_shared, average, mixture)

  def _sample(self, key: jax.Array, members: Members, num_groups: int,
              sample_per: str, axis_name: str | None) -> Sampled:
    ids, mask = check_group_ids(
        members.group_ids, members.group_ids.shape[0], num_groups, members.mask)
    members = members._replace(
        group_ids=ids, mask=mask, q=members.q.masked(mask))
    average, is_shared = shared_dimensions(
        members.q, ids, mask & members.evidence, num_groups, axis_name)
    is_shared_row = is_shared[ids]
    q = _where(is_shared_row, average.take(ids), members.q)
    codes = q.reparameterize(
        _noise(key, members, is_shared_row, num_groups, sample_per))
    kl_share = jax.ops.segment_sum(
        share_of_kl(members, num_groups, axis_name), ids, num_groups)
    once = jnp.where(is_shared, _kl_by_dimension(average), 0.0).sum(axis=-1)
    own = jnp.where(is_shared_row, 0.0, _kl_by_dimension(q)).sum(axis=-1)
    # A row that represents several pays their KLs too, as an ungrouped factor.
    weights = mask if members.weights is None else jnp.where(
        mask, members.weights, 0.0)
    return Sampled(
        codes, once * kl_share + jax.ops.segment_sum(
            weights * own, ids, num_groups), kl_share)


def shared_dimensions(
    q: Normal, group_ids: jax.Array, mask: jax.Array, num_groups: int,
    axis_name: str | None = None) -> tuple[Normal, jax.Array]:
  """Chooses the dimensions that the members of each group share.

  delta_d is the mean over the members i of KL(q_id || average_d), and the
  threshold tau = (max_d delta_d + min_d delta_d) / 2. Dimensions with
  delta_d < tau are shared. If all delta_d are equal, all dimensions are shared;
  so they are for a group of one member or none, and for codes of one dimension.

  Args:
    q: Normal of `[N, D]`.
    group_ids: `[N]` ints in `[0, num_groups)`, checked.
    mask: `[N]` bool; False drops a row, whatever it holds.
    num_groups: static int, G.
    axis_name: mapped axis over which the rows are spread, if any.

  Returns:
    Normal of `[G, D]` with the averages of the moments, and `[G, D]` bool,
    whether a dimension is shared.
  """
  average = average_moments(q, group_ids, mask, num_groups, axis_name)
  own, centre = jax.lax.stop_gradient((
      Normal(*map(at_least_float32, q.masked(mask))), average.take(group_ids)))
  mean_of, _ = averaging(
      group_ids, mask, num_groups, own.mean.dtype, axis_name)
  delta = mean_of(jnp.minimum(_kl_by_dimension(own, centre), _MAX_KL))
  least = delta.min(axis=-1, keepdims=True)
  most = delta.max(axis=-1, keepdims=True)
  # Members that are equal differ from their average by rounding errors, which
  # must not choose dimensions.
  is_tie = most - least <= _TOLERANCE * (1.0 + most)
  return average, is_tie | (delta < least + 0.5 * (most - least))


def _noise(key: jax.Array, members: Members, is_shared: jax.Array,
           num_groups: int, sample_per: str) -> jax.Array:
  """Standard Normal noise `[N, D]`; each row's own in dimensions not shared."""
  dim = members.q.mean.shape[1]
  if sample_per == 'row':
    return row_noise(key, members.rows, dim)
  group_key, row_key = jax.random.split(key)
  return jnp.where(
      is_shared, code_noise(group_key, members, num_groups, dim, sample_per),
      row_noise(row_key, members.rows, dim))


def _kl_by_dimension(q: Normal, p: Normal | None = None) -> jax.Array:
  """KL(q || p) of each dimension, `[..., D]`; p is N(0, I) by default."""
  q, p = jax.tree.map(lambda value: value[..., None], (q, p))
  return kl_divergence(q, p)


def _where(condition: jax.Array, first: Normal, second: Normal) -> Normal:
  """`first` where the condition `[..., D]` holds, otherwise `second`."""
  return Normal(*(jnp.where(condition, a, b)
                  for a, b in zip(first, second)))
