"""Likelihoods by name."""

from __future__ import annotations

from mlvae_jax.model.likelihoods.bernoulli import Bernoulli
from mlvae_jax.model.likelihoods.gaussian import Gaussian, LearnedGaussian

LIKELIHOODS = {
    'bernoulli': Bernoulli,
    'gaussian': Gaussian,
    'learned_gaussian': LearnedGaussian,
}
