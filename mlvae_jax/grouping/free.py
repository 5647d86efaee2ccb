"""Free posteriors: a Normal of parameters per group (SVI, paper fig. 3a)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from mlvae_jax.grouping.evidence import Evidence
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.grouping.posterior import Members, Sampled, sample_normal
from mlvae_jax.grouping.product import Product


@dataclasses.dataclass(frozen=True)
class Free(Product):
  """q(C | X_G) is a Normal of its own for every group, without an encoder.

  `sample` expects these Normals as `Members.q`. `combine` approximates the
  posterior of a group from those that were inferred for single rows: each of
  them includes the prior N(0, I), so all but one of the priors are divided out
  of their product. That is exact where the rows' posteriors are, as with a
  linear decoder whose columns are orthogonal and Gaussian noise; otherwise
  means are only near those of the group.
  """

  has_encoder = False
  includes_prior = True

  def _of_evidence(self, found: Evidence) -> Normal:
    mean, logvar = found.to_normal()
    # A product of precision p becomes one of p - (count - 1), at least the
    # prior's 1, unless p is less: a share of p, so that no p is too large for
    # its type.
    var = jnp.exp(jnp.minimum(logvar, 0.0))
    spare = jnp.maximum(found.count - 1, 0)[:, None]
    left = jnp.maximum(1.0 - spare * var, var)
    return Normal(mean / left, logvar - jnp.log(left))

  def _sample(self, key: jax.Array, members: Members, num_groups: int,
              sample_per: str, axis_name: str | None) -> Sampled:
    del num_groups  # There is a posterior per group already.
    q_group: Normal = members.q
    return sample_normal(key, q_group, members, sample_per, axis_name)
