"""The contract of networks: a description that builds encoder and decoder.

A network is a small frozen dataclass, which can be written to JSON and builds
two flax.linen modules. They know nothing of factors: the heads, which make
posteriors of the encoder's features, belong to the model. The names of layers
are keys of the parameters: a checkpoint fits only as long as they stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
import math
from typing import Any, ClassVar

from flax import linen as nn
import jax

from mlvae_jax.grouping.checks import check_count

ACTIVATIONS = {
    'tanh': nn.tanh,
    'relu': nn.relu,
    'gelu': nn.gelu,
    'silu': nn.silu,
    'softplus': nn.softplus,
}


class Network:
  """Builds the modules of a model.

  Each is a frozen dataclass, named in `registry.NETWORKS`. Nothing in it may be
  normalised over the batch: that would leak between groups.

  Attributes:
    takes_tokens: whether the encoder takes tokens as integers `[N, ...]`, -1
      for padding, instead of one-hot.
  """

  takes_tokens: ClassVar[bool] = False

  def encoder(self, num_outputs: int, observation_shape: tuple[int, ...]
              ) -> nn.Module:
    """Module from observations to features `[N, F]`.

    Its input is the likelihood's `encoder_input`, floats `[N, ...]`, for tokens
    with one more axis; or integers, if `takes_tokens`.

    Args:
      num_outputs: number of values that the decoder gives per element of an
        observation; for tokens this is the number of categories.
      observation_shape: `(...)`.

    Returns:
      The module.

    Raises:
      ValueError: where the network cannot take such observations.
    """
    raise NotImplementedError

  def decoder(self, num_outputs: int, observation_shape: tuple[int, ...]
              ) -> nn.Module:
    """Module from codes `[N, D]` to `[N, num_outputs, ...]`.

    Args:
      num_outputs: number of values per element of an observation.
      observation_shape: `(...)`.

    Returns:
      The module.

    Raises:
      ValueError: where the network cannot make such observations.
    """
    raise NotImplementedError


def flatten(x: jax.Array) -> jax.Array:
  """Rows `[N, ...]` as `[N, size]`."""
  # The size is spelt out: reshape cannot infer a -1 where N is 0.
  return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def hidden_layers(x: jax.Array, sizes: tuple[int, ...],
                  activation: Callable[[jax.Array], jax.Array]) -> jax.Array:
  """Fully connected layers of the module that calls this, `[N, F]`."""
  for i, size in enumerate(sizes):
    x = activation(nn.Dense(size, name=f'hidden_{i}')(x))
  return x


def check_layers(network: Any, *names: str) -> None:
  """Checks a network's activation, and sizes of its layers.

  Sizes become tuples of Python's integers, so that the network can be hashed,
  and written as JSON.

  Args:
    network: frozen dataclass with an attribute `activation`.
    *names: names of its attributes that hold a size per layer.

  Raises:
    ValueError: on an unknown activation, or sizes that are not whole numbers of
      at least 1.
  """
  if network.activation not in ACTIVATIONS:
    raise ValueError(
        f'unknown activation {network.activation!r}, expected one of '
        + ', '.join(ACTIVATIONS))
  for name in names:
    sizes = getattr(network, name)
    if not isinstance(sizes, Iterable):
      raise ValueError(
          f'expected {name} as a tuple of a size per layer, such as (64, 64), '
          f'got {sizes!r}')
    object.__setattr__(
        network, name, tuple(check_count(size, name) for size in sizes))


def group_norm(num_groups: int, name: str) -> Callable[[jax.Array], jax.Array]:
  """A group norm within each row, or with 0 groups nothing."""
  if not num_groups:
    return lambda x: x
  return nn.GroupNorm(num_groups, name=name)


def check_norm_groups(channels: tuple[int, ...], norm_groups: int) -> None:
  """Raises a ValueError without convolutions, or on groups that do not fit."""
  if not channels:
    raise ValueError('expected channels of at least one convolution, got []')
  if norm_groups < 0 or norm_groups and any(c % norm_groups for c in channels):
    raise ValueError(
        f'expected norm_groups that divide the channels {list(channels)}, got '
        f'{norm_groups}')
