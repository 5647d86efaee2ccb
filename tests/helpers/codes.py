"""Codes of groups that tests of recognition make up."""

import numpy as np

from mlvae_jax.grouping.normal import Normal


def noisy_people(noise, num_groups=20, size=15, dim=12, seed=0):
  """Codes around one point per group; each code knows its noise."""
  rng = np.random.default_rng(seed)
  people = np.repeat(rng.normal(size=(num_groups, dim)), size, axis=0)
  std = noise * np.exp(rng.normal(size=people.shape))
  codes = Normal((people + std * rng.normal(size=people.shape)).astype('f4'),
                 2 * np.log(std).astype('f4'))
  return codes, size * np.arange(num_groups + 1)
