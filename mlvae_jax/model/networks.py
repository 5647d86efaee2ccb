"""Encoder and decoder networks (flax.linen modules).

A network is described by a small frozen dataclass, `MLP` or `Conv`, which can
be written to JSON and builds the two linen modules. The names of layers are
keys of the parameters: a checkpoint fits only as long as they stay.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import math

from flax import linen as nn
import jax
import jax.numpy as jnp

from mlvae_jax.model.convolution import downsample, upsample

ACTIVATIONS = {
    'tanh': nn.tanh,
    'relu': nn.relu,
    'gelu': nn.gelu,
    'silu': nn.silu,
    'softplus': nn.softplus,
}


@dataclasses.dataclass(frozen=True)
class MLP:
  """Fully connected networks; with the defaults the paper's for MNIST.

  Attributes:
    hidden_sizes: number of units of each hidden layer of the encoder; the
      decoder has them in reverse order.
    activation: name of the activation function, in `ACTIVATIONS`.
  """

  hidden_sizes: tuple[int, ...] = (500,)
  activation: str = 'tanh'

  def __post_init__(self):
    _check(self.activation, 'hidden sizes', self.hidden_sizes)

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
  """Hidden layers, then one linear layer for all the heads."""

  hidden_sizes: tuple[int, ...]
  activation: Callable[[jax.Array], jax.Array]
  num_outputs: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = _flatten(x)
    for i, size in enumerate(self.hidden_sizes):
      x = self.activation(nn.Dense(size, name=f'hidden_{i}')(x))
    return nn.Dense(self.num_outputs, name='heads')(x)


class MLPDecoder(nn.Module):
  """Hidden layers, then one linear layer for all outputs of all pixels."""

  hidden_sizes: tuple[int, ...]
  activation: Callable[[jax.Array], jax.Array]
  output_shape: tuple[int, ...]

  @nn.compact
  def __call__(self, z: jax.Array) -> jax.Array:
    for i, size in enumerate(self.hidden_sizes):
      z = self.activation(nn.Dense(size, name=f'hidden_{i}')(z))
    z = nn.Dense(math.prod(self.output_shape), name='pixels')(z)
    return z.reshape(z.shape[0], *self.output_shape)


@dataclasses.dataclass(frozen=True)
class Conv:
  """Convolutional networks for images of 64x64, or any multiples of 16.

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
    _check(self.activation, 'channels and hidden sizes',
           (*self.channels, *self.hidden_sizes))
    if not self.channels:
      raise ValueError('expected channels of at least one convolution, got []')
    if self.norm_groups < 0 or self.norm_groups and any(
        c % self.norm_groups for c in self.channels):
      raise ValueError(
          f'expected norm_groups that divide the channels '
          f'{list(self.channels)}, got {self.norm_groups}')

  def encoder(self, num_outputs: int) -> nn.Module:
    """Module from images `[N, H, W, C]` to `[N, num_outputs]`."""
    return ConvEncoder(
        self.channels, self.hidden_sizes, ACTIVATIONS[self.activation],
        self.norm_groups, num_outputs)

  def decoder(self, num_outputs: int, image_shape: tuple[int, ...]
              ) -> nn.Module:
    """Module from codes `[N, D]` to `[N, num_outputs, H, W, C]`."""
    self._check_image(image_shape)
    return ConvDecoder(
        self.channels[::-1], self.hidden_sizes[::-1],
        ACTIVATIONS[self.activation], self.norm_groups,
        (num_outputs, *image_shape))

  def _check_image(self, image_shape: tuple[int, ...]) -> None:
    multiple = 2 ** len(self.channels)
    if any(size % multiple for size in image_shape[:2]):
      raise ValueError(
          f'{len(self.channels)} convolutions of stride 2 need images whose '
          f'sides are multiples of {multiple}, got {list(image_shape[:2])}')


class ConvEncoder(nn.Module):
  """Convolutions of stride 2, a hidden layer, a linear layer for all heads."""

  channels: tuple[int, ...]
  hidden_sizes: tuple[int, ...]
  activation: Callable[[jax.Array], jax.Array]
  norm_groups: int
  num_outputs: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    x = 2.0 * x - 1.0  # Centred: initial kernels assume inputs around 0.
    for i, features in enumerate(self.channels):
      x = Downsample(features, name=f'down_{i}')(x)
      x = self.activation(_group_norm(self.norm_groups, f'norm_{i}')(x))
    x = _flatten(x)
    for i, size in enumerate(self.hidden_sizes):
      x = self.activation(nn.Dense(size, name=f'hidden_{i}')(x))
    return nn.Dense(self.num_outputs, name='heads')(x)


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
    for i, size in enumerate(self.hidden_sizes):
      z = self.activation(nn.Dense(size, name=f'hidden_{i}')(z))
    x = nn.Dense(math.prod(shape), name='grid')(z)
    x = x.reshape(z.shape[0], *shape)
    for i, features in enumerate(self.channels[1:]):
      x = self.activation(_group_norm(self.norm_groups, f'norm_{i}')(x))
      x = Upsample(features, name=f'up_{i}')(x)
    x = self.activation(
        _group_norm(self.norm_groups, f'norm_{len(self.channels) - 1}')(x))
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


Network = MLP | Conv

NETWORKS = {'mlp': MLP, 'conv': Conv}


def _flatten(x: jax.Array) -> jax.Array:
  """Images `[N, H, W, C]` as `[N, H * W * C]`."""
  # The size is spelt out: reshape cannot infer a -1 where N is 0.
  return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def _group_norm(num_groups: int, name: str) -> Callable[[jax.Array], jax.Array]:
  if not num_groups:
    return lambda x: x
  return nn.GroupNorm(num_groups, name=name)


def _check(activation: str, what: str, sizes: tuple[int, ...]) -> None:
  if activation not in ACTIVATIONS:
    raise ValueError(
        f'unknown activation {activation!r}, expected one of '
        + ', '.join(ACTIVATIONS))
  if any(size < 1 for size in sizes):
    raise ValueError(f'expected {what} >= 1, got {list(sizes)}')
