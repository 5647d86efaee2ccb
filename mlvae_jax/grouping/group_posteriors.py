"""The kinds of group posterior, by the name they have in config.json."""

from __future__ import annotations

from mlvae_jax.grouping.adaptive import Adaptive
from mlvae_jax.grouping.free import Free
from mlvae_jax.grouping.mixture import Mixture
from mlvae_jax.grouping.moments import Moments
from mlvae_jax.grouping.product import Harmonic, PriorProduct, Product

GROUP_POSTERIORS = {
    'product': Product, 'prior_product': PriorProduct, 'moments': Moments,
    'harmonic': Harmonic, 'adaptive': Adaptive, 'mixture': Mixture,
    'free': Free}
