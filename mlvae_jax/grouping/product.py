"""Products of the members' Normals (paper eqs. 6-7), and variants of them."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from numpy.typing import ArrayLike

from mlvae_jax.grouping.evidence import Evidence, evidence
from mlvae_jax.grouping.normal import Normal, at_least_float32
from mlvae_jax.grouping.posterior import (
    GroupPosterior,
    Members,
    Sampled,
    sample_normal,
)


@dataclasses.dataclass(frozen=True)
class Product(GroupPosterior):
  """q(C | X_G) is the product of the members' Normals (paper eqs. 6-7)."""

  includes_prior = False

  def combine(self, q: Normal, group_ids: jax.Array, num_groups: int,
              mask: jax.Array | None = None) -> Normal:
    """Combines the evidence; arguments as in `GroupPosterior`."""
    return self._of_evidence(evidence(q, group_ids, num_groups, mask))

  def _sample(self, key: jax.Array, members: Members, num_groups: int,
              sample_per: str, axis_name: str | None) -> Sampled:
    found = evidence(members.q, members.group_ids, num_groups,
                     members.mask & members.evidence)
    if axis_name is not None:  # A group may straddle devices.
      found = found.psum(axis_name)
    return sample_normal(
        key, self._of_evidence(found), members, sample_per, axis_name)

  def _of_evidence(self, found: Evidence) -> Normal:
    """The group posteriors, Normal of `[G, D]`; N(0, I) without any rows."""
    return found.to_normal()


@dataclasses.dataclass(frozen=True)
class PriorProduct(Product):
  """The product of the members' Normals and the prior N(0, I).

  The precision is 1 plus the sum of the members' precisions, as in the exact
  posterior given conditionally independent observations. So no variance exceeds
  the prior's 1, whatever the encoder says of a single row.
  """

  includes_prior = True

  def alone(self, q: Normal) -> Normal:
    """Multiplies rows' Normals by the prior."""
    mean, logvar = map(at_least_float32, q)
    # With p = exp(-logvar): mean p / (1 + p), and precision 1 + p.
    return Normal(mean * jax.nn.sigmoid(-logvar), -jax.nn.softplus(-logvar))

  def _of_evidence(self, found: Evidence) -> Normal:
    return self.alone(found.to_normal()).masked(found.count > 0)


@dataclasses.dataclass(frozen=True)
class Harmonic(Product):
  """The product's mean, with the harmonic mean of the members' variances.

  The variance is that of the product times the number of rows, and does not
  fall as evidence grows. disentanglement_lib uses it instead of the product,
  for pairs.
  """

  includes_prior = True

  def _of_evidence(self, found: Evidence) -> Normal:
    q = found.to_normal()
    count = jnp.maximum(found.count, 1).astype(q.logvar.dtype)
    return Normal(q.mean, q.logvar + jnp.log(count)[:, None])


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
