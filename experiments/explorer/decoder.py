"""A decoder as steps and float16 weights, which decoder.js runs in a page.

Each step is a name and the sizes that its loops need; its weights follow those
of the step before it, kernel before bias. Only the means of pixels are decoded:
weights of the likelihood's other numbers are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import math
from typing import Any, NamedTuple

import numpy as np

from mlvae_jax.model.likelihoods.bernoulli import Bernoulli
from mlvae_jax.model.likelihoods.gaussian import Gaussian, LearnedGaussian
from mlvae_jax.model.likelihoods.laplace import Laplace
from mlvae_jax.model.model import Model, Params
from mlvae_jax.model.networks.conv import Conv
from mlvae_jax.model.networks.mlp import MLP

# What turns the decoder's first numbers into means, by likelihood.
_OUTPUTS = {Bernoulli: 'sigmoid', Gaussian: 'linear',
            LearnedGaussian: 'linear', Laplace: 'linear'}
_Step = tuple[dict[str, Any], list[np.ndarray]]


class Decoder(NamedTuple):
  """A decoder that a page can run.

  Attributes:
    steps: steps in their order, each a dict of JSON with its 'kind' and sizes.
    weights: the weights of all steps, float16, in the order of the steps.
    output: 'sigmoid' or 'linear', what makes means of the last step's numbers.
  """

  steps: list[dict[str, Any]]
  weights: np.ndarray
  output: str


def can_run(model: Model) -> bool:
  """Whether decoder.js has the loops for a model's network and likelihood."""
  return type(model.network) in (MLP, Conv) and (
      type(model.likelihood) in _OUTPUTS)


def of_model(model: Model, params: Params) -> Decoder:
  """The decoder of a model for which `can_run` holds."""
  layers = params['decoder']
  make = _conv if isinstance(model.network, Conv) else _mlp
  steps, weights = zip(*make(model, layers))
  return Decoder(
      list(steps), np.concatenate([
          np.asarray(array, np.float16).ravel()
          for arrays in weights for array in arrays]),
      _OUTPUTS[type(model.likelihood)])


def _mlp(model: Model, layers: Mapping[str, Any]) -> Iterator[_Step]:
  yield from _hidden(model, layers)
  yield _dense(layers['pixels'], math.prod(model.observation_shape))


def _conv(model: Model, layers: Mapping[str, Any]) -> Iterator[_Step]:
  network = model.network
  height, width, colours = model.observation_shape
  channels = network.channels[::-1]
  yield from _hidden(model, layers)
  yield _dense(layers['grid'])
  for i, before in enumerate(channels):
    if network.norm_groups:
      norm = layers[f'norm_{i}']
      yield ({'kind': 'norm', 'channels': before,
              'groups': network.norm_groups}, [norm['scale'], norm['bias']])
    yield {'kind': network.activation}, []
    scale = 2 ** (len(channels) - i)
    is_last = i == len(channels) - 1
    layer = layers['pixels' if is_last else f'up_{i}']
    after = colours if is_last else channels[i + 1]
    # Flipped: entry (a, b) of the kernel then lands on row 2 i - 1 + a and
    # column 2 j - 1 + b of the result. Means are the first of the channels.
    kernel = np.asarray(layer['kernel'])[::-1, ::-1, :, :after]
    yield ({'kind': 'upsample', 'height': height // scale,
            'width': width // scale, 'in': before, 'out': after},
           [kernel, np.asarray(layer['bias'])[:after]])


def _hidden(model: Model, layers: Mapping[str, Any]) -> Iterator[_Step]:
  for i in range(len(model.network.hidden_sizes)):
    yield _dense(layers[f'hidden_{i}'])
    yield {'kind': model.network.activation}, []


def _dense(layer: Mapping[str, Any], outputs: int | None = None) -> _Step:
  """A fully connected layer, of which the first outputs are kept."""
  kernel = np.asarray(layer['kernel'])[:, :outputs]
  return ({'kind': 'dense', 'in': kernel.shape[0], 'out': kernel.shape[1]},
          [kernel, np.asarray(layer['bias'])[:outputs]])
