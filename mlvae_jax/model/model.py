"""The model: what the factors are, and the pure functions between x and z.

A `Model` is static and hashable; parameters are a plain dict with the keys
'encoder' (phi) and 'decoder' (theta), so that every function below goes
through `jit`, `vmap`, `grad` and `pmap` with the model closed over or static.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mlvae_jax.grouping.evidence import check_mask
from mlvae_jax.grouping.group_posteriors import GROUP_POSTERIORS
from mlvae_jax.grouping.normal import Normal, at_least_float32
from mlvae_jax.model import factors as factors_lib
from mlvae_jax.model.factors import Factor
from mlvae_jax.model.likelihoods import LIKELIHOODS, LearnedGaussian, Likelihood
from mlvae_jax.model.networks import MLP, NETWORKS, Network

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

  @property
  def groupings(self) -> tuple[str, ...]:
    """The groupings of its factors, each once, in the factors' order."""
    return tuple(dict.fromkeys(f.grouping for f in self.grouped))

  @property
  def has_encoder(self) -> bool:
    """Whether an encoder gives the posteriors; otherwise they are free."""
    return self.inference == 'encoder'

  def factor(self, name: str | None = None) -> Factor:
    """The factor of that name; without one, the only grouped factor.

    Args:
      name: optional name.

    Returns:
      The factor.

    Raises:
      ValueError: when there is no such factor, or no single grouped one.
    """
    by_name = {f.name: f for f in self.factors}
    if name is not None:
      if name not in by_name:
        raise ValueError(f'no factor {name!r}, expected one of {list(by_name)}')
      return by_name[name]
    if len(self.grouped) != 1:
      raise ValueError(
          f'the model has {len(self.grouped)} grouped factors, name one of '
          f'{list(by_name)}')
    return self.grouped[0]

  def grouped_factor(self, name: str | None = None) -> Factor:
    """As `factor`, but a ValueError where that factor is not grouped."""
    found = self.factor(name)
    if found.grouping is None:
      raise ValueError(
          f'factor {name!r} is not grouped, expected one of the grouped '
          f'factors {[f.name for f in self.grouped]}')
    return found

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
    codes = self.check_codes(codes, leading=('N',))
    z = jnp.concatenate([codes[f.name] for f in self.factors], axis=-1)
    return self._apply(self._decoder, params['decoder'], z)

  def check_codes(self, codes: dict[str, jax.Array], *,
                  leading: tuple[str, ...] | None = None, some: bool = False
                  ) -> dict[str, jax.Array]:
    """Checks names and shapes of codes.

    Args:
      codes: `[..., D_f]` per factor.
      leading: names of the axes before the last; None for any.
      some: whether factors may be left out.

    Returns:
      The codes as float arrays.

    Raises:
      ValueError: on other names or sizes, or axes `...` that differ.
    """
    sizes = {f.name: f.dim for f in self.factors}
    if not set(codes) <= set(sizes) or not (some or len(codes) == len(sizes)):
      raise ValueError(
          f'expected codes of {"some of " if some else ""}the factors '
          f'{list(sizes)}, got {list(codes)}')
    codes = {name: at_least_float32(code) for name, code in codes.items()}
    for name, code in codes.items():
      if code.shape[-1:] != (sizes[name],) or (
          leading is not None and code.ndim != len(leading) + 1):
        axes = ', '.join((*(('...',) if leading is None else leading),
                          str(sizes[name])))
        raise ValueError(
            f'expected codes of [{axes}] of factor {name!r}, got '
            f'{list(code.shape)}')
    if len({code.shape[:-1] for code in codes.values()}) > 1:
      raise ValueError(
          'expected the same number of codes for every factor, got '
          + ', '.join(f'{name} {list(code.shape)}'
                      for name, code in codes.items()))
    return codes

  def to_float(self, images: jax.Array, mask: jax.Array | None = None
               ) -> jax.Array:
    """Checks images.

    Args:
      images: `[N, H, W, C]`, uint8 or float in [0, 1].
      mask: optional `[N]` bool; False drops a row, whatever it holds.

    Returns:
      The images as float32 (or float64) in [0, 1], dropped rows as 0.

    Raises:
      ValueError: on a wrong shape, dtype or (where concrete) range.
    """
    images = jnp.asarray(images)
    if images.ndim != 4 or images.shape[1:] != self.image_shape:
      raise ValueError(
          f'expected images of [N, {", ".join(map(str, self.image_shape))}], '
          f'got {list(images.shape)}')
    if mask is not None:
      mask = check_mask(mask, images.shape[0])
      images = jnp.where(mask[:, None, None, None], images, 0)
    if images.dtype == jnp.uint8:
      return images.astype(jnp.float32) * np.float32(1.0 / 255.0)
    if not jnp.issubdtype(images.dtype, jnp.floating):
      raise ValueError(
          f'expected uint8 images, or float in [0, 1], got {images.dtype}')
    if not isinstance(images, jax.core.Tracer) and images.size:
      _check_range(images)
    return at_least_float32(images)

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


def _check_range(images: jax.Array) -> None:
  """Raises where concrete float images are not in [0, 1]."""
  with jax.ensure_compile_time_eval():  # Also of constants inside a `jit`.
    low, high = float(images.min()), float(images.max())
  if math.isnan(low):
    raise ValueError(
        'expected float images in [0, 1], got NaN; mask these rows')
  if low < 0.0 or high > 1.0:
    raise ValueError(
        'expected float images in [0, 1], got values from '
        f'{low:g} to {high:g}; divide by 255, or pass uint8')


def _named(value: Any, registry: dict[str, type]) -> dict[str, Any]:
  names = {cls: name for name, cls in registry.items()}
  return {'name': names[type(value)], **dataclasses.asdict(value)}


def _build(config: dict[str, Any], registry: dict[str, type]) -> Any:
  fields = {
      key: tuple(value) if isinstance(value, list) else value
      for key, value in config.items() if key != 'name'
  }
  return registry[config['name']](**fields)
