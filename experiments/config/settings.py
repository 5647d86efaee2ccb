"""The settings of a run, each declared once.

Its flag, its place in config.json, `--help` and docs/settings.md follow from a
field of `Config`. After a change:

  python -m experiments.config.settings_table > docs/settings.md
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

from absl.flags import FLAGS, FlagValues

from experiments.config import flags
from experiments.config.flags import Path, setting
from mlvae_jax.data.plan import EVIDENCE, SUBSAMPLING, VISIT
from mlvae_jax.grouping.group_posteriors import GROUP_POSTERIORS
from mlvae_jax.grouping.posterior import SAMPLE_PER
from mlvae_jax.model.likelihoods.registry import LIKELIHOODS
from mlvae_jax.model.model import DTYPES
from mlvae_jax.model.networks.network import ACTIVATIONS
from mlvae_jax.model.networks.registry import NETWORKS
from mlvae_jax.objective.penalties.registry import PENALTIES

# Headings; absl takes them for modules, so they must not contain a dot.
DATA, SPLITS, MODEL, OPTIMISATION, BATCHES, OBJECTIVE, RUN = (
    'Data', 'Splits', 'Model', 'Optimisation', 'Batches', 'Objective', 'Run')


# Likelihoods of real numbers, for which data may be standardised.
REAL_LIKELIHOODS = ('gaussian', 'learned_gaussian', 'laplace')


@dataclasses.dataclass(frozen=True)
class Config:
  """Everything that determines a run, as config.json holds it."""

  # A run made before a field existed is read with the field's default, which
  # therefore has to stay what the code did before.
  dataset: str = setting(
      'mnist5k', 'Name of the data set, which also selects the preset.', DATA)
  data_dir: Path | None = setting(
      None, 'Folder or file that holds the data set, for data sets that need '
      'one.', DATA)
  store_dir: Path | None = setting(
      None, 'Folder where packed images are kept; ~/.cache/mlvae_jax by '
      'default.', DATA)
  read_as: str = setting(
      'auto', 'Format in which --data_dir is read; auto takes the first of '
      'these that it finds: a manifest.csv, a TFDS data set, .tsv files of '
      'MS-Celeb-1M, a folder per group.', DATA,
      choices=('auto', 'folders', 'manifest', 'tsv', 'tfds'))
  group_level: int = setting(
      0, 'Level of the folder that names an image\'s group; 1 is the first '
      'below --data_dir. Folders with the same name are one group. 0 means 1, '
      'but stops with an error where that looks wrong.', DATA, lower=0)
  nested_groupings: str = setting(
      '', 'Names of the groupings of nested folders, from the outermost, such '
      'as alphabet/character for ALPHABET/CHARACTER/IMAGE; if there are fewer '
      'levels, the last names apply. For a data set of TFDS, names of '
      'features. Ignored with --group_level.', DATA)
  image_size: int = setting(
      28, 'Width and height of the images in pixels, for data sets that '
      'resize.', DATA, lower=4, upper=1024)
  resize: str = setting(
      'squeeze', 'Method for making images square: squeeze ignores their '
      'proportions, crop keeps the central square, pad adds black.', DATA,
      choices=('squeeze', 'crop', 'pad'))
  black: float | None = setting(
      None, 'Pixel value that stands for black in float, 16-bit and 32-bit '
      'images; 0 by default.', DATA)
  white: float | None = setting(
      None, 'Pixel value that stands for white in float, 16-bit and 32-bit '
      'images; 1 by default for float, 65,535 for integers.', DATA)
  celeb_top_k: int = setting(
      0, 'Number of top-ranked images to keep per identity of a TSV file; 0 '
      'keeps all.', DATA, lower=0)
  standardise: bool = setting(
      False, 'Whether to standardise each element of the observations of '
      '--dataset=arrays, by its mean and standard deviation over the training '
      'rows. uint8 values are pixels, and stay as they are.', DATA)
  on_bad_image: str = setting(
      'skip', 'Response to images that cannot be used: skip continues without '
      'them, fail stops at the first.', DATA, choices=('skip', 'fail'))
  split_by: str = setting(
      'image', 'Unit that is assigned to training, validation or test: image; '
      'group, a whole group of the first factor\'s grouping; or the name of '
      'another grouping, such as alphabet, for whole groups of that one.',
      SPLITS)
  # None, because the default depends on split_by.
  split_fractions: tuple[float, float] | None = setting(
      None, 'Fractions for validation and test: by default 0.1 and 0.1 of the '
      'images, or 0.25 and 0.25 of the groups if --split_by is a grouping.',
      SPLITS)
  rotations_as_groups: bool = setting(
      False, 'Whether to train on every group rotated by 90, 180 and 270 '
      'degrees as well, as additional groups. Needs --split_by=group, or the '
      'name of another grouping.', SPLITS)
  num_images: int = setting(
      25_000, 'Total number of images of --dataset=shapes, over all splits.',
      SPLITS, lower=1)
  hold_out: str = setting(
      '', 'Combinations or groups held out for testing: for --dataset=shapes '
      'VALUE+VALUE,..., such as triangle+purple,star; for --dataset=fonts one '
      'of combinations, fonts and letters. If empty, none.', SPLITS)
  model: str = setting(
      'mlvae', 'Kind of model; svi has free posteriors in place of an '
      'encoder.', MODEL, choices=('mlvae', 'vae', 'svi'))
  factors: str = setting(
      'content:10:digit,style:10', 'Latent factors as '
      'NAME:DIM[:GROUPING][|GIVEN],...; in style:10|content the encoder of '
      'style also sees the code of content. --model=vae merges them into one '
      'factor with the sum of their dimensions.', MODEL)
  likelihood: str = setting(
      'learned_gaussian', 'Likelihood of an element, such as a pixel, given '
      'the codes, p(x | z).', MODEL, choices=tuple(LIKELIHOODS))
  sigma: float = setting(
      0.15, 'Standard deviation of --likelihood=gaussian, or scale (mean '
      'absolute deviation) of laplace.', MODEL, lower=1e-3)
  num_categories: int = setting(
      0, 'Number of different tokens, for --likelihood=categorical, which '
      'requires it.', MODEL, lower=0)
  network: str = setting(
      'mlp', 'Architecture of encoder and decoder.', MODEL,
      choices=tuple(NETWORKS))
  channels: tuple[int, ...] = setting(
      (32, 64, 128, 256), 'Numbers of channels of the encoder\'s convolutions; '
      'the decoder has them in reverse.', MODEL)
  embedding_size: int = setting(
      32, 'Number of values that represent a token, for --network=tokens.',
      MODEL, lower=1)
  norm_groups: int = setting(
      0, 'Number of channel groups for group normalisation; 0 disables it.',
      MODEL, lower=0)
  hidden_sizes: tuple[int, ...] = setting(
      (500,), 'Numbers of units of the encoder\'s fully connected layers; the '
      'decoder has them in reverse.', MODEL)
  activation: str = setting(
      'tanh', 'Activation function of the hidden layers.', MODEL,
      choices=tuple(ACTIVATIONS))
  dtype: str = setting(
      'float32', 'Floating-point type in which the networks compute; '
      'parameters, evidence and losses stay in float32.', MODEL,
      choices=DTYPES)
  steps: int = setting(
      8000, 'Number of optimisation steps.', OPTIMISATION, lower=1)
  groups_per_batch: int = setting(
      10, 'Maximum number of groups in a step.', BATCHES, lower=1)
  max_group_size: int = setting(
      29, 'Maximum number of images of a group in a step; larger groups are '
      'visited in pieces of at most this size.', BATCHES, lower=1)
  min_group_size: int = setting(
      1, 'Minimum number of images of a group; smaller groups are left out of '
      'training.', BATCHES, lower=1)
  visit: str = setting(
      'images', 'Unit that an epoch visits once: every image, or every group.',
      BATCHES, choices=VISIT)
  subsampling: str = setting(
      'paper', 'Estimate for groups that are cut to --max_group_size: the '
      'paper\'s, which is biased, or an unbiased one.', BATCHES,
      choices=SUBSAMPLING)
  evidence: str = setting(
      'all', 'Images in a batch from which a group\'s posterior is computed in '
      'training: all of the group\'s, or a random number of them, which '
      'trains the code of a single image as well.', BATCHES,
      choices=EVIDENCE)
  # 'free' is missing: --model=svi selects it, together with having no encoder.
  group_posterior: str = setting(
      'product', 'Combination of the posteriors of a group\'s members: the '
      'product of their Normals (the paper\'s); prior_product, the product of '
      'these and the prior; moments, the averages of means and variances; '
      'harmonic, the product\'s mean with the harmonic mean of variances; '
      'adaptive, moments only in dimensions in which the members agree; or '
      'their mixture.', MODEL, choices=tuple(
          name for name, kind in GROUP_POSTERIORS.items()
          if kind.has_encoder))
  batch_size: int = setting(
      256, 'Number of images in a step of a VAE; for grouped models, this '
      'number divided by --max_group_size becomes --groups_per_batch.',
      BATCHES, lower=1)
  learning_rate: float = setting(
      1e-3, 'Learning rate of Adam.', OPTIMISATION, lower=1e-9)
  table_learning_rate: float = setting(
      0.05, 'Learning rate of the free posteriors of --model=svi.',
      OPTIMISATION, lower=1e-9)
  decay_fraction: float = setting(
      0.0, 'Fraction of the steps, at the end of training, over which the '
      'learning rates fall linearly to 0.', OPTIMISATION, lower=0, upper=1)
  kl_weights: str = setting(
      '', 'Weights of the KL terms as FACTOR:WEIGHT,...; \'all\' stands for '
      'every factor.', OBJECTIVE)
  penalties: str = setting(
      '', 'Weights of penalties on the codes of single images as '
      'KIND/FACTOR:WEIGHT,...; \'all\' stands for every factor to which the '
      'kind applies, and the last weight given for a factor counts. Kinds: '
      + '; '.join(f'{name}, {kind.help}' for name, kind in PENALTIES.items())
      + '.', OBJECTIVE)
  augment: str = setting(
      '', 'Random augmentation of training images, separated by commas: flip, '
      'shift:PIXELS, rotate:DEGREES, scale:FRACTION, shear:FRACTION; each '
      'number is the largest change in either direction. share:FRACTION '
      'changes only a part of the images, chosen at random in every step.',
      BATCHES)
  kl_warmup_steps: int = setting(
      0, 'Number of steps over which the weights of the KL terms rise linearly '
      'from 0.', OBJECTIVE, lower=0)
  sample_per: str = setting(
      'row', 'Unit for which a group\'s code is sampled: every image '
      '(algorithm 1), or the group once.', OBJECTIVE, choices=SAMPLE_PER)
  objective: str = setting(
      'preset', 'Objective to start from: the preset\'s; or the paper\'s, with '
      'all members as evidence, no factor given another, and no penalties, '
      'which also sets a constant learning rate of 0.001, no augmentation and, '
      'for digits, the first author\'s network. Other flags override either.',
      OBJECTIVE, choices=('preset', 'paper'))
  seed: int = setting(
      0, 'Random seed of initialisation, batches and noise.', OPTIMISATION,
      lower=0)
  chunk_steps: int = setting(
      100, 'Number of steps between writes to the log and checks for signals.',
      RUN, lower=1)
  eval_every: int = setting(
      500, 'Number of steps between validations.', RUN, lower=1)
  checkpoint_every: int = setting(
      2000, 'Number of steps between checkpoints.', RUN, lower=1)


SETTINGS = flags.settings_of(Config)


def define(*names: str, flag_values: FlagValues = FLAGS,
           **changes: Any) -> None:
  """Defines flags for settings; a flag that is not given has the value None.

  Args:
    *names: names of the settings.
    flag_values: registry in which to define them.
    **changes: attributes of `flags.Setting` to override for these flags.
  """
  # None, not the default of the field: otherwise every flag would override
  # the preset.
  for name in names:
    flags.define(name, dataclasses.replace(
        SETTINGS[name], **{'default': None} | changes), flag_values)


def to_json(config: Config) -> dict[str, Any]:
  """The configuration as plain JSON."""
  return {
      name: list(value) if isinstance(value, tuple) else value
      for name, value in dataclasses.asdict(config).items()}


def from_json(values: Mapping[str, Any]) -> Config:
  """The configuration that `to_json` wrote, also in an older version."""
  # JSON has no tuples; names that are no longer settings are dropped.
  return Config(**{
      name: tuple(value) if isinstance(value, list) else value
      for name, value in (_older_penalties(values) | values).items()
      if name in SETTINGS})


def _older_penalties(values: Mapping[str, Any]) -> dict[str, str]:
  """`penalties` of a config.json in which each kind was its own setting."""
  estimate = 'nonnegative_' if (
      values.get('leakage_estimate') == 'nonnegative') else ''
  kinds = {'contrast': 'contrast', 'leakage': f'{estimate}leakage',
           'mean_leakage': f'{estimate}mean_leakage'}
  return {'penalties': ','.join(
      f'{kind}/{item.strip()}' for name, kind in kinds.items()
      for item in filter(None, values.get(name, '').split(',')))}
