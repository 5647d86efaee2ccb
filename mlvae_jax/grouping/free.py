"""Free posteriors: a Normal of parameters per group (SVI, paper fig. 3a)."""

from __future__ import annotations

import dataclasses

import jax

from mlvae_jax.grouping.normal import Normal
from mlvae_jax.grouping.posterior import Members, Sampled, sample_normal
from mlvae_jax.grouping.product import Product


@dataclasses.dataclass(frozen=True)
class Free(Product):
  """q(C | X_G) is a Normal of its own for every group, without an encoder.

  `sample` expects these Normals as `Members.q`. `combine` multiplies posteriors
  that were inferred for single rows, as if they were independent evidence.
  """

  has_encoder = False
  includes_prior = True

  def _sample(self, key: jax.Array, members: Members, num_groups: int,
              sample_per: str, axis_name: str | None) -> Sampled:
    del num_groups  # There is a posterior per group already.
    q_group: Normal = members.q
    return sample_normal(key, q_group, members, sample_per, axis_name)
