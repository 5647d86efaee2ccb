"""Convolutional networks, for images."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import math

from flax import linen as nn
import jax
import jax.numpy as jnp

from mlvae_jax.model.convolution import downsample, upsample
from mlvae_jax.model.networks.network import (
    ACTIVATIONS,
    Network,
    check_layers,
    check_norm_groups,
    flatten,
    group_norm,
    hidden_layers,
)


@dataclasses.dataclass(frozen=True)
class Conv(Network):
  """Convolutional networks for images, such as 64x64 pixels.

  The encoder halves the image with a 4x4 convolution of stride 2 per entry of
  `channels`, then has fully connected hidden layers; the decoder mirrors it.
  Nothing is normalised over the batch: that would leak between groups.

  Attributes:
    channels: number of channels of each convolution of the encoder; the decoder
      has them in reverse order. Sides of images must be multiples of
      2 ** len(channels).
    hidden_sizes: number of units of each fully connected hidden layer of the
      encoder; the decoder has them in reverse order.
    activation: name of the activation function, in `ACTIVATIONS`.
    norm_groups: number of groups of channels in the group norm after every
      convolution but the last of the decoder; 0 for no norm.
  """

  channels: tuple[int, ...] = (32, 64, 128, 256)
  hidden_sizes: tuple[int, ...] = (256,)
  activation: str = 'silu'
  norm_groups: int = 0

  def __post_init__(self):
    check_layers(self, 'channels', 'hidden_sizes')
    check_norm_groups(self.channels, self.norm_groups)

  def encoder(self, num_outputs: int, observation_shape: tuple[int, ...]
              ) -> nn.Module:
    """Module from images `[N, H, W, C]` to the last layer's features."""
    del num_outputs
    self._check_image(observation_shape)
    return ConvEncoder(
        self.channels, self.hidden_sizes, ACTIVATIONS[self.activation],
        self.norm_groups)

  def decoder(self, num_outputs: int, observation_shape: tuple[int, ...]
              ) -> nn.Module:
    """Module from codes `[N, D]` to `[N, num_outputs, H, W, C]`."""
    self._check_image(observation_shape)
    return ConvDecoder(
        self.channels[::-1], self.hidden_sizes[::-1],
        ACTIVATIONS[self.activation], self.norm_groups,
        (num_outputs, *observation_shape))

  def _check_image(self, observation_shape: tuple[int, ...]) -> None:
    if len(observation_shape) != 3:
      raise ValueError(
          'Conv is for images, expected observation_shape (height, width, '
          f'channels), got {observation_shape}; use Conv1D for sequences, and '
          'MLP for other shapes')
    multiple = 2 ** len(self.channels)
    if any(size % multiple for size in observation_shape[:2]):
      raise ValueError(
          f'{len(self.channels)} convolutions of stride 2 need images whose '
          f'sides are multiples of {multiple}, got '
          f'{list(observation_shape[:2])}')


class ConvEncoder(nn.Module):
  """Convolutions of stride 2, then hidden layers."""

  channels: tuple[int, ...]
  hidden_sizes: tuple[int, ...]
  activation: Callable[[jax.Array], jax.Array]
  norm_groups: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    # For tokens, the likelihood's input has one more axis, the categories.
    x = x.reshape(*x.shape[:3], math.prod(x.shape[3:]))
    x = 2.0 * x - 1.0  # Centred: initial kernels assume inputs around 0.
    for i, features in enumerate(self.channels):
      x = Downsample(features, name=f'down_{i}')(x)
      x = self.activation(group_norm(self.norm_groups, f'norm_{i}')(x))
    x = flatten(x)
    return hidden_layers(x, self.hidden_sizes, self.activation)


class ConvDecoder(nn.Module):
  """A hidden layer, a linear layer, transposed convolutions of stride 2."""

  channels: tuple[int, ...]
  hidden_sizes: tuple[int, ...]
  activation: Callable[[jax.Array], jax.Array]
  norm_groups: int
  output_shape: tuple[int, ...]

  @nn.compact
  def __call__(self, z: jax.Array) -> jax.Array:
    # The encoder's shapes in reverse, from a grid of 1 / scale of the image.
    per_pixel, height, width, colours = self.output_shape
    scale = 2 ** len(self.channels)
    shape = (height // scale, width // scale, self.channels[0])
    z = hidden_layers(z, self.hidden_sizes, self.activation)
    x = nn.Dense(math.prod(shape), name='grid')(z)
    x = x.reshape(z.shape[0], *shape)
    for i, features in enumerate(self.channels[1:]):
      x = self.activation(group_norm(self.norm_groups, f'norm_{i}')(x))
      x = Upsample(features, name=f'up_{i}')(x)
    x = self.activation(
        group_norm(self.norm_groups, f'norm_{len(self.channels) - 1}')(x))
    # One convolution gives all numbers of a pixel as its channels; likelihoods
    # want each kind of number as an image of its own.
    x = Upsample(per_pixel * colours, name='pixels')(x)
    x = x.reshape(z.shape[0], height, width, per_pixel, colours)
    return jnp.moveaxis(x, 3, 1)


class _Resample(nn.Module):
  """A function of `convolution.py`, with parameters for kernel and bias."""

  features: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    # Names, shapes and initial values are those of `nn.Conv`.
    kernel = self.param(
        'kernel', nn.linear.default_kernel_init,
        (4, 4, x.shape[-1], self.features))
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    return self.convolve(x, kernel) + bias


class Downsample(_Resample):
  """As `nn.Conv` with a 4x4 kernel and stride 2; parameters are the same."""

  convolve = staticmethod(downsample)


class Upsample(_Resample):
  """As `nn.ConvTranspose`, 4x4 and stride 2; parameters are the same."""

  convolve = staticmethod(upsample)
