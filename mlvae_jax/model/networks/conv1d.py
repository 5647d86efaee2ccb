"""Convolutional networks along one axis, for spectra, sound and sequences."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import math

from flax import linen as nn
import jax
import jax.numpy as jnp

from mlvae_jax.model.networks.network import (
    ACTIVATIONS,
    Network,
    check_layers,
    check_norm_groups,
    flatten,
    group_norm,
    hidden_layers,
)

_KERNEL_SIZE = 4
_STRIDE = 2


@dataclasses.dataclass(frozen=True)
class Conv1D(Network):
  """Convolutional networks for sequences `(length,)` or `(length, channels)`.

  The encoder halves the sequence with a convolution of width 4 and stride 2
  per entry of `channels`, then has fully connected hidden layers; the decoder
  mirrors it. Sequences may have any length: they are padded with zeros at the
  end, and the decoder's output is cut to their length.

  Attributes:
    channels: number of channels of each convolution of the encoder; the decoder
      has them in reverse order.
    hidden_sizes: number of units of each fully connected hidden layer of the
      encoder; the decoder has them in reverse order.
    activation: name of the activation function, in `ACTIVATIONS`.
    norm_groups: number of groups of channels in the group norm after every
      convolution but the last of the decoder; 0 for no norm.
  """

  channels: tuple[int, ...] = (32, 64, 128)
  hidden_sizes: tuple[int, ...] = (256,)
  activation: str = 'silu'
  norm_groups: int = 0

  def __post_init__(self):
    check_layers(self, 'channels', 'hidden_sizes')
    check_norm_groups(self.channels, self.norm_groups)

  def encoder(self, num_outputs: int, observation_shape: tuple[int, ...]
              ) -> nn.Module:
    """Module from sequences `[N, L, ...]` to the last layer's features."""
    del num_outputs
    _check_sequence(observation_shape)
    return Conv1DEncoder(
        self.channels, self.hidden_sizes, ACTIVATIONS[self.activation],
        self.norm_groups)

  def decoder(self, num_outputs: int, observation_shape: tuple[int, ...]
              ) -> nn.Module:
    """Module from codes `[N, D]` to `[N, num_outputs, L, ...]`."""
    _check_sequence(observation_shape)
    return Conv1DDecoder(
        self.channels[::-1], self.hidden_sizes[::-1],
        ACTIVATIONS[self.activation], self.norm_groups,
        (num_outputs, *observation_shape))


class Conv1DEncoder(nn.Module):
  """Convolutions of stride 2, then hidden layers."""

  channels: tuple[int, ...]
  hidden_sizes: tuple[int, ...]
  activation: Callable[[jax.Array], jax.Array]
  norm_groups: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    # For tokens, the likelihood's input has one more axis, the categories.
    x = x.reshape(*x.shape[:2], math.prod(x.shape[2:]))
    padding = -x.shape[1] % _STRIDE ** len(self.channels)
    x = jnp.pad(x, ((0, 0), (0, padding), (0, 0)))
    for i, features in enumerate(self.channels):
      x = nn.Conv(features, (_KERNEL_SIZE,), _STRIDE, name=f'down_{i}')(x)
      x = self.activation(group_norm(self.norm_groups, f'norm_{i}')(x))
    x = flatten(x)
    return hidden_layers(x, self.hidden_sizes, self.activation)


class Conv1DDecoder(nn.Module):
  """A hidden layer, a linear layer, transposed convolutions of stride 2."""

  channels: tuple[int, ...]
  hidden_sizes: tuple[int, ...]
  activation: Callable[[jax.Array], jax.Array]
  norm_groups: int
  output_shape: tuple[int, ...]

  @nn.compact
  def __call__(self, z: jax.Array) -> jax.Array:
    num_outputs, length, *rest = self.output_shape
    start = -(-length // _STRIDE ** len(self.channels))
    z = hidden_layers(z, self.hidden_sizes, self.activation)
    x = nn.Dense(start * self.channels[0], name='grid')(z)
    x = x.reshape(z.shape[0], start, self.channels[0])
    # The last convolution gives all numbers of an element as its channels.
    outputs = num_outputs * math.prod(rest)
    for i, features in enumerate((*self.channels[1:], outputs)):
      x = self.activation(group_norm(self.norm_groups, f'norm_{i}')(x))
      x = nn.ConvTranspose(
          features, (_KERNEL_SIZE,), (_STRIDE,), name=f'up_{i}')(x)
    x = x[:, :length].reshape(z.shape[0], length, num_outputs, *rest)
    return jnp.moveaxis(x, 2, 1)


def _check_sequence(observation_shape: tuple[int, ...]) -> None:
  if len(observation_shape) > 2:
    raise ValueError(
        'Conv1D is for sequences, expected observation_shape (length,) or '
        f'(length, channels), got {observation_shape}; use Conv for images, '
        'and MLP for other shapes')
