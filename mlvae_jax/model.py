"""The model: what the factors are, and the pure functions between x and z.

A `Model` is static and hashable; parameters are a plain dict with the keys
'encoder' (phi) and 'decoder' (theta), so that every function below goes
through `jit`, `vmap`, `grad` and `pmap` with the model closed over or static.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mlvae_jax import factors as factors_lib
from mlvae_jax.factors import Factor
from mlvae_jax.group_posteriors import GROUP_POSTERIORS
from mlvae_jax.likelihoods import LIKELIHOODS, LearnedGaussian, Likelihood
from mlvae_jax.networks import MLP, NETWORKS, Network
from mlvae_jax.normal import Normal

INFERENCE = ('encoder', 'svi')
DTYPES = ('float32', 'bfloat16')
Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Model:
  """A Multi-Level VAE, or with a single ungrouped factor a VAE.

  Attributes:
    factors: the latent factors; the joined code z has them in this order.
    image_shape: (height, width, channels).
    likelihood: p(x | z).
    network: what encoder and decoder look like.
    group_posterior: how members make up their group's posterior, one of
      `group_posteriors.GROUP_POSTERIORS`.
    inference: 'encoder', or 'svi' for a model without one, whose posteriors
      are found by optimisation (see `svi`).
    dtype: in which the networks compute, one of `DTYPES`. Parameters, what
      comes out of the networks, evidence and losses are float32 in any case.
  """

  factors: tuple[Factor, ...]
  image_shape: tuple[int, int, int]
  likelihood: Likelihood = LearnedGaussian()
  network: Network = MLP()
  group_posterior: str = 'product'
  inference: str = 'encoder'
  dtype: str = 'float32'

  def __post_init__(self):
    factors_lib.check_factors(self.factors)
    if len(self.image_shape) != 3 or min(self.image_shape) < 1:
      raise ValueError(
          'expected image_shape (height, width, channels), got '
          f'{self.image_shape}')
    for name, known in (('group_posterior', GROUP_POSTERIORS),
                        ('inference', INFERENCE), ('dtype', DTYPES)):
      if getattr(self, name) not in known:
        raise ValueError(
            f'expected {name} of {known}, got {getattr(self, name)!r}')
    _ = self._decoder  # Raises where the network cannot draw such images.

  @property
  def grouped(self) -> tuple[Factor, ...]:
    """The factors that groups share."""
    return tuple(f for f in self.factors if f.grouping is not None)

  def factor(self, name: str | None = None) -> Factor:
    """The factor of that name; without one, the only grouped factor.

    Args:
      name: optional name.

    Returns:
      The factor.

    Raises:
      ValueError: when there is no such factor, or no single grouped one.
    """
    names = [f.name for f in self.factors]
    if name is not None:
      if name not in names:
        raise ValueError(f'no factor {name!r}, expected one of {names}')
      return self.factors[names.index(name)]
    if len(self.grouped) != 1:
      raise ValueError(
          f'the model has {len(self.grouped)} grouped factors, name one of '
          f'{names}')
    return self.grouped[0]

  def init(self, key: jax.Array) -> Params:
    """Initial parameters {'encoder': phi, 'decoder': theta}.

    Without an encoder of the decoder alone.
    """
    encoder_key, decoder_key = jax.random.split(key)
    x = jnp.zeros((1, *self.image_shape))
    z = jnp.zeros((1, sum(f.dim for f in self.factors)))
    params = {'decoder': self._decoder.init(decoder_key, z)['params']}
    if self.inference == 'encoder':
      params['encoder'] = self._encoder.init(encoder_key, x)['params']
    return params

  def encode(self, params: Params, images: jax.Array) -> dict[str, Normal]:
    """Encodes each image alone: q(z_f | x_i) for every factor f.

    Args:
      params: as `init` gives them.
      images: `[N, H, W, C]`, uint8 or float in [0, 1].

    Returns:
      Normal of `[N, D_f]` per factor name.

    Raises:
      ValueError: on a wrong shape, dtype or (where concrete) range, or where
        the model has no encoder.
    """
    if self.inference != 'encoder':
      raise ValueError(
          'the model has no encoder; infer its posteriors, as '
          'mlvae_jax.posteriors does')
    x = self.to_float(images)
    heads = self._apply(self._encoder, params['encoder'], x)
    posteriors, start = {}, 0
    for factor in self.factors:
      mean, logvar = jnp.split(
          heads[:, start:start + 2 * factor.dim], 2, axis=-1)
      posteriors[factor.name] = Normal(mean, logvar)
      start += 2 * factor.dim
    return posteriors

  def decode(self, params: Params, codes: dict[str, jax.Array]) -> jax.Array:
    """Decodes codes `[N, D_f]` per factor into logits `[N, P, H, W, C]`."""
    z = jnp.concatenate([codes[f.name] for f in self.factors], axis=-1)
    return self._apply(self._decoder, params['decoder'], z)

  def to_float(self, images: jax.Array) -> jax.Array:
    """Checks images `[N, H, W, C]`; returns them as float in [0, 1]."""
    images = jnp.asarray(images)
    if images.ndim != 4 or images.shape[1:] != self.image_shape:
      raise ValueError(
          f'expected images of [N, {", ".join(map(str, self.image_shape))}], '
          f'got {list(images.shape)}')
    if images.dtype == jnp.uint8:
      return images.astype(jnp.float32) * np.float32(1.0 / 255.0)
    if not jnp.issubdtype(images.dtype, jnp.floating):
      raise ValueError(
          f'expected uint8 images, or float in [0, 1], got {images.dtype}')
    if images.size and not isinstance(images, jax.core.Tracer):
      low, high = float(images.min()), float(images.max())
      if not (low >= 0.0 and high <= 1.0):  # NaN is neither.
        raise ValueError(
            'expected float images in [0, 1], got values from '
            f'{low:g} to {high:g}; divide by 255, or pass uint8')
    return images

  def to_dict(self) -> dict[str, Any]:
    """Plain JSON form, read back by `from_dict`."""
    return {
        'factors': [dataclasses.asdict(f) for f in self.factors],
        'image_shape': list(self.image_shape),
        'likelihood': _named(self.likelihood, LIKELIHOODS),
        'network': _named(self.network, NETWORKS),
        'group_posterior': self.group_posterior,
        'inference': self.inference,
        'dtype': self.dtype,
    }

  @staticmethod
  def from_dict(config: dict[str, Any]) -> Model:
    """Builds a model from what `to_dict` gave, or JSON made of it."""
    return Model(
        tuple(Factor(**f) for f in config['factors']),
        tuple(config['image_shape']),
        _build(config['likelihood'], LIKELIHOODS),
        _build(config['network'], NETWORKS),
        config.get('group_posterior', 'product'),
        config.get('inference', 'encoder'),
        config.get('dtype', 'float32'))

  def _apply(self, network: nn.Module, params: Any, x: jax.Array) -> jax.Array:
    """Runs a network in `dtype`; what it gives has the type of x again."""
    if self.dtype == 'float32':
      return network.apply({'params': params}, x)
    params, low = jax.tree.map(
        lambda value: value.astype(self.dtype), (params, x))
    return network.apply({'params': params}, low).astype(x.dtype)

  @property
  def _encoder(self):
    return self.network.encoder(2 * sum(f.dim for f in self.factors))

  @property
  def _decoder(self):
    return self.network.decoder(
        self.likelihood.num_outputs, self.image_shape)


def _named(value: Any, registry: dict[str, type]) -> dict[str, Any]:
  names = {cls: name for name, cls in registry.items()}
  return {'name': names[type(value)], **dataclasses.asdict(value)}


def _build(config: dict[str, Any], registry: dict[str, type]) -> Any:
  fields = {
      key: tuple(value) if isinstance(value, list) else value
      for key, value in config.items() if key != 'name'
  }
  return registry[config['name']](**fields)
