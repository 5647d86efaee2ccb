"""The contract of networks: a description that builds encoder and decoder.

A network is a small frozen dataclass, which can be written to JSON and builds
two flax.linen modules. They know nothing of factors: the heads, which make
posteriors of the encoder's features, belong to the model. The names of layers
are keys of the parameters: a checkpoint fits only as long as they stay.
"""

from __future__ import annotations

import math
from typing import ClassVar

from flax import linen as nn
import jax

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
    takes_tokens: whether the encoder takes observations as they are, instead
      of as the likelihood's `encoder_input` gives them.
  """

  takes_tokens: ClassVar[bool] = False

  def encoder(self) -> nn.Module:
    """Module from observations `[N, ...]` to features `[N, F]`."""
    raise NotImplementedError

  def decoder(self, num_outputs: int, observation_shape: tuple[int, ...]
              ) -> nn.Module:
    """Module from codes `[N, D]` to `[N, num_outputs, ...]`.

    Args:
      num_outputs: how many numbers per element of an observation.
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


def check_layers(activation: str, what: str, sizes: tuple[int, ...]) -> None:
  """Raises a ValueError on an unknown activation, or a size below 1."""
  if activation not in ACTIVATIONS:
    raise ValueError(
        f'unknown activation {activation!r}, expected one of '
        + ', '.join(ACTIVATIONS))
  if any(size < 1 for size in sizes):
    raise ValueError(f'expected {what} >= 1, got {list(sizes)}')
