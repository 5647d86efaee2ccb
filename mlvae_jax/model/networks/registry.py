"""Networks by name."""

from __future__ import annotations

from mlvae_jax.model.networks.conv import Conv
from mlvae_jax.model.networks.mlp import MLP

NETWORKS = {'mlp': MLP, 'conv': Conv}
