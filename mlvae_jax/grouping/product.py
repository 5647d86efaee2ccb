"""The product of the members' Normals (paper eqs. 6-7)."""

from __future__ import annotations

import dataclasses

import jax
from numpy.typing import ArrayLike

from mlvae_jax.grouping.evidence import evidence
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.grouping.posterior import (
    GroupPosterior,
    Members,
    Sampled,
    sample_normal,
)


@dataclasses.dataclass(frozen=True)
class Product(GroupPosterior):
  """q(C | X_G) is the product of the members' Normals (paper eqs. 6-7)."""

  def combine(self, q: Normal, group_ids: jax.Array, num_groups: int,
              mask: jax.Array | None = None) -> Normal:
    """Multiplies the members' Normals, see `product_of_normals`."""
    return product_of_normals(q, group_ids, num_groups, mask)

  def _sample(self, key: jax.Array, members: Members, num_groups: int,
              sample_per: str, axis_name: str | None) -> Sampled:
    found = evidence(members.q, members.group_ids, num_groups,
                     members.mask & members.evidence)
    if axis_name is not None:  # A group may straddle devices.
      found = found.psum(axis_name)
    return sample_normal(
        key, found.to_normal(), members, sample_per, axis_name)


def product_of_normals(
    q: Normal,
    group_ids: ArrayLike,
    num_groups: int,
    mask: ArrayLike | None = None,
) -> Normal:
  """Multiplies the Normals of each group (paper eqs. 6-7).

  Precisions add; no prior enters. A group without rows is N(0, I), so its KL
  is 0.

  Args:
    q: Normal of `[N, D]`.
    group_ids: `[N]` integers in `[0, num_groups)`, in any order.
    num_groups: static int, G.
    mask: optional `[N]` bool; False drops a row.

  Returns:
    Normal of `[G, D]`.

  Raises:
    ValueError: as `evidence` does.
  """
  return evidence(q, group_ids, num_groups, mask).to_normal()
