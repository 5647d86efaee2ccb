"""The encoder: a network's features, and the heads that make posteriors.

The heads of all factors that see nothing but the observation are one linear
layer. A factor that is given others has a small network of its own, which
sees the features and their codes: q(s | x, c) instead of q(s | x).
"""

from __future__ import annotations

from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from mlvae_jax.model.networks.network import flatten

_HEAD_SIZE = 256  # Units of the hidden layer of a head that is given codes.


class Encoded(NamedTuple):
  """What an encoder gives of rows before any code is known.

  Attributes:
    features: `[N, F]`.
    heads: `[N, 2 D]`, means and log-variances of the factors that are given no
      other, one factor after the other.
  """

  features: jax.Array
  heads: jax.Array


class Encoder(nn.Module):
  """A network's encoder with the heads of a model's factors.

  The network's parameters lie next to those of the heads, not below a name of
  their own.

  Attributes:
    network: module from observations to features.
    num_heads: numbers of the factors that are given no other.
    given: (name, number of outputs) of the factors that are given others.
  """

  network: nn.Module
  num_heads: int
  given: tuple[tuple[str, int], ...] = ()

  def setup(self):
    nn.share_scope(self, self.network)
    self.heads = nn.Dense(self.num_heads)
    self.head_of = {name: _GivenHead(size) for name, size in self.given}

  def __call__(self, x: jax.Array, codes: dict[str, jax.Array]) -> None:
    """Calls everything, to initialise it; `codes` are those of the givens."""
    encoded = self.encode(x)
    for name, code in codes.items():
      self.head(name, encoded.features, code)

  def encode(self, x: jax.Array) -> Encoded:
    """Features and heads of rows `[N, ...]`."""
    features = flatten(self.network(x))
    return Encoded(features, self.heads(features))

  def head(self, name: str, features: jax.Array, codes: jax.Array
           ) -> jax.Array:
    """`[N, 2 D]` of a factor that is given codes `[N, D']`."""
    return self.head_of[name](features, codes)


class _GivenHead(nn.Module):
  """One hidden layer on features and codes."""

  num_outputs: int

  @nn.compact
  def __call__(self, features: jax.Array, codes: jax.Array) -> jax.Array:
    z = jnp.concatenate([features, codes.astype(features.dtype)], axis=-1)
    z = nn.silu(nn.Dense(_HEAD_SIZE, name='hidden')(z))
    return nn.Dense(self.num_outputs, name='heads')(z)
