"""The kinds of group posterior, by the name they have in config.json."""

from __future__ import annotations

from mlvae_jax.grouping.free import Free
from mlvae_jax.grouping.mixture import Mixture
from mlvae_jax.grouping.product import Product

GROUP_POSTERIORS = {'product': Product, 'mixture': Mixture, 'free': Free}
