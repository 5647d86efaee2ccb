"""One preset per data set; flags override its values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

from mlvae_jax.data.augment import parse_augment
from mlvae_jax.model import factors as factors_lib
from mlvae_jax.model.likelihoods import LIKELIHOODS, Gaussian, Likelihood
from mlvae_jax.model.model import Model
from mlvae_jax.model.networks import MLP, Conv, Network
from mlvae_jax.training.step import TrainConfig


@dataclasses.dataclass(frozen=True)
class Config:
  """Everything that determines a run, as config.json holds it.

  Attributes:
    dataset: name of the data set.
    data_dir: where its files are, if it needs any.
    store_dir: where packed stores are kept; None is the user's cache folder.
    read_as: how to read data_dir: 'auto', 'folders', 'manifest', 'tsv' or
      'tfds'.
    group_level: level of the folder that names an image's group; 1 is the
      first below data_dir. 0 means 1, but is an error where that looks wrong.
    image_size: pixels of a side, for data sets that resize.
    resize: of images that are not square, 'squeeze', 'crop' or 'pad'.
    black: value that is black in images of more than 8 bits; None is 0.
    white: value that is white in them; None is 1 for float images, 65,535 for
      integers.
    celeb_top_k: images kept of an identity of a TSV, those of the best search
      ranks; 0 keeps all.
    on_bad_image: 'skip' passes over images that cannot be used, 'fail' stops.
    split_by: 'image' splits single images into training, validation and
      test, 'group' whole groups.
    split_fractions: of validation and test; None for 0.1 and 0.1 of the images
      in a split by image, 0.25 and 0.25 of the groups in a split by group.
    num_images: drawn in all, of the data set shapes.
    hold_out: VALUE+VALUE,... of shapes: what training never sees.
    model: 'mlvae', 'vae', or 'svi': free posteriors instead of an encoder.
    factors: NAME:DIM[:GROUPING],...; a VAE joins their dimensions into one.
    likelihood: name in `LIKELIHOODS`.
    sigma: standard deviation of likelihood 'gaussian'.
    network: name in `NETWORKS`.
    channels: of the convolutions, where there are any.
    norm_groups: of the convolutions' group norm; 0 for none.
    hidden_sizes: of the fully connected layers.
    activation: of all layers.
    dtype: in which the networks compute, 'float32' or 'bfloat16'.
    steps: optimisation steps.
    groups_per_batch: at most this many groups a step.
    max_group_size: larger groups are visited in pieces of at most this size.
    min_group_size: smaller groups are left out of training.
    visit: what an epoch visits once, 'images' or 'groups'.
    subsampling: of groups that are cut: 'paper', or 'unbiased'.
    group_posterior: 'product' of the members' Normals, or their 'mixture'.
    batch_size: images a step of a VAE, whose groups are single images. For
      other models the two above determine it.
    learning_rate: of Adam.
    table_learning_rate: of the free posteriors of model 'svi'.
    decay_fraction: share of the steps, the last ones, over which both fall
      linearly to 0.
    kl_weights: NAME:WEIGHT,...; here and below the name 'all' stands for all
      factors that fit.
    contrast: NAME:WEIGHT,... of the penalty that makes a factor's code of
      single images reveal their group.
    leakage: NAME:WEIGHT,... of the penalty on what a factor's code of single
      images reveals of the groups of other factors.
    leakage_estimate: 'unbiased', or 'nonnegative', which members of a group
      cannot drive below 0 by repelling each other within a batch.
    augment: 'flip,shift:PIXELS', or a part of it, of training images.
    kl_warmup_steps: linear warm-up of the KL terms.
    sample_per: 'row' or 'group': one draw of a group's code per image, as in
      algorithm 1, or per group.
    seed: of initialisation, batches and noise.
    chunk_steps: steps per dispatch.
    eval_every: steps between validations.
    checkpoint_every: steps between checkpoints.
  """

  dataset: str = 'mnist5k'
  data_dir: str | None = None
  store_dir: str | None = None
  read_as: str = 'auto'
  group_level: int = 0
  image_size: int = 28
  resize: str = 'squeeze'
  black: float | None = None
  white: float | None = None
  celeb_top_k: int = 0
  on_bad_image: str = 'skip'
  split_by: str = 'image'
  split_fractions: tuple[float, float] | None = None
  num_images: int = 25_000
  hold_out: str = ''
  model: str = 'mlvae'
  factors: str = 'content:10:digit,style:10'
  likelihood: str = 'learned_gaussian'
  sigma: float = 0.15
  network: str = 'mlp'
  channels: tuple[int, ...] = (32, 64, 128, 256)
  norm_groups: int = 0
  hidden_sizes: tuple[int, ...] = (500,)
  activation: str = 'tanh'
  dtype: str = 'float32'
  steps: int = 8000
  groups_per_batch: int = 10
  max_group_size: int = 29
  min_group_size: int = 1
  visit: str = 'images'
  subsampling: str = 'paper'
  group_posterior: str = 'product'
  batch_size: int = 256
  learning_rate: float = 1e-3
  table_learning_rate: float = 0.05
  decay_fraction: float = 0.0
  kl_weights: str = ''
  contrast: str = ''
  leakage: str = ''
  mean_leakage: str = ''
  leakage_estimate: str = 'unbiased'
  augment: str = ''
  kl_warmup_steps: int = 0
  sample_per: str = 'row'
  seed: int = 0
  chunk_steps: int = 100
  eval_every: int = 500
  checkpoint_every: int = 2000


_FOLDER = Config(
    dataset='folder', image_size=64, factors='content:16:group,style:16',
    likelihood='gaussian', groups_per_batch=32, max_group_size=8)
_FACES = Config(
    # The paper's 48,880 / 25,000 / 25,000 identities, and ten images of each.
    dataset='celeb', image_size=64, resize='crop', celeb_top_k=10,
    split_by='group',
    split_fractions=(25_000 / 98_880, 25_000 / 98_880),
    factors='content:128:identity,style:8', likelihood='gaussian', sigma=0.1,
    network='conv', channels=(16, 32, 64, 128), hidden_sizes=(256,),
    activation='silu', steps=5000, groups_per_batch=44, max_group_size=4,
    min_group_size=2, visit='groups', batch_size=128,
    contrast='content:2000', leakage='style:20000', augment='flip,shift:2',
    chunk_steps=25, checkpoint_every=1000)

# The digits' settings are those of the first author's code: 10 + 10
# dimensions, 500 tanh units, learned variance, Adam at 1e-3, about 256 images
# a batch.
PRESETS = {
    'mnist5k': Config(),
    'mnist': Config(
        dataset='mnist', steps=20_000, eval_every=1000,
        checkpoint_every=5000),
    'folder': _FOLDER,
    'celeb': _FACES,
    'celeba': dataclasses.replace(_FACES, dataset='celeba'),
    'omniglot': Config(
        dataset='omniglot', image_size=32, split_by='group',
        split_fractions=(0.1, 0.2), factors='content:32:character,style:16',
        likelihood='bernoulli', network='conv', channels=(32, 64, 128),
        hidden_sizes=(256,), activation='silu', steps=5000,
        groups_per_batch=32, max_group_size=8, visit='groups', batch_size=256,
        contrast='content:100', augment='shift:2', chunk_steps=25,
        checkpoint_every=1000),
    'shapes': Config(
        # Every shape and every colour is trained on with nine others.
        dataset='shapes', image_size=32, hold_out=(
            'circle+red,square+orange,triangle+purple,star+yellow,cross+green,'
            'ring+blue,heart+pink,moon+cyan,arrow+brown,bar+black'),
        factors='shape:8:shape,colour:4:colour,style:4',
        likelihood='bernoulli', network='conv', channels=(32, 64, 128),
        hidden_sizes=(256,), activation='silu', steps=8000, max_group_size=12,
        batch_size=128, contrast='all:100', leakage='all:1000,style:5000',
        mean_leakage='style:5000', decay_fraction=0.75, chunk_steps=25,
        checkpoint_every=1000),
}


def make_model(config: Config, image_shape: tuple[int, int, int]) -> Model:
  """Builds the model of a configuration.

  Args:
    config: the configuration.
    image_shape: (height, width, channels) of the data.

  Returns:
    The model.

  Raises:
    ValueError: on values that make no model.
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
  """Raises a ValueError where there is no estimate without bias."""
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
    model: whose factors kl_weights may name.

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
    model: whose factors may be named.
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


def to_json(config: Config) -> dict[str, Any]:
  """The configuration as plain JSON."""
  return {
      name: list(value) if isinstance(value, tuple) else value
      for name, value in dataclasses.asdict(config).items()}


def from_json(values: Mapping[str, Any]) -> Config:
  """The configuration that `to_json` wrote."""
  known = {field.name for field in dataclasses.fields(Config)}
  return Config(**{
      name: tuple(value) if isinstance(value, list) else value
      for name, value in values.items() if name in known})


def _network(config: Config) -> Network:
  if config.network == 'conv':
    return Conv(config.channels, config.hidden_sizes, config.activation,
                config.norm_groups)
  return MLP(config.hidden_sizes, config.activation)


def _likelihood(config: Config) -> Likelihood:
  if config.likelihood == 'gaussian':
    return Gaussian(config.sigma)
  return LIKELIHOODS[config.likelihood]()
