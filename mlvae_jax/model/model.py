"""The model: its factors, and the pure functions between images and codes.

A `Model` is static and hashable; parameters are a plain dict with the keys
'encoder' (phi) and 'decoder' (theta). So every function below works under
`jit`, `vmap`, `grad` and `pmap`, with the model closed over or static.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from mlvae_jax.grouping.free import Free
from mlvae_jax.grouping.group_posteriors import GROUP_POSTERIORS
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.grouping.posterior import GroupPosterior
from mlvae_jax.grouping.product import Product
from mlvae_jax.model import checks, registry
from mlvae_jax.model import factors as factors_lib
from mlvae_jax.model.factors import Factor
from mlvae_jax.model.likelihoods import LIKELIHOODS, LearnedGaussian, Likelihood
from mlvae_jax.model.networks import MLP, NETWORKS, Network

DTYPES = ('float32', 'bfloat16')
Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Model:
  """A Multi-Level VAE, or with a single ungrouped factor a VAE.

  Attributes:
    factors: the latent factors; the joined code z has them in this order.
    image_shape: (height, width, channels).
    likelihood: the likelihood p(x | z).
    network: architecture of encoder and decoder.
    group_posterior: rule for combining members' posteriors. With `Free`
      the model has no encoder: posteriors are parameters in training, and
      found by optimisation for new images.
    dtype: type that the networks compute in, one of `DTYPES`. Parameters,
      outputs of the networks, evidence and losses are float32 in any case.
  """

  factors: tuple[Factor, ...]
  image_shape: tuple[int, int, int]
  likelihood: Likelihood = LearnedGaussian()
  network: Network = MLP()
  group_posterior: GroupPosterior = Product()
  dtype: str = 'float32'

  def __post_init__(self):
    factors_lib.check_factors(self.factors)
    if len(self.image_shape) != 3 or min(self.image_shape) < 1:
      raise ValueError(
          'expected image_shape (height, width, channels), got '
          f'{self.image_shape}')
    if not isinstance(self.group_posterior, GroupPosterior):
      kinds = ', '.join(f'{kind.__name__}()'
                        for kind in GROUP_POSTERIORS.values())
      raise ValueError(f'expected group_posterior of {kinds}, got '
                       f'{self.group_posterior!r}')
    if self.dtype not in DTYPES:
      raise ValueError(f'expected dtype of {DTYPES}, got {self.dtype!r}')
    _ = self._decoder  # A ValueError where the network does not fit the shape.

  @property
  def grouped(self) -> tuple[Factor, ...]:
    """The factors whose codes are shared by groups."""
    return tuple(f for f in self.factors if f.grouping is not None)

  @property
  def groupings(self) -> tuple[str, ...]:
    """Names of the factors' groupings, each once, in the factors' order."""
    return tuple(dict.fromkeys(f.grouping for f in self.grouped))

  @property
  def has_encoder(self) -> bool:
    """Whether an encoder gives the posteriors; otherwise they are free."""
    return self.group_posterior.has_encoder

  def factor(self, name: str | None = None) -> Factor:
    """Finds a factor by name; without a name, the only grouped factor.

    Args:
      name: optional name of a factor.

    Returns:
      The factor.

    Raises:
      ValueError: on an unknown name; without a name, where the model does not
        have exactly one grouped factor.
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
    """As `factor`, but raises a ValueError where the factor is not grouped."""
    found = self.factor(name)
    if found.grouping is None:
      raise ValueError(
          f'factor {name!r} is not grouped, expected one of the grouped '
          f'factors {[f.name for f in self.grouped]}')
    return found

  def init(self, key: jax.Array) -> Params:
    """Draws initial parameters {'encoder': phi, 'decoder': theta}.

    Without an encoder there is only theta. `key` is consumed.
    """
    # Split alike for every model: one without an encoder has the same decoder.
    encoder_key, decoder_key = jax.random.split(key)
    x = jnp.zeros((1, *self.image_shape))
    z = jnp.zeros((1, sum(f.dim for f in self.factors)))
    params = {'decoder': self._decoder.init(decoder_key, z)['params']}
    if self.has_encoder:
      params['encoder'] = self._encoder.init(encoder_key, x)['params']
    return params

  def encode(self, params: Params, images: jax.Array) -> dict[str, Normal]:
    """Encodes each image alone: q(z_f | x_i) for every factor f.

    Args:
      params: parameters as `init` gives them.
      images: `[N, H, W, C]`, uint8 or float in [0, 1].

    Returns:
      Normal of `[N, D_f]` per factor name.

    Raises:
      ValueError: on a wrong shape, dtype or (where concrete) range, or where
        the model has no encoder.
    """
    if not self.has_encoder:
      raise ValueError(
          'the model has no encoder; infer its posteriors, as '
          'mlvae_jax.posteriors does')
    x = self.to_float(images)
    # One linear layer gives all heads: mean and logvar of the first factor,
    # then of the next. Checkpoints rely on this order.
    heads = self._apply(self._encoder, params['encoder'], x)
    posteriors, start = {}, 0
    for factor in self.factors:
      mean, logvar = jnp.split(
          heads[:, start:start + 2 * factor.dim], 2, axis=-1)
      posteriors[factor.name] = Normal(mean, logvar)
      start += 2 * factor.dim
    return posteriors

  def decode(self, params: Params, codes: dict[str, jax.Array]) -> jax.Array:
    """Decodes codes into the parameters of the likelihood.

    Args:
      params: parameters as `init` gives them; only the decoder's are used.
      codes: `[N, D_f]` per factor name.

    Returns:
      Logits `[N, num_outputs, H, W, C]`, see `likelihoods`.

    Raises:
      ValueError: on other factors, or codes of another shape.
    """
    codes = self.check_codes(codes, leading=('N',))
    z = jnp.concatenate([codes[f.name] for f in self.factors], axis=-1)
    return self._apply(self._decoder, params['decoder'], z)

  def check_codes(self, codes: dict[str, jax.Array], *,
                  leading: tuple[str, ...] | None = None, some: bool = False
                  ) -> dict[str, jax.Array]:
    """Applies `checks.check_codes` with the model's factors."""
    return checks.check_codes(self.factors, codes, leading=leading, some=some)

  def to_float(self, images: jax.Array, mask: jax.Array | None = None
               ) -> jax.Array:
    """Applies `checks.to_float` with the model's image shape."""
    return checks.to_float(images, self.image_shape, mask)

  def to_dict(self) -> dict[str, Any]:
    """The model as plain JSON, which `from_dict` reads."""
    return {
        'factors': [dataclasses.asdict(f) for f in self.factors],
        'image_shape': list(self.image_shape),
        'likelihood': registry.to_dict(self.likelihood, LIKELIHOODS),
        'network': registry.to_dict(self.network, NETWORKS),
        'group_posterior': registry.to_dict(
            self.group_posterior, GROUP_POSTERIORS),
        'dtype': self.dtype,
    }

  @staticmethod
  def from_dict(config: dict[str, Any]) -> Model:
    """Builds a model from what `to_dict` gave, also after a trip through JSON.

    Args:
      config: output of `to_dict`, of this or an older version.

    Returns:
      The model.

    Raises:
      KeyError: where an entry is missing.
      ValueError: on unknown names, or values that do not make a model.
    """
    return Model(
        tuple(Factor(**f) for f in config['factors']),
        tuple(config['image_shape']),
        registry.from_dict(config['likelihood'], LIKELIHOODS),
        registry.from_dict(config['network'], NETWORKS),
        _group_posterior(config),
        config.get('dtype', 'float32'))

  def _apply(self, network: nn.Module, params: Any, x: jax.Array) -> jax.Array:
    """Runs a network in `dtype`; its output has the type of x again."""
    if self.dtype == 'float32':  # Nothing is cast, so float64 stays float64.
      return network.apply({'params': params}, x)
    # Parameters stay float32: an update may be too small for bfloat16.
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


def _group_posterior(config: dict[str, Any]) -> GroupPosterior:
  """The group posterior of `to_dict`'s form, or of an older version's."""
  # Older versions wrote its name alone, and 'svi' under another key.
  if config.get('inference') == 'svi':
    return Free()
  found = config.get('group_posterior', 'product')
  return registry.from_dict(
      {'name': found} if isinstance(found, str) else found, GROUP_POSTERIORS)
