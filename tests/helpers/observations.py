"""A likelihood of each kind, and small data that it fits."""

import numpy as np

from mlvae_jax.model.likelihoods.bernoulli import Bernoulli
from mlvae_jax.model.likelihoods.categorical import Categorical
from mlvae_jax.model.likelihoods.counts import NegativeBinomial, Poisson
from mlvae_jax.model.likelihoods.gaussian import Gaussian, LearnedGaussian
from mlvae_jax.model.likelihoods.laplace import Laplace

SIZE = 6
EXAMPLES = {
    'bernoulli': Bernoulli(),
    'gaussian': Gaussian(0.3),
    'gaussian of learned variance': Gaussian(0.5, learn=True),
    'learned_gaussian': LearnedGaussian(),
    'laplace': Laplace(0.3),
    'poisson': Poisson(),
    'poisson of any total': Poisson(library=False),
    'negative_binomial': NegativeBinomial(),
    'negative_binomial of any total': NegativeBinomial(library=False),
    'categorical': Categorical(5),
}


def observe(name, ids, seed=0):
  """Observations `[N, SIZE]` of groups that differ, one row per id."""
  rng = np.random.default_rng(seed)
  profile = rng.normal(size=(max(ids) + 1, SIZE))[np.asarray(ids)]
  x = profile + 0.3 * rng.normal(size=profile.shape)
  if name == 'bernoulli':
    return x > 0
  if name == 'categorical':
    tokens = np.clip(np.round(x) + 2, 0, 4).astype(np.int64)
    tokens[::3, -1] = -1
    return tokens
  if name.startswith(('poisson', 'negative')):
    return rng.poisson(np.exp(1.0 + x)).astype(np.uint8)
  return x.astype(np.float32)
