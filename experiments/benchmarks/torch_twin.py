"""Our models in PyTorch, to time the two side by side (see `benchmark`).

A twin is built out of our parameters and computes the same functions in
PyTorch's own idiom: layers are torch.nn's, index_add accumulates evidence,
autocast computes in bfloat16, and what is fastest is chosen (channels-last
memory, fused Adam). On a GPU nothing is compiled: eager, as on a CPU.

Importing this module needs PyTorch, which nothing else does.
"""

from __future__ import annotations

from collections.abc import Mapping
import math
from typing import Any

import jax
import numpy as np
import torch
from torch import nn

from mlvae_jax.data.index_stream import IndexStream
from mlvae_jax.model.likelihoods.gaussian import Gaussian, LearnedGaussian
from mlvae_jax.model.model import Model, Params
from mlvae_jax.model.networks.mlp import MLP

_LOG_2PI = math.log(2.0 * math.pi)
_ACTIVATIONS = {'tanh': nn.Tanh, 'silu': nn.SiLU}

Pair = tuple[torch.Tensor, torch.Tensor]  # (mean, logvar).


class Twin(nn.Module):
  """The encoder, decoder and ELBO of a model; images are `[N, C, H, W]`."""

  def __init__(self, model: Model, params: Params, in_loop: bool = False):
    """Builds the twin.

    Args:
      model: has a likelihood and an activation known here, and no group norm.
      params: parameters of the model, or a tree like them (their gradient).
      in_loop: whether groups are combined one by one, as in the first author's
        published code.

    Raises:
      ValueError: on a model that has no twin.
    """
    super().__init__()
    if (not isinstance(model.likelihood, Gaussian | LearnedGaussian)
        or model.network.activation not in _ACTIVATIONS
        or getattr(model.network, 'norm_groups', 0)):
      raise ValueError(f'no twin of {model.likelihood} and {model.network}')
    self.model = model
    self._product = (
        product_of_normals_in_loop if in_loop else product_of_normals)
    make = _mlp if isinstance(model.network, MLP) else _conv
    self.encoder, self.decoder = make(model, jax.device_get(params))
    self.to(memory_format=torch.channels_last)

  def encode(self, x: torch.Tensor) -> dict[str, Pair]:
    """q(z_f | x_i) for every factor f, of images in [0, 1]."""
    dims = [dim for f in self.model.factors for dim in (f.dim, f.dim)]
    with self._autocast(x):
      joined = self.encoder(x)
    heads = iter(joined.float().split(dims, dim=-1))
    return {f.name: (next(heads), next(heads)) for f in self.model.factors}

  def decode(self, codes: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Codes `[N, D_f]` per factor to logits `[N, P, C, H, W]`."""
    z = torch.cat([codes[f.name] for f in self.model.factors], dim=-1)
    with self._autocast(z):
      return self.decoder(z).float()

  def log_prob(self, logits: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Log density `[N]` of images x."""
    likelihood, residual = self.model.likelihood, x - logits[:, 0]
    if isinstance(likelihood, Gaussian):
      squares = (residual / likelihood.sigma).square().flatten(1).sum(1)
      logvar = 2.0 * math.log(likelihood.sigma)
      return -0.5 * (squares + x[0].numel() * (logvar + _LOG_2PI))
    logvar = logits[:, 1].tanh()
    squares = (residual * torch.exp(-0.5 * logvar)).square()
    return -0.5 * (squares + logvar + _LOG_2PI).flatten(1).sum(1)

  def elbo(self, x: torch.Tensor, ids: torch.Tensor, num_groups: int,
           draw_noise=torch.randn_like) -> torch.Tensor:
    """Sum of the group ELBOs of a batch in which every group is present.

    Args:
      x: `[N, C, H, W]`, in [0, 1].
      ids: `[N]` int64, the group of each row.
      num_groups: G.
      draw_noise: maps a tensor to noise of its shape.

    Returns:
      A scalar.
    """
    codes, total_kl = {}, 0.0
    posteriors = self.encode(x)
    for factor in self.model.factors:
      mean, logvar = posteriors[factor.name]
      if factor.grouping is not None:
        mean, logvar = self._product((mean, logvar), ids, num_groups)
      total_kl = total_kl + _kl_divergence(mean, logvar)
      if factor.grouping is not None:
        mean, logvar = mean[ids], logvar[ids]
      codes[factor.name] = mean + torch.exp(0.5 * logvar) * draw_noise(mean)
    return self.log_prob(self.decode(codes), x).sum() - total_kl

  def _autocast(self, x: torch.Tensor) -> torch.autocast:
    """Computes networks in the model's type."""
    return torch.autocast(
        x.device.type, torch.bfloat16, enabled=self.model.dtype == 'bfloat16')


class Trainer:
  """Trains a twin on batches of an index stream."""

  def __init__(self, twin: Twin, images: np.ndarray, stream: IndexStream,
               learning_rate: float):
    """Prepares training.

    Args:
      twin: changed in place; the images are brought to its device.
      images: `[N, H, W, C]` uint8.
      stream: draws by one grouping, as many groups as a batch can hold.
      learning_rate: step size of Adam.
    """
    self._twin, self._stream = twin, stream
    self._device = next(twin.parameters()).device
    self._images = torch.from_numpy(images).to(self._device)
    self._adam = torch.optim.Adam(
        twin.parameters(), lr=learning_rate, fused=True)

  def chunk(self, start: int, stop: int) -> float:
    """Steps start to stop; returns the mean ELBO of a group in the last."""
    num_groups, = self._stream.num_groups.values()
    index = self._stream.batches(start, stop)
    group_ids, = index.group_ids.values()
    # One transfer to the device, which would wait for the host at each step.
    sizes = index.mask.sum(axis=1).tolist()
    of_steps = (
        torch.from_numpy(values[index.mask]).long().to(self._device).split(
            sizes) for values in (index.rows, group_ids))
    for rows, ids in zip(*of_steps):
      x = prepare(self._images[rows])
      loss = -self._twin.elbo(x, ids, num_groups) / num_groups
      self._adam.zero_grad()
      loss.backward()
      self._adam.step()
    return -loss.item()


def prepare(images: torch.Tensor) -> torch.Tensor:
  """Images `[N, H, W, C]` uint8 as `[N, C, H, W]` floats in [0, 1]."""
  # The memory stays as it is: channels last.
  return images.permute(0, 3, 1, 2).float() * (1.0 / 255.0)


def product_of_normals(q: Pair, ids: torch.Tensor, num_groups: int) -> Pair:
  """Multiplies the Normals of each group, none of which may be empty."""
  mean, logvar = q
  precision = torch.exp(-logvar)
  zeros = mean.new_zeros(num_groups, mean.shape[1])
  eta = zeros.index_add(0, ids, precision * mean)
  precision = zeros.index_add(0, ids, precision)
  return eta / precision, -torch.log(precision)


def product_of_normals_in_loop(q: Pair, ids: torch.Tensor, num_groups: int
                               ) -> Pair:
  """The same, one group after the other, and with a stable logarithm."""
  means, logvars = [], []
  for group in range(num_groups):
    mean, logvar = (value[ids == group] for value in q)
    logvars.append(-torch.logsumexp(-logvar, dim=0))
    means.append((torch.exp(logvars[-1] - logvar) * mean).sum(0))
  return torch.stack(means), torch.stack(logvars)


class _Centre(nn.Module):
  """From [0, 1] to [-1, 1], as our convolutional encoder does first."""

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return 2.0 * x - 1.0


def _kl_divergence(mean: torch.Tensor, logvar: torch.Tensor) -> torch.Tensor:
  return 0.5 * (torch.expm1(logvar) - logvar + mean.square()).sum()


def _mlp(model: Model, params: Params) -> tuple[nn.Module, nn.Module]:
  """Encoder and decoder of a `networks.MLP`."""
  shape = height, width, channels = model.observation_shape
  num_outputs = model.likelihood.num_outputs
  decoder = [
      *_hidden(model, params['decoder']),
      _linear(params['decoder']['pixels'], None, (num_outputs, *shape)),
      nn.Unflatten(1, (num_outputs, channels, height, width))]
  return (nn.Sequential(*_head(model, params['encoder'], shape)),
          nn.Sequential(*decoder))


def _conv(model: Model, params: Params) -> tuple[nn.Module, nn.Module]:
  """Encoder and decoder of a `networks.Conv`."""
  phi, theta = params['encoder'], params['decoder']
  activation = _ACTIVATIONS[model.network.activation]
  halvings = len(model.network.channels)
  *size, colours = model.observation_shape
  height, width = (side // 2 ** halvings for side in size)
  channels = model.network.channels[-1]
  grid = (height, width, channels)
  encoder = [_Centre()]
  for i in range(halvings):
    encoder += [_convolution(phi[f'down_{i}']), activation()]
  decoder = [*_hidden(model, theta), _linear(theta['grid'], None, grid),
             nn.Unflatten(1, (channels, height, width))]
  for name in [f'up_{i}' for i in range(halvings - 1)] + ['pixels']:
    decoder += [activation(), _transposed_convolution(theta[name])]
  decoder += [nn.Unflatten(1, (model.likelihood.num_outputs, colours))]
  return (nn.Sequential(*encoder, *_head(model, phi, grid)),
          nn.Sequential(*decoder))


def _head(model: Model, phi: Params, grid: tuple[int, ...]) -> list[nn.Module]:
  """What follows on a grid in an encoder, up to the posteriors."""
  hidden = _hidden(model, phi, grid)
  return [nn.Flatten(), *hidden,
          _linear(phi['heads'], None if hidden else grid)]


def _hidden(model: Model, params: Params, grid: tuple[int, ...] | None = None
            ) -> list[nn.Module]:
  """The hidden layers, the first of which may get a flat grid."""
  layers = []
  for i in range(len(model.network.hidden_sizes)):
    layers += [_linear(params[f'hidden_{i}'], None if i else grid),
               _ACTIVATIONS[model.network.activation]()]
  return layers


def _linear(layer: dict[str, Any], inputs: tuple[int, ...] | None = None,
            outputs: tuple[int, ...] | None = None) -> nn.Linear:
  """A dense layer, perhaps of inputs or outputs on `[..., H, W, C]` grids."""
  kernel, bias = layer['kernel'], layer['bias']
  if inputs is not None:
    kernel = kernel[_channels_first(inputs)]
  if outputs is not None:
    kernel, bias = (
        value[..., _channels_first(outputs)] for value in (kernel, bias))
  return _fill(nn.Linear(*kernel.shape), kernel.T, bias)


def _channels_first(grid: tuple[int, ...]) -> np.ndarray:
  """Where in a flat `[..., H, W, C]` grid the one of `[..., C, H, W]` is."""
  positions = np.arange(math.prod(grid)).reshape(grid)
  return np.moveaxis(positions, -1, -3).ravel()


def _convolution(layer: dict[str, Any]) -> nn.Conv2d:
  kernel = layer['kernel']
  return _fill(nn.Conv2d(*kernel.shape[2:], 4, 2, 1),
               kernel.transpose(3, 2, 0, 1), layer['bias'])


def _transposed_convolution(layer: dict[str, Any]) -> nn.ConvTranspose2d:
  # PyTorch spreads a pixel with its kernel, flax gathers with the flipped one.
  kernel = layer['kernel']
  return _fill(nn.ConvTranspose2d(*kernel.shape[2:], 4, 2, 1),
               kernel[::-1, ::-1].transpose(2, 3, 0, 1), layer['bias'])


def _fill(module: nn.Module, weight: np.ndarray, bias: np.ndarray) -> nn.Module:
  with torch.no_grad():
    module.weight.copy_(torch.tensor(weight.copy()))
    module.bias.copy_(torch.tensor(bias.copy()))
  return module
