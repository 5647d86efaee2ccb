"""What the library takes, made of the settings of a run."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.config.settings import Config
from mlvae_jax.data.augment import parse_augment
from mlvae_jax.model import factors as factors_lib
from mlvae_jax.model.likelihoods import LIKELIHOODS, Gaussian, Likelihood
from mlvae_jax.model.model import Model
from mlvae_jax.model.networks import MLP, Conv, Network
from mlvae_jax.training.step import TrainConfig


def make_model(config: Config, image_shape: tuple[int, int, int]) -> Model:
  """Builds the model of a configuration.

  Args:
    config: the configuration.
    image_shape: (height, width, channels) of the data.

  Returns:
    The model.

  Raises:
    ValueError: on values from which no model can be made.
  """
  factors = factors_lib.parse_factors(config.factors)
  if config.model == 'vae':
    factors = factors_lib.vae(sum(f.dim for f in factors))
  if config.subsampling == 'unbiased':
    _check_unbiased(config, {f.grouping for f in factors} - {None})
  return Model(factors, image_shape, _likelihood(config), _network(config),
               config.group_posterior,
               'svi' if config.model == 'svi' else 'encoder', config.dtype)


def _check_unbiased(config: Config, groupings: set[str]) -> None:
  """Raises a ValueError where --subsampling=unbiased is impossible."""
  if config.model == 'svi':
    raise ValueError(
        '--subsampling=unbiased is for groups whose posteriors are made of the '
        'images drawn; those of --model=svi are of whole groups, and have no '
        'such bias; use --subsampling=paper')
  if not groupings:
    raise ValueError('--subsampling=unbiased needs a grouped factor; name a '
                     'grouping in --factors')
  if len(groupings) > 1:
    raise ValueError(
        '--subsampling=unbiased supports only one grouping: it draws evidence '
        'and likelihood of a group apart, and with several groupings the '
        'evidence of one group would be the likelihood of another; use '
        '--subsampling=paper, or one grouping in --factors')
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
    ValueError: on weights that cannot be read, or unknown names.
  """
  if config.model == 'svi' and config.contrast:
    raise ValueError('--contrast needs an encoder, and --model=svi has none; '
                     'leave --contrast out')
  groupings = {f.grouping for f in model.grouped}
  leaky = [f.name for f in model.factors if groupings - {None, f.grouping}]
  others = (leaky, 'needs some other factor with a different grouping, and {} '
            'has none; leave it out')
  return TrainConfig(
      config.learning_rate, config.seed,
      parse_weights('kl_weights', config.kl_weights, model),
      config.kl_warmup_steps, config.sample_per,
      parse_weights('contrast', config.contrast, model,
                    [f.name for f in model.grouped],
                    'needs a grouped factor, got {}'),
      parse_weights('leakage', config.leakage, model, *others),
      parse_weights('mean_leakage', config.mean_leakage, model, *others),
      parse_augment(config.augment), config.table_learning_rate,
      config.steps, config.decay_fraction, config.leakage_estimate)


def parse_weights(
    what: str, text: str, model: Model, fitting: Sequence[str] | None = None,
    unfit: str = '') -> tuple[tuple[str, float], ...]:
  """Parses NAME:WEIGHT,... into pairs.

  Args:
    what: the setting, for errors.
    text: where 'all' names all fitting factors, and the last weight of a
      factor counts; '' gives none.
    model: model whose factors may be named.
    fitting: names of those that make sense; by default all.
    unfit: says what is wrong with another, '{}'.

  Returns:
    (factor name, weight) pairs.

  Raises:
    ValueError: on what cannot be read, or names that do not fit.
  """
  fitting = [f.name for f in model.factors] if fitting is None else fitting
  weights = {}
  for item in filter(None, text.split(',')):
    name, _, value = item.strip().partition(':')
    try:
      fits = name == 'all' or model.factor(name).name in fitting
    except ValueError:
      names = ', '.join(f.name for f in model.factors)
      raise ValueError(f'no factor {name!r} for --{what}={text}; the factors '
                       f'are {names}') from None
    if not fits:
      raise ValueError(f'--{what} {unfit.format(repr(name))}')
    try:
      weight = float(value)
    except ValueError:
      raise ValueError(
          f'expected --{what} as NAME:WEIGHT,..., got {item!r}') from None
    if not 0 <= weight < float('inf'):
      raise ValueError(
          f'expected a weight of at least 0 in --{what}, got {item!r}')
    weights |= dict.fromkeys(fitting if name == 'all' else [name], weight)
  return tuple(weights.items())


def _network(config: Config) -> Network:
  if config.network == 'conv':
    return Conv(config.channels, config.hidden_sizes, config.activation,
                config.norm_groups)
  return MLP(config.hidden_sizes, config.activation)


def _likelihood(config: Config) -> Likelihood:
  if config.likelihood == 'gaussian':
    return Gaussian(config.sigma)
  return LIKELIHOODS[config.likelihood]()
