"""Multi-Level VAE: disentangled representations from grouped observations.

Implements Bouchacourt, Tomioka and Nowozin, "Multi-Level Variational
Autoencoder", arXiv 1705.08841, as pure functions on JAX arrays.
"""

from mlvae_jax.data.grouped import GroupedData
from mlvae_jax.data.index_stream import IndexStream
from mlvae_jax.grouping.adaptive import Adaptive
from mlvae_jax.grouping.evidence import Evidence, evidence, merge, remove
from mlvae_jax.grouping.free import Free
from mlvae_jax.grouping.mixture import Mixture
from mlvae_jax.grouping.moments import Moments
from mlvae_jax.grouping.normal import Normal, kl_divergence, standard_normal
from mlvae_jax.grouping.product import (
    Harmonic,
    PriorProduct,
    Product,
    product_of_normals,
)
from mlvae_jax.inference.encode import encode_group, infer, posteriors
from mlvae_jax.inference.latents import (
    decode,
    generate,
    interpolate,
    reconstruct,
    swap,
)
from mlvae_jax.model.factors import Batch, Factor, ml_vae, parse_factors, vae
from mlvae_jax.model.likelihoods.bernoulli import Bernoulli
from mlvae_jax.model.likelihoods.categorical import Categorical
from mlvae_jax.model.likelihoods.counts import NegativeBinomial, Poisson
from mlvae_jax.model.likelihoods.gaussian import Gaussian, LearnedGaussian
from mlvae_jax.model.likelihoods.laplace import Laplace
from mlvae_jax.model.model import Model
from mlvae_jax.model.networks.conv import Conv
from mlvae_jax.model.networks.conv1d import Conv1D
from mlvae_jax.model.networks.mlp import MLP
from mlvae_jax.model.networks.network import Network
from mlvae_jax.model.networks.registry import register_network
from mlvae_jax.model.networks.tokens import Tokens
from mlvae_jax.objective.bounds import group_likelihood_bound
from mlvae_jax.objective.elbo import elbo_terms, sum_terms
from mlvae_jax.objective.penalties.registry import (
    Penalty,
    separating_penalties,
)
from mlvae_jax.training.fit import fit
from mlvae_jax.training.loading import load
from mlvae_jax.training.step import TrainConfig

__all__ = [
    'Adaptive',
    'Batch',
    'Bernoulli',
    'Categorical',
    'Conv',
    'Conv1D',
    'Evidence',
    'Factor',
    'Free',
    'Gaussian',
    'GroupedData',
    'Harmonic',
    'IndexStream',
    'Laplace',
    'LearnedGaussian',
    'MLP',
    'Mixture',
    'Model',
    'Moments',
    'NegativeBinomial',
    'Network',
    'Normal',
    'Penalty',
    'Poisson',
    'PriorProduct',
    'Product',
    'Tokens',
    'TrainConfig',
    'decode',
    'elbo_terms',
    'encode_group',
    'evidence',
    'fit',
    'generate',
    'group_likelihood_bound',
    'infer',
    'interpolate',
    'kl_divergence',
    'load',
    'merge',
    'ml_vae',
    'parse_factors',
    'posteriors',
    'product_of_normals',
    'reconstruct',
    'register_network',
    'remove',
    'separating_penalties',
    'standard_normal',
    'sum_terms',
    'swap',
    'vae',
]
__version__ = '0.2.0.dev0'
