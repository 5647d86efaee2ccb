"""Builds what the library takes from the settings of a run."""

from __future__ import annotations

from experiments.config.settings import Config
from experiments.config.weights import parse_penalties, parse_weights
from mlvae_jax.data.augment import parse_augment
from mlvae_jax.grouping.free import Free
from mlvae_jax.grouping.group_posteriors import GROUP_POSTERIORS
from mlvae_jax.grouping.posterior import GroupPosterior
from mlvae_jax.model import factors as factors_lib
from mlvae_jax.model.likelihoods.categorical import Categorical
from mlvae_jax.model.likelihoods.gaussian import Gaussian
from mlvae_jax.model.likelihoods.laplace import Laplace
from mlvae_jax.model.likelihoods.likelihood import Likelihood
from mlvae_jax.model.likelihoods.registry import LIKELIHOODS
from mlvae_jax.model.model import Model
from mlvae_jax.model.networks.conv import Conv
from mlvae_jax.model.networks.conv1d import Conv1D
from mlvae_jax.model.networks.mlp import MLP
from mlvae_jax.model.networks.network import Network
from mlvae_jax.model.networks.tokens import Tokens
from mlvae_jax.training.step import TrainConfig


def make_model(config: Config, observation_shape: tuple[int, ...]) -> Model:
  """Builds the model of a configuration.

  Args:
    config: the configuration.
    observation_shape: of the data, such as (height, width, channels).

  Returns:
    The model.

  Raises:
    ValueError: on values from which no model can be made.
  """
  factors = factors_lib.parse_factors(config.factors)
  if config.model == 'vae':
    # The same total dimension, so that a VAE is a fair comparison.
    factors = factors_lib.vae(sum(f.dim for f in factors))
  if config.evidence == 'random' and (
      config.model == 'svi' or config.subsampling == 'unbiased'):
    raise ValueError(
        '--evidence=random needs posteriors computed from the rows of a '
        'batch; it does not work with --model=svi or --subsampling=unbiased; '
        'use --evidence=all')
  if config.subsampling == 'unbiased':
    _check_unbiased(config, {f.grouping for f in factors} - {None})
  return Model(
      factors, observation_shape, _likelihood(config), _network(config),
      _group_posterior(config), config.dtype)


def _check_unbiased(config: Config, groupings: set[str]) -> None:
  """Raises a ValueError where --subsampling=unbiased is impossible."""
  if config.model == 'svi':
    raise ValueError(
        '--subsampling=unbiased is for groups whose posteriors are computed '
        'from the rows drawn; --model=svi has one posterior per whole group, '
        'so there is no such bias; use --subsampling=paper')
  if not groupings:
    raise ValueError('--subsampling=unbiased needs a grouped factor; name a '
                     'grouping in --factors')
  if len(groupings) > 1:
    raise ValueError(
        '--subsampling=unbiased supports only one grouping: it draws evidence '
        'and likelihood of a group separately, and with several groupings the '
        'evidence of one group would be the likelihood of another; use '
        '--subsampling=paper, or one grouping in --factors')
  # Both halves are drawn from a whole group, not from a piece of it, and a
  # single image cannot be halved.
  if config.visit != 'groups' or config.max_group_size < 2:
    raise ValueError('--subsampling=unbiased needs --visit=groups and a '
                     '--max_group_size of at least 2')


def make_train_config(config: Config, model: Model) -> TrainConfig:
  """Picks the settings of the optimisation.

  Args:
    config: the configuration.
    model: model whose factors the weights may name.

  Returns:
    The settings.

  Raises:
    ValueError: on weights that cannot be parsed, or unknown names.
  """
  augment = parse_augment(config.augment)
  augment.check(model.observation_shape)
  return TrainConfig(
      learning_rate=config.learning_rate, seed=config.seed,
      kl_weights=parse_weights('kl_weights', config.kl_weights, model),
      kl_warmup_steps=config.kl_warmup_steps, sample_per=config.sample_per,
      penalties=parse_penalties('penalties', config.penalties, model),
      augment=augment,
      table_learning_rate=config.table_learning_rate,
      num_steps=config.steps, decay_fraction=config.decay_fraction)


def _group_posterior(config: Config) -> GroupPosterior:
  if config.model == 'svi':
    return Free()
  return GROUP_POSTERIORS[config.group_posterior]()


def _network(config: Config) -> Network:
  if config.network == 'conv':
    return Conv(config.channels, config.hidden_sizes, config.activation,
                config.norm_groups)
  if config.network == 'conv1d':
    return Conv1D(config.channels, config.hidden_sizes, config.activation,
                  config.norm_groups)
  if config.network == 'tokens':
    return Tokens(config.embedding_size, config.hidden_sizes,
                  config.activation)
  return MLP(config.hidden_sizes, config.activation)


def _likelihood(config: Config) -> Likelihood:
  if config.likelihood == 'gaussian':
    return Gaussian(config.sigma)
  if config.likelihood == 'laplace':
    return Laplace(config.sigma)
  if config.likelihood == 'categorical':
    if not config.num_categories:
      raise ValueError(
          '--likelihood=categorical needs --num_categories, the number of '
          'different tokens; pixels of 8 bits have 256')
    return Categorical(config.num_categories)
  return LIKELIHOODS[config.likelihood]()
