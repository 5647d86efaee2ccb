"""Likelihoods by name."""

from __future__ import annotations

from mlvae_jax.model.likelihoods.bernoulli import Bernoulli
from mlvae_jax.model.likelihoods.categorical import Categorical
from mlvae_jax.model.likelihoods.counts import NegativeBinomial, Poisson
from mlvae_jax.model.likelihoods.gaussian import Gaussian, LearnedGaussian
from mlvae_jax.model.likelihoods.laplace import Laplace

LIKELIHOODS = {
    'bernoulli': Bernoulli,
    'gaussian': Gaussian,
    'learned_gaussian': LearnedGaussian,
    'laplace': Laplace,
    'poisson': Poisson,
    'negative_binomial': NegativeBinomial,
    'categorical': Categorical,
}
