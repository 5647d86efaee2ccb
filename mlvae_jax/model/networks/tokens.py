"""Networks for tokens, such as letters of a word or bases of a sequence."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import math

from flax import linen as nn
import jax
import jax.numpy as jnp

from mlvae_jax.grouping.checks import check_count
from mlvae_jax.model.networks.network import (
    ACTIVATIONS,
    Network,
    check_layers,
    flatten,
    hidden_layers,
)


@dataclasses.dataclass(frozen=True)
class Tokens(Network):
  """Embeds each token, then has fully connected layers over all positions.

  The decoder mirrors the encoder: hidden layers, an embedding per position,
  and from it a logit per category, by a layer that all positions share. So both
  need fewer parameters than `MLP` has for one-hot tokens.

  Attributes:
    embedding_size: number of values that represent a token.
    hidden_sizes: number of units of each hidden layer of the encoder; the
      decoder has them in reverse order.
    activation: name of the activation function, in `ACTIVATIONS`.
  """

  embedding_size: int = 32
  hidden_sizes: tuple[int, ...] = (256,)
  activation: str = 'silu'

  takes_tokens = True

  def __post_init__(self):
    check_layers(self, 'hidden_sizes')
    object.__setattr__(self, 'embedding_size', check_count(
        self.embedding_size, 'embedding_size'))

  def encoder(self, num_outputs: int, observation_shape: tuple[int, ...]
              ) -> nn.Module:
    """Module from tokens `[N, ...]` to the last layer's features."""
    del observation_shape
    return TokensEncoder(num_outputs, self.embedding_size, self.hidden_sizes,
                         ACTIVATIONS[self.activation])

  def decoder(self, num_outputs: int, observation_shape: tuple[int, ...]
              ) -> nn.Module:
    """Module from codes `[N, D]` to logits `[N, num_outputs, ...]`."""
    return TokensDecoder(
        self.embedding_size, self.hidden_sizes[::-1],
        ACTIVATIONS[self.activation], (num_outputs, *observation_shape))


class TokensEncoder(nn.Module):
  """An embedding, then hidden layers."""

  num_categories: int
  embedding_size: int
  hidden_sizes: tuple[int, ...]
  activation: Callable[[jax.Array], jax.Array]

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    if not jnp.issubdtype(x.dtype, jnp.integer):
      raise ValueError('Tokens is for the likelihood Categorical; use MLP, '
                       'Conv or Conv1D for others')
    embed = nn.Embed(self.num_categories, self.embedding_size, name='embed')
    x = jnp.where(x[..., None] < 0, 0.0, embed(jnp.maximum(x, 0)))  # Padding.
    x = flatten(x)
    return hidden_layers(x, self.hidden_sizes, self.activation)


class TokensDecoder(nn.Module):
  """Hidden layers, an embedding per position, a logit per category."""

  embedding_size: int
  hidden_sizes: tuple[int, ...]
  activation: Callable[[jax.Array], jax.Array]
  output_shape: tuple[int, ...]

  @nn.compact
  def __call__(self, z: jax.Array) -> jax.Array:
    num_categories, *shape = self.output_shape
    z = hidden_layers(z, self.hidden_sizes, self.activation)
    z = nn.Dense(math.prod(shape) * self.embedding_size, name='places')(z)
    z = self.activation(z.reshape(z.shape[0], *shape, self.embedding_size))
    z = nn.Dense(num_categories, name='logits')(z)
    return jnp.moveaxis(z, -1, 1)
