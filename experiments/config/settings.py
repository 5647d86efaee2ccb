"""The settings of a run, each declared once.

Its flag, its place in config.json, `--help` and docs/settings.md follow from a
field of `Config`. After a change:

  python -m experiments.config.settings_table > docs/settings.md
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any

from experiments.config import flags
from experiments.config.flags import Path, setting
from mlvae_jax.data.plan import SUBSAMPLING, VISIT
from mlvae_jax.grouping.group_posteriors import GROUP_POSTERIORS
from mlvae_jax.grouping.posterior import SAMPLE_PER
from mlvae_jax.model.likelihoods import LIKELIHOODS
from mlvae_jax.model.model import DTYPES
from mlvae_jax.model.networks import ACTIVATIONS, NETWORKS
from mlvae_jax.objective.penalties.registry import PENALTIES

DATA, SPLITS, MODEL, OPTIMISATION, BATCHES, OBJECTIVE, RUN = (
    'Data', 'Splits', 'Model', 'Optimisation', 'Batches', 'Objective', 'Run')


@dataclasses.dataclass(frozen=True)
class Config:
  """Everything that determines a run, as config.json holds it."""

  dataset: str = setting('mnist5k', 'Data set, and its preset.', DATA)
  data_dir: Path | None = setting(
      None, 'Folder or file that holds the data set, if it needs any.', DATA)
  store_dir: Path | None = setting(
      None, 'Folder where packed images are kept; ~/.cache/mlvae_jax by '
      'default.', DATA)
  read_as: str = setting(
      'auto', 'Way to read --data_dir where there are several; auto takes the '
      'first of these that it finds: a manifest.csv, a data set of TFDS, .tsv '
      'files of MS-Celeb-1M, a folder per group.', DATA,
      choices=('auto', 'folders', 'manifest', 'tsv', 'tfds'))
  group_level: int = setting(
      0, 'Level of the folder that names an image\'s group; 1 is the first '
      'below --data_dir. Folders with the same name are one group. 0 means 1, '
      'but stops with an error where that looks wrong.', DATA, lower=0)
  image_size: int = setting(
      28, 'Width and height of the images in pixels, for data sets that '
      'resize.', DATA, lower=4, upper=1024)
  resize: str = setting(
      'squeeze', 'Treatment of images that are not square: squeeze ignores '
      'proportions, crop takes the central square, pad adds black.', DATA,
      choices=('squeeze', 'crop', 'pad'))
  black: float | None = setting(
      None, 'Value that is black in float, 16-bit and 32-bit images; 0 by '
      'default.', DATA)
  white: float | None = setting(
      None, 'Value that is white in float, 16-bit and 32-bit images; 1 by '
      'default for float, 65,535 for integers.', DATA)
  celeb_top_k: int = setting(
      0, 'Number of top-ranked images of a TSV to keep per identity; 0 keeps '
      'all.', DATA, lower=0)
  on_bad_image: str = setting(
      'skip', 'Treatment of images that cannot be used: skip passes over them, '
      'fail stops at the first.', DATA, choices=('skip', 'fail'))
  split_by: str = setting(
      'image', 'What is split into training, validation and test: single '
      'images, or whole groups.', SPLITS, choices=('image', 'group'))
  split_fractions: tuple[float, float] | None = setting(
      None, 'Shares of validation and test: by default 0.1 and 0.1 of the '
      'images, or with --split_by=group 0.25 and 0.25 of the groups.', SPLITS)
  num_images: int = setting(
      25_000, 'Number of images of --dataset=shapes, in all splits together.',
      SPLITS, lower=1)
  hold_out: str = setting(
      '', 'Combinations of --dataset=shapes held out for testing: '
      'VALUE+VALUE,..., as in triangle+purple,star; none if empty.', SPLITS)
  model: str = setting(
      'mlvae', 'Kind of model; svi has free posteriors in place of an '
      'encoder.', MODEL, choices=('mlvae', 'vae', 'svi'))
  factors: str = setting(
      'content:10:digit,style:10', 'Latent factors: NAME:DIM[:GROUPING],...; a '
      'VAE joins their dimensions into one.', MODEL)
  likelihood: str = setting(
      'learned_gaussian', 'Likelihood of a pixel, p(x | z).', MODEL,
      choices=tuple(LIKELIHOODS))
  sigma: float = setting(
      0.15, 'Standard deviation of --likelihood=gaussian.', MODEL, lower=1e-3)
  network: str = setting(
      'mlp', 'Kind of network.', MODEL, choices=tuple(NETWORKS))
  channels: tuple[int, ...] = setting(
      (32, 64, 128, 256), 'Channels of the encoder\'s convolutions.', MODEL)
  norm_groups: int = setting(
      0, 'Number of groups of channels in a group norm; 0 for no norm.', MODEL,
      lower=0)
  hidden_sizes: tuple[int, ...] = setting(
      (500,), 'Units of the encoder\'s fully connected layers.', MODEL)
  activation: str = setting(
      'tanh', 'Activation function of the hidden layers.', MODEL,
      choices=tuple(ACTIVATIONS))
  dtype: str = setting(
      'float32', 'Type of numbers that the networks compute with; parameters, '
      'evidence and losses are float32.', MODEL, choices=DTYPES)
  steps: int = setting(
      8000, 'Number of optimisation steps.', OPTIMISATION, lower=1)
  groups_per_batch: int = setting(
      10, 'Number of groups in a step, at most.', BATCHES, lower=1)
  max_group_size: int = setting(
      29, 'Number of images up to which a group stays whole; larger groups are '
      'visited in pieces of at most this size.', BATCHES, lower=1)
  min_group_size: int = setting(
      1, 'Number of images below which a group is left out of training.',
      BATCHES, lower=1)
  visit: str = setting(
      'images', 'What an epoch visits once: every image, or every group.',
      BATCHES, choices=VISIT)
  subsampling: str = setting(
      'paper', 'Estimate for groups that are cut to --max_group_size: the '
      'paper\'s, or one without bias.', BATCHES, choices=SUBSAMPLING)
  group_posterior: str = setting(
      'product', 'Combination of the posteriors of a group\'s members: the '
      'product of Normals, or their mixture.', MODEL, choices=tuple(
          name for name, kind in GROUP_POSTERIORS.items()
          if kind.has_encoder))
  batch_size: int = setting(
      256, 'Number of images in a step of a VAE; for grouped models it sets '
      '--groups_per_batch to this divided by --max_group_size.', BATCHES,
      lower=1)
  learning_rate: float = setting(
      1e-3, 'Learning rate of Adam.', OPTIMISATION, lower=1e-9)
  table_learning_rate: float = setting(
      0.05, 'Learning rate of the free posteriors of --model=svi.',
      OPTIMISATION, lower=1e-9)
  decay_fraction: float = setting(
      0.0, 'Share of the steps, the last ones, over which the learning rates '
      'fall linearly to 0.', OPTIMISATION, lower=0, upper=1)
  kl_weights: str = setting(
      '', 'Weights of the KL terms: FACTOR:WEIGHT,...; \'all\' stands for '
      'every factor.', OBJECTIVE)
  penalties: str = setting(
      '', 'Weights of penalties on codes of single images: '
      'KIND/FACTOR:WEIGHT,...; \'all\' stands for every factor that the kind '
      'fits, and the last weight of a factor counts. Kinds: '
      + '; '.join(f'{name}, {kind.help}' for name, kind in PENALTIES.items())
      + '.', OBJECTIVE)
  augment: str = setting(
      '', 'Augmentation of training images: flip,shift:PIXELS, or one of '
      'them.', BATCHES)
  kl_warmup_steps: int = setting(
      0, 'Number of steps over which the weights of the KL terms rise linearly '
      'from 0.', OBJECTIVE, lower=0)
  sample_per: str = setting(
      'row', 'Sampling of a group\'s code: once per image (algorithm 1), or '
      'once per group.', OBJECTIVE, choices=SAMPLE_PER)
  seed: int = setting(
      0, 'Seed of initialisation, batches and noise.', OPTIMISATION, lower=0)
  chunk_steps: int = setting(
      100, 'Number of steps between writes to the log and checks for signals.',
      RUN, lower=1)
  eval_every: int = setting(
      500, 'Number of steps between validations.', RUN, lower=1)
  checkpoint_every: int = setting(
      2000, 'Number of steps between checkpoints.', RUN, lower=1)


SETTINGS = flags.settings_of(Config)


def define(*names: str, **changes: Any) -> None:
  """Defines flags of settings, which are None where they are not given.

  Args:
    *names: of the settings.
    **changes: what these flags declare otherwise, see `flags.Setting`.
  """
  for name in names:
    flags.define(name, dataclasses.replace(
        SETTINGS[name], **{'default': None} | changes))


def to_json(config: Config) -> dict[str, Any]:
  """The configuration as plain JSON."""
  return {
      name: list(value) if isinstance(value, tuple) else value
      for name, value in dataclasses.asdict(config).items()}


def from_json(values: Mapping[str, Any]) -> Config:
  """The configuration that `to_json` wrote, also that of an older version."""
  return Config(**{
      name: tuple(value) if isinstance(value, list) else value
      for name, value in (_older_penalties(values) | values).items()
      if name in SETTINGS})


def _older_penalties(values: Mapping[str, Any]) -> dict[str, str]:
  """`penalties` of when each kind was a setting of its own."""
  estimate = 'nonnegative_' if (
      values.get('leakage_estimate') == 'nonnegative') else ''
  kinds = {'contrast': 'contrast', 'leakage': f'{estimate}leakage',
           'mean_leakage': f'{estimate}mean_leakage'}
  return {'penalties': ','.join(
      f'{kind}/{item.strip()}' for name, kind in kinds.items()
      for item in filter(None, values.get(name, '').split(',')))}
