"""Encoder and decoder networks (flax.linen modules).

A network is described by a small frozen dataclass, such as `MLP`, that can be
written to JSON; it builds the two linen modules.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import math

from flax import linen as nn
import jax

ACTIVATIONS = {
    'tanh': nn.tanh,
    'relu': nn.relu,
    'gelu': nn.gelu,
    'silu': nn.silu,
    'softplus': nn.softplus,
}


@dataclasses.dataclass(frozen=True)
class MLP:
  """Fully connected networks; the paper's for MNIST with the defaults.

  Attributes:
    hidden_sizes: units of each hidden layer of the encoder. The decoder has
      them in reverse.
    activation: a name in `ACTIVATIONS`.
  """

  hidden_sizes: tuple[int, ...] = (500,)
  activation: str = 'tanh'

  def __post_init__(self):
    if self.activation not in ACTIVATIONS:
      raise ValueError(
          f'unknown activation {self.activation!r}, expected one of '
          + ', '.join(ACTIVATIONS))
    if any(size < 1 for size in self.hidden_sizes):
      raise ValueError(
          f'expected hidden sizes >= 1, got {list(self.hidden_sizes)}')

  def encoder(self, num_outputs: int) -> nn.Module:
    """Module from images `[N, H, W, C]` to `[N, num_outputs]`."""
    return MLPEncoder(
        self.hidden_sizes, ACTIVATIONS[self.activation], num_outputs)

  def decoder(self, num_outputs: int, image_shape: tuple[int, ...]
              ) -> nn.Module:
    """Module from codes `[N, D]` to `[N, num_outputs, H, W, C]`."""
    return MLPDecoder(
        self.hidden_sizes[::-1], ACTIVATIONS[self.activation],
        (num_outputs, *image_shape))


class MLPEncoder(nn.Module):
  """Flatten, hidden layers, one linear layer for all the heads."""

  hidden_sizes: tuple[int, ...]
  activation: Callable[[jax.Array], jax.Array]
  num_outputs: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = x.reshape(x.shape[0], -1)
    for i, size in enumerate(self.hidden_sizes):
      x = self.activation(nn.Dense(size, name=f'hidden_{i}')(x))
    return nn.Dense(self.num_outputs, name='heads')(x)


class MLPDecoder(nn.Module):
  """Hidden layers, one linear layer for all the numbers of all pixels."""

  hidden_sizes: tuple[int, ...]
  activation: Callable[[jax.Array], jax.Array]
  output_shape: tuple[int, ...]

  @nn.compact
  def __call__(self, z: jax.Array) -> jax.Array:
    for i, size in enumerate(self.hidden_sizes):
      z = self.activation(nn.Dense(size, name=f'hidden_{i}')(z))
    z = nn.Dense(math.prod(self.output_shape), name='pixels')(z)
    return z.reshape(z.shape[0], *self.output_shape)


Network = MLP

NETWORKS = {'mlp': MLP}
