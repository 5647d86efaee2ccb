"""Fully connected networks, for observations of any shape."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import math

from flax import linen as nn
import jax

from mlvae_jax.model.networks.network import (
    ACTIVATIONS,
    Network,
    check_layers,
    flatten,
    hidden_layers,
)


@dataclasses.dataclass(frozen=True)
class MLP(Network):
  """Fully connected networks; the defaults are the paper's for MNIST.

  Attributes:
    hidden_sizes: number of units of each hidden layer of the encoder; the
      decoder has them in reverse order.
    activation: name of the activation function, in `ACTIVATIONS`.
  """

  hidden_sizes: tuple[int, ...] = (500,)
  activation: str = 'tanh'

  def __post_init__(self):
    check_layers(self, 'hidden_sizes')

  def encoder(self, num_outputs: int, observation_shape: tuple[int, ...]
              ) -> nn.Module:
    """Module from rows `[N, ...]` to the last layer's features."""
    del num_outputs, observation_shape  # It takes whatever it is given.
    return MLPEncoder(self.hidden_sizes, ACTIVATIONS[self.activation])

  def decoder(self, num_outputs: int, observation_shape: tuple[int, ...]
              ) -> nn.Module:
    """Module from codes `[N, D]` to `[N, num_outputs, ...]`."""
    return MLPDecoder(
        self.hidden_sizes[::-1], ACTIVATIONS[self.activation],
        (num_outputs, *observation_shape))


class MLPEncoder(nn.Module):
  """Flattens observations; then hidden layers."""

  hidden_sizes: tuple[int, ...]
  activation: Callable[[jax.Array], jax.Array]

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = flatten(x)
    return hidden_layers(x, self.hidden_sizes, self.activation)


class MLPDecoder(nn.Module):
  """Hidden layers, then one linear layer for all outputs of all elements."""

  hidden_sizes: tuple[int, ...]
  activation: Callable[[jax.Array], jax.Array]
  output_shape: tuple[int, ...]

  @nn.compact
  def __call__(self, z: jax.Array) -> jax.Array:
    z = hidden_layers(z, self.hidden_sizes, self.activation)
    z = nn.Dense(math.prod(self.output_shape), name='pixels')(z)
    return z.reshape(z.shape[0], *self.output_shape)
