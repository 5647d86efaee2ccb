"""Custom networks: any flax.linen modules, or pairs of pure functions."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any

from flax import errors
from flax import linen as nn
import jax
import jax.numpy as jnp

from mlvae_jax.model.networks.mlp import MLP
from mlvae_jax.model.networks.network import Network

# A module, or (init, apply): init(key, x) gives parameters, a pytree of arrays,
# and apply(parameters, x) the output.
Own = nn.Module | tuple[Callable[..., Any], Callable[..., Any]]


@dataclasses.dataclass(frozen=True)
class Modules(Network):
  """A custom encoder, decoder or both; `Model` makes it from its arguments.

  Custom modules need not know about factors or the likelihood's parameters: the
  heads belong to the model, and outputs may have their numbers per element in
  any of three places, see `OwnDecoder`.

  Attributes:
    own_encoder: the encoder, or None for that of `base`.
    own_decoder: the decoder, or None for that of `base`.
    base: network that is used for what is None here.
  """

  own_encoder: Own | None = None
  own_decoder: Own | None = None
  base: Network = MLP()

  def __post_init__(self):
    for name, own in (('encoder', self.own_encoder),
                      ('decoder', self.own_decoder)):
      if own is not None:
        _check_own(name, own)

  def __hash__(self):
    # A module with a list, as in nn.Sequential, cannot be hashed; equality
    # still compares all of it.
    return hash(tuple(_hash(own)
                      for own in (self.own_encoder, self.own_decoder)))

  @property
  def takes_tokens(self) -> bool:
    """A custom encoder takes tokens as integers."""
    return self.own_encoder is not None or self.base.takes_tokens

  def encoder(self, num_outputs: int, observation_shape: tuple[int, ...]
              ) -> nn.Module:
    """Module from observations `[N, ...]` to features `[N, ...]`."""
    if self.own_encoder is None:
      return self.base.encoder(num_outputs, observation_shape)
    return OwnEncoder(_module(self.own_encoder))

  def decoder(self, num_outputs: int, observation_shape: tuple[int, ...]
              ) -> nn.Module:
    """Module from codes `[N, D]` to `[N, num_outputs, ...]`."""
    if self.own_decoder is None:
      return self.base.decoder(num_outputs, observation_shape)
    return OwnDecoder(_module(self.own_decoder),
                      (num_outputs, *observation_shape))

  def __str__(self) -> str:
    return ', '.join(
        f'{what} {_name(own)}' for what, own in (
            ('encoder', self.own_encoder), ('decoder', self.own_decoder))
        if own is not None)


class OwnEncoder(nn.Module):
  """Keeps the parameters of an encoder under a name of their own."""

  own: nn.Module

  def __call__(self, x: jax.Array) -> jax.Array:
    features = _call('encoder', self.own, x)
    if features.ndim < 2 or features.shape[0] != x.shape[0]:
      raise ValueError(
          'expected the encoder to return features [N, F], got '
          f'{list(features.shape)} for N = {x.shape[0]}; return one row of '
          'features per observation')
    return features


class OwnDecoder(nn.Module):
  """Puts a decoder's numbers per element where likelihoods expect them.

  An observation has the shape `[..., C]`, with P numbers for each element. The
  decoder may give `[N, P, ..., C]`; or `[N, ..., P C]`, the last axis by P
  first, as convolutions do; or, if P is 1, `[N, ..., C]`; or everything as
  `[N, size]`, as a linear layer does.
  """

  own: nn.Module
  output_shape: tuple[int, ...]

  def __call__(self, z: jax.Array) -> jax.Array:
    outputs = _call('decoder', self.own, z)
    num, *before, last = self.output_shape
    rows = z.shape[0]
    whole, channels = (rows, num, *before, last), (rows, *before, num * last)
    flat = rows, num * last
    for size in before:
      flat = rows, flat[1] * size
    if outputs.shape == channels:  # With num = 1 also without its axis.
      outputs = outputs.reshape(rows, *before, num, last)
      return jnp.moveaxis(outputs, -2, 1)
    if outputs.shape in (whole, flat):
      return outputs.reshape(whole)
    expected = ', '.join(dict.fromkeys(
        str(['N', *shape[1:]]).replace("'", '')
        for shape in (whole, channels, flat)))
    raise ValueError(
        f'expected the decoder to return {expected}, with P = {num} numbers '
        f'per element for the likelihood, got {list(outputs.shape)} for '
        f'N = {rows}')


class _Pair(nn.Module):
  """A pair of pure functions as a module; all parameters are one entry."""

  init_params: Callable[..., Any]
  apply_params: Callable[..., Any]

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    if self.has_variable('params', 'own'):
      return self.apply_params(self.get_variable('params', 'own'), x)
    params = self.param('own', self.init_params, x)
    if not all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(params)):
      raise ValueError('expected init(key, x) to give a pytree of arrays only, '
                       f'got {jax.tree.map(type, params)}')
    return self.apply_params(params, x)


def _call(what: str, own: nn.Module, x: jax.Array) -> jax.Array:
  try:
    outputs = own(x)
  except errors.InvalidRngError as error:
    raise ValueError(
        f'the {what} draws random numbers, as dropout does, but codes and '
        'outputs must be functions of their inputs; switch it off '
        '(deterministic=True)') from error
  if not hasattr(outputs, 'dtype') or not jnp.issubdtype(
      outputs.dtype, jnp.floating):
    raise ValueError(f'expected the {what} to return one array of floats, got '
                     f'{getattr(outputs, "dtype", type(outputs).__name__)}')
  return outputs


def _check_own(name: str, own: Any) -> None:
  if isinstance(own, nn.Module) or (
      isinstance(own, tuple) and len(own) == 2 and all(map(callable, own))):
    return
  hint = ', an instance and not a class' if isinstance(own, type) else ''
  raise ValueError(
      f'expected {name} to be a flax.linen module{hint}, or a pair of pure '
      f'functions (init, apply), got {own!r}')


def _module(own: Own) -> nn.Module:
  return own if isinstance(own, nn.Module) else _Pair(*own)


def _hash(own: Own | None) -> int:
  try:
    return hash(own)
  except TypeError:
    return hash(type(own))


def _name(own: Own) -> str:
  """A name that is the same in every process."""
  named = type(own) if isinstance(own, nn.Module) else own[1]
  module = getattr(named, '__module__', '')
  return f'{module}.{getattr(named, "__qualname__", type(named).__name__)}'
