"""The model: its factors, and the pure functions between images and codes.

A `Model` is static and hashable; parameters are a plain dict with the keys
'encoder' (phi) and 'decoder' (theta), and 'shared' where the likelihood has
parameters that all rows share. So every function below works under `jit`,
`vmap`, `grad` and `pmap`, with the model closed over or static.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
from numpy.typing import ArrayLike

from mlvae_jax.grouping.free import Free
from mlvae_jax.grouping.group_posteriors import GROUP_POSTERIORS
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.grouping.posterior import GroupPosterior
from mlvae_jax.grouping.product import Product
from mlvae_jax.model import checks, registry
from mlvae_jax.model import factors as factors_lib
from mlvae_jax.model.encoder import Encoded, Encoder
from mlvae_jax.model.factors import Factor
from mlvae_jax.model.likelihoods.gaussian import LearnedGaussian
from mlvae_jax.model.likelihoods.likelihood import Likelihood
from mlvae_jax.model.likelihoods.registry import LIKELIHOODS
from mlvae_jax.model.networks import registry as networks
from mlvae_jax.model.networks.mlp import MLP
from mlvae_jax.model.networks.modules import Modules, Own
from mlvae_jax.model.networks.network import Network
from mlvae_jax.model.networks.tokens import Tokens

DTYPES = ('float32', 'bfloat16')
Params = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Model:
  """A Multi-Level VAE, or with a single ungrouped factor a VAE.

  Attributes:
    factors: the latent factors; the joined code z has them in this order.
    observation_shape: shape of one observation: (height, width, channels) of
      an image, (D,) of a vector.
    likelihood: the likelihood p(x | z).
    network: architecture of encoder and decoder.
    group_posterior: rule for combining members' posteriors. With `Free`
      the model has no encoder: posteriors are parameters in training, and
      found by optimisation for new observations.
    dtype: type that the networks compute in, one of `DTYPES`. Parameters,
      outputs of the networks, evidence and losses are float32 in any case.
    encoder: optional custom encoder in place of the network's: a
      flax.linen module from observations `[N, ...]` to features `[N, ...]`
      (tokens are given as integers, -1 for padding), or a pair of pure
      functions, init(key, x) -> parameters and apply(parameters, x) ->
      features. Not an attribute: `network` holds it.
    decoder: optional custom decoder, from codes `[N, D]` to
      `[N, P, ...]`, P numbers per element as the likelihood wants them; see
      `networks.modules.OwnDecoder` for other shapes.
  """

  factors: tuple[Factor, ...]
  observation_shape: tuple[int, ...]
  likelihood: Likelihood = LearnedGaussian()
  network: Network = MLP()
  group_posterior: GroupPosterior = Product()
  dtype: str = 'float32'
  encoder: dataclasses.InitVar[Own | None] = None
  decoder: dataclasses.InitVar[Own | None] = None

  def __post_init__(self, encoder: Own | None, decoder: Own | None):
    if encoder is not None or decoder is not None:
      object.__setattr__(
          self, 'network', Modules(encoder, decoder, self.network))
    checks.check_parts(
        self.observation_shape, likelihood=(self.likelihood, Likelihood),
        network=(self.network, Network))
    # Lists could not be hashed, nor NumPy's integers written as JSON.
    object.__setattr__(self, 'factors', tuple(self.factors))
    object.__setattr__(
        self, 'observation_shape', tuple(map(int, self.observation_shape)))
    factors_lib.check_factors(self.factors)
    if not self.observation_shape or min(self.observation_shape) < 1:
      raise ValueError(
          'expected observation_shape of at least one axis, such as (height, '
          'width, channels) or (D,), with sizes of at least 1, got '
          f'{self.observation_shape}')
    if not isinstance(self.group_posterior, GroupPosterior):
      kinds = ', '.join(f'{kind.__name__}()'
                        for kind in GROUP_POSTERIORS.values())
      raise ValueError(f'expected group_posterior of {kinds}, got '
                       f'{self.group_posterior!r}')
    given = [f.name for f in self.factors if f.given]
    if given and not self.has_encoder:
      raise ValueError(
          f'{", ".join(given)} given other factors need an encoder; free '
          'posteriors (SVI) belong to each row alone: leave given out')
    if self.dtype not in DTYPES:
      raise ValueError(f'expected dtype of {DTYPES}, got {self.dtype!r}')
    self._check_network()

  @property
  def grouped(self) -> tuple[Factor, ...]:
    """The factors whose codes are shared by groups."""
    return tuple(f for f in self.factors if f.grouping is not None)

  @property
  def groupings(self) -> tuple[str, ...]:
    """Names of the factors' groupings, each once, in the factors' order."""
    return tuple(dict.fromkeys(
        f.grouping for f in self.factors if f.grouping is not None))

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

    Without an encoder there is no phi; 'shared' is there where the likelihood
    has parameters that all rows share. `key` is consumed.

    Raises:
      ValueError: where a network keeps state besides its parameters.
    """
    # Split alike for every model: one without an encoder has the same decoder.
    encoder_key, decoder_key = jax.random.split(key)
    z = jnp.zeros((1, sum(f.dim for f in self.factors)))
    params: Params = {
        'decoder': _init('decoder', self._decoder, decoder_key, z)}
    if self.has_encoder:
      x = self._encoder_input(jnp.zeros(
          (1, *self.observation_shape), self.likelihood.dtype))
      codes = {f.name: jnp.zeros((1, self._given_dim(f)))
               for f in self.factors if f.given}
      params['encoder'] = _init(
          'encoder', self._encoder, encoder_key, x, codes)
    shared = self.likelihood.shared(self.observation_shape)
    if shared is not None:
      params['shared'] = shared
    return params

  def encode(self, params: Params, x: ArrayLike) -> dict[str, Normal]:
    """Encodes each observation alone: q(z_f | x_i) for every factor f.

    The Normals of a grouped factor are those that `group_posterior` combines. A
    factor that is given others uses the means of their posteriors, where each
    observation is a group of one: q(s | x_i, E c).

    Args:
      params: parameters as `init` gives them.
      x: `[N, ...]`, with values that the likelihood can have.

    Returns:
      Normal of `[N, D_f]` per factor name.

    Raises:
      ValueError: on a wrong shape, dtype or (where concrete) values, or where
        the model has no encoder.
    """
    encoded, found = self.encode_rows(params, self.prepare(x)), {}
    means = {}
    for factor in self.factors:
      q = self.posterior(params, factor, encoded, means)
      found[factor.name] = q
      means[factor.name] = self.alone(factor, q).mean
    return found

  def alone(self, factor: Factor, q: Normal) -> Normal:
    """The posteriors of rows as groups of one, from the encoder's Normals."""
    return self.group_posterior.alone(q) if factor.grouping else q

  def encode_rows(self, params: Params, x: jax.Array) -> Encoded:
    """Computes the encoder's outputs for prepared rows `[N, ...]`.

    Args:
      params: as `init` gives them.
      x: as `prepare` gives them.

    Returns:
      Features and heads, which `posterior` turns into posteriors.

    Raises:
      ValueError: where the model has no encoder.
    """
    if not self.has_encoder:
      raise ValueError(
          'the model has no encoder; infer its posteriors, as '
          'mlvae_jax.posteriors does')
    return Encoded(*self._apply(
        self._encoder, params['encoder'], self._encoder_input(x),
        method='encode'))

  def posterior(self, params: Params, factor: Factor, encoded: Encoded,
                codes: Mapping[str, jax.Array]) -> Normal:
    """A factor's posterior of each row alone: q(z_f | x_i, given codes).

    Args:
      params: parameters as `init` gives them.
      factor: one of the model's.
      encoded: features and heads, as `encode_rows` gives them.
      codes: `[N, D]` of each factor that this one is given.

    Returns:
      Normal of `[N, D_f]`.
    """
    if factor.given:
      heads = self._apply(
          self._encoder, params['encoder'], encoded.features,
          jnp.concatenate([codes[name] for name in factor.given], axis=-1),
          method=lambda encoder, *args: encoder.head(factor.name, *args))
    else:
      # One linear layer gives all heads: mean and logvar of the first factor,
      # then of the next. Checkpoints rely on this order.
      before = self.factors[:self.factors.index(factor)]
      start = 2 * sum(f.dim for f in before if not f.given)
      heads = encoded.heads[:, start:start + 2 * factor.dim]
    return Normal(*jnp.split(heads, 2, axis=-1))

  def decode(self, params: Params, codes: Mapping[str, ArrayLike]
             ) -> jax.Array:
    """Decodes codes into the parameters of the likelihood.

    Args:
      params: parameters as `init` gives them; the encoder's are not used.
      codes: `[N, D_f]` per factor name.

    Returns:
      Logits `[N, P, ...]`, see `likelihoods.likelihood`.

    Raises:
      ValueError: on other factors, or codes of another shape.
    """
    codes = self.check_codes(codes, leading=('N',))
    z = jnp.concatenate([codes[f.name] for f in self.factors], axis=-1)
    logits = self._apply(self._decoder, params['decoder'], z)
    expected = self.likelihood.num_outputs, *self.observation_shape
    if logits.shape[1:] != expected:
      raise ValueError(
          f'expected outputs of [N, {", ".join(map(str, expected))}] from the '
          f'decoder of {type(self.network).__name__}, got '
          f'{list(logits.shape)}')
    if 'shared' not in params:
      return logits
    shared = params['shared']
    return jnp.concatenate([logits, jnp.broadcast_to(
        shared, (len(logits), len(shared), *self.observation_shape))], axis=1)

  def check_codes(self, codes: Mapping[str, ArrayLike], *,
                  leading: tuple[str, ...] | None = None, some: bool = False
                  ) -> dict[str, jax.Array]:
    """Applies `checks.check_codes` with the model's factors."""
    return checks.check_codes(self.factors, codes, leading=leading, some=some)

  def prepare(self, x: ArrayLike, mask: ArrayLike | None = None
              ) -> jax.Array:
    """Checks observations, and converts them to the type for computing.

    Args:
      x: `[N, ...]`, with values that the likelihood can have.
      mask: optional `[N]` bool; False drops a row, whatever it holds.

    Returns:
      `[N, ...]`, as `likelihood.prepare` gives it; dropped rows are 0.

    Raises:
      ValueError: on a wrong shape, dtype or (where concrete) values.
    """
    return self.likelihood.prepare(
        checks.check_rows(x, self.observation_shape, mask))

  def to_dict(self) -> dict[str, Any]:
    """The model as plain JSON, which `from_dict` reads."""
    return {
        'factors': [dataclasses.asdict(f) for f in self.factors],
        'observation_shape': list(self.observation_shape),
        'likelihood': registry.to_dict(self.likelihood, LIKELIHOODS),
        'network': networks.to_dict(self.network),
        'group_posterior': registry.to_dict(
            self.group_posterior, GROUP_POSTERIORS),
        'dtype': self.dtype,
    }

  @staticmethod
  def from_dict(config: dict[str, Any]) -> Model:
    """Builds a model from what `to_dict` gave, possibly read from JSON.

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
        tuple(config['observation_shape'] if 'observation_shape' in config
              else config['image_shape']),
        registry.from_dict(config['likelihood'], LIKELIHOODS),
        networks.from_dict(config['network']),
        _group_posterior(config),
        config.get('dtype', 'float32'))

  def _apply(self, network: nn.Module, params: Any, *inputs: jax.Array,
             method: Any = None) -> Any:
    """Runs a network in `dtype`; its outputs are at least float32 again."""
    if self.dtype == 'float32':  # Nothing is cast, so float64 stays float64.
      return network.apply({'params': params}, *inputs, method=method)

    def lower(value):  # Tokens stay integers.
      is_float = jnp.issubdtype(value.dtype, jnp.floating)
      return value.astype(self.dtype) if is_float else value

    # Parameters stay float32: an update may be too small for bfloat16.
    found = network.apply(
        {'params': jax.tree.map(lower, params)}, *map(lower, inputs),
        method=method)
    dtype = jnp.promote_types(jnp.float32, inputs[0].dtype)
    return jax.tree.map(lambda value: value.astype(dtype), found)

  def _encoder_input(self, x: jax.Array) -> jax.Array:
    """What the encoder sees of prepared rows."""
    if self.network.takes_tokens and self.likelihood.has_tokens:
      return x
    return self.likelihood.encoder_input(x)

  def _given_dim(self, factor: Factor) -> int:
    """Size of the codes that a factor is given, joined."""
    return sum(self.factor(name).dim for name in factor.given)

  @property
  def _encoder(self):
    return Encoder(
        self.network.encoder(
            self.likelihood.num_outputs, self.observation_shape),
        2 * sum(f.dim for f in self.factors if not f.given),
        tuple((f.name, 2 * f.dim) for f in self.factors if f.given))

  @property
  def _decoder(self):
    return self.network.decoder(
        self.likelihood.num_outputs, self.observation_shape)

  def _check_network(self) -> None:
    """Raises a ValueError where the network does not fit the observations."""
    if isinstance(self.network, Tokens) and not self.likelihood.has_tokens:
      raise ValueError(
          'Tokens is for the likelihood Categorical, got '
          f'{self.likelihood}; use MLP, Conv or Conv1D')
    _ = self._decoder, self.has_encoder and self._encoder
    # Only calling networks that are not the library's shows what they give.
    if isinstance(self.network, Modules) or not networks.is_built_in(
        self.network):
      def call():
        params = self.init(jax.random.key(0))
        if self.has_encoder:
          self.encode_rows(params, jnp.zeros(
              (2, *self.observation_shape), self.likelihood.dtype))
        return self.decode(
            params, {f.name: jnp.zeros((2, f.dim)) for f in self.factors})

      jax.eval_shape(call)


def _init(name: str, network: nn.Module, key: jax.Array, *inputs: Any
          ) -> Params:
  """Initial parameters of a network that has nothing but parameters."""
  variables = dict(network.init(key, *inputs))
  params = variables.pop('params', {})
  if variables:
    raise ValueError(
        f'the {name} keeps state besides its parameters '
        f'({", ".join(variables)}), as batch norm does. Statistics of a batch '
        'mix the rows of different groups, but a posterior must depend only on '
        'its own rows: use nn.GroupNorm or nn.LayerNorm')
  if any(leaf.dtype not in ('float32', 'float64')
         for leaf in jax.tree.leaves(params)):
    raise ValueError(
        f'expected parameters of float32 in the {name}, got '
        f'{jax.tree.map(lambda leaf: str(leaf.dtype), params)}; to compute in '
        "bfloat16, pass dtype='bfloat16' to the model")
  return params


def _group_posterior(config: dict[str, Any]) -> GroupPosterior:
  """The group posterior of `to_dict`'s form, or of an older version's."""
  # Older versions wrote its name alone, and 'svi' under another key.
  if config.get('inference') == 'svi':
    return Free()
  found = config.get('group_posterior', 'product')
  return registry.from_dict(
      {'name': found} if isinstance(found, str) else found, GROUP_POSTERIORS)
