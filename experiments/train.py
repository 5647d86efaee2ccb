"""Trains a Multi-Level VAE, evaluates it, draws it and writes a report.

  python -m experiments.train                          # 5,000 MNIST digits
  python -m experiments.train --dataset=mnist --data_dir=~/tensorflow_datasets
  python -m experiments.train --dataset=celeb --data_dir=FACES    # by identity
  python -m experiments.train --dataset=folder --data_dir=FOLDER_OF_FOLDERS
  python -m experiments.train --dataset=shapes     # drawn; see --hold_out

The data set's preset gives every setting, flags override it. The same command
again resumes what the workdir holds. With 10 + 10 dimensions on the digits,
expect content to classify about 93 % of single images.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import sys
from typing import Any

from absl import flags

from experiments import cli, datasets, prepare
from experiments.config import presets
from experiments.datasets import folder
from experiments.datasets.splits import Splits
from experiments.evaluation import meaning
from experiments.runs import loop, processes
from experiments.runs.build import make_model, make_stream
from experiments.runs.workdir import (
    check_vae,
    define_data_changed_flag,
    open_workdir,
)
from mlvae_jax.data.index_stream import SUBSAMPLING, VISIT
from mlvae_jax.grouping.group_posteriors import GROUP_POSTERIORS, SAMPLE_PER
from mlvae_jax.model.likelihoods import LIKELIHOODS
from mlvae_jax.model.model import DTYPES, Model
from mlvae_jax.model.networks import ACTIVATIONS, NETWORKS
from mlvae_jax.objective import penalties


def main() -> None:
  """Reads the flags and runs the whole job."""
  values = flags.FLAGS.flag_values_dict()
  config = config_from_flags(values)
  workdir = values['workdir'] or os.path.join(
      'runs', f'{config.dataset}-{config.model}')
  processes.start(values)
  data = processes.together(lambda: datasets.load(config))
  model = processes.together(lambda: make_model(config, data))
  processes.together(
      lambda: meaning.check_trainable(config, model, data.train))
  if values['vae_workdir']:  # Fail now, not after training.
    processes.on_first(
        lambda: check_vae(values['vae_workdir'], model.image_shape))
  if processes.is_first():
    _warn(config, model, data, values)
  if values['epochs'] is not None:
    stream = make_stream(model, data.train, config)
    config = dataclasses.replace(
        config, steps=values['epochs'] * stream.steps_per_epoch)
  with contextlib.ExitStack() as stack:
    processes.on_first(lambda: stack.enter_context(
        open_workdir(
            workdir, config, model, data.content, resume=values['resume'],
            data_changed=values['data_changed'])))
    bad_images = folder.bad_images(config)
    if bad_images and processes.is_first():
      shutil.copy(bad_images, os.path.join(workdir, 'bad_images.jsonl'))
    loop.train(workdir, config, model, data,
               max_to_keep=values['max_to_keep'])
    processes.part()
    if processes.is_first() and (values['eval'] or values['figures']):
      finish(workdir, data, values)


def define_flags() -> None:
  """Defines the flags of this entry point."""
  flags.DEFINE_enum(
      'dataset', 'mnist5k', list(presets.PRESETS), 'Data set, and its preset.')
  prepare.define_store_flags()
  define_data_changed_flag()
  cli.define_path(
      'workdir', None, 'Folder of the run; runs/DATASET-MODEL by default.')
  flags.DEFINE_enum(
      'model', None, ['mlvae', 'vae', 'svi'],
      'Kind of model; svi has free posteriors in place of an encoder.')
  flags.DEFINE_string(
      'factors', None, 'Latent factors: NAME:DIM[:GROUPING],...')
  flags.DEFINE_enum('likelihood', None, list(LIKELIHOODS), 'p(x | z).')
  flags.DEFINE_float(
      'sigma', None, 'Standard deviation of --likelihood=gaussian.',
      lower_bound=1e-3)
  flags.DEFINE_enum('network', None, list(NETWORKS), 'Kind of network.')
  flags.DEFINE_list(
      'channels', None, 'Channels of the encoder\'s convolutions.')
  flags.DEFINE_integer(
      'norm_groups', None, 'Groups of channels of a group norm; 0 for none.',
      lower_bound=0)
  flags.DEFINE_list(
      'hidden_sizes', None, 'Units of the encoder\'s fully connected layers.')
  flags.DEFINE_enum('activation', None, list(ACTIVATIONS),
      'Activation function of hidden layers.')
  flags.DEFINE_enum(
      'dtype', None, list(DTYPES), 'Type of numbers that the networks compute '
      'with; parameters, evidence and losses are float32.')
  flags.DEFINE_integer('steps', None, 'Optimisation steps.', lower_bound=1)
  flags.DEFINE_integer(
      'epochs', None, 'Passes over the images, instead of --steps.',
      lower_bound=1)
  flags.DEFINE_integer(
      'groups_per_batch', None, 'Groups per step.', lower_bound=1)
  flags.DEFINE_integer(
      'max_group_size', None,
      'Larger groups are visited in pieces of at most this many images.',
      lower_bound=1)
  flags.DEFINE_integer(
      'min_group_size', None, 'Smaller groups are left out of training.',
      lower_bound=1)
  flags.DEFINE_enum(
      'visit', None, list(VISIT),
      'What an epoch visits once: every image, or every group.')
  flags.DEFINE_enum(
      'subsampling', None, list(SUBSAMPLING),
      'Of groups that are cut to --max_group_size: as the paper does, or '
      'without bias.')
  flags.DEFINE_enum(
      'group_posterior', None, list(GROUP_POSTERIORS),
      'How the posteriors of a group\'s members are combined.')
  flags.DEFINE_integer(
      'batch_size', None,
      'Images per step; for grouped models it sets --groups_per_batch to this '
      'divided by --max_group_size.', lower_bound=1)
  flags.DEFINE_float(
      'learning_rate', None, 'Learning rate of Adam.', lower_bound=1e-9)
  flags.DEFINE_float(
      'table_learning_rate', None,
      'Learning rate of the posteriors of --model=svi.',
      lower_bound=1e-9)
  flags.DEFINE_float(
      'decay_fraction', None, 'Share of the steps, the last ones, over which '
      'the learning rates fall linearly to 0.', lower_bound=0, upper_bound=1)
  flags.DEFINE_string(
      'kl_weights', None, 'Weights of the KL terms: FACTOR:WEIGHT,...; '
      '\'all\' stands for every factor.')
  flags.DEFINE_string(
      'contrast', None, 'Weights of the penalties that make a factor\'s code '
      'of single images reveal their group: FACTOR:WEIGHT,...; \'all\' stands '
      'for every grouped factor.')
  flags.DEFINE_string(
      'leakage', None, 'Weights of the penalties on what a factor\'s code '
      'reveals about the groups of other factors: FACTOR:WEIGHT,...; \'all\' '
      'stands for every factor that has a factor of another grouping beside '
      'it.')
  flags.DEFINE_string(
      'mean_leakage', None, 'Like --leakage, but on the code\'s standardised '
      'means, without sampling noise: FACTOR:WEIGHT,...; \'all\' as there.')
  flags.DEFINE_enum(
      'leakage_estimate', None, list(penalties.ESTIMATES),
      'How leakage is estimated: unbiased (training may push it below 0 by '
      'making members of a group repel each other), or nonnegative (never '
      'below 0).')
  flags.DEFINE_string(
      'augment', None,
      'Augmentation of training images: flip,shift:PIXELS, or one of them.')
  flags.DEFINE_integer(
      'kl_warmup_steps', None, 'Linear warm-up of the KL terms.', lower_bound=0)
  flags.DEFINE_enum(
      'sample_per', None, list(SAMPLE_PER),
      'Draw a group\'s code once per image (algorithm 1) or per group.')
  flags.DEFINE_integer(
      'seed', None, 'Seed of everything random.', lower_bound=0)
  flags.DEFINE_enum(
      'split_by', None, ['image', 'group'],
      'Split single images, or whole groups, into training, validation and '
      'test.')
  flags.DEFINE_list(
      'split_fractions', None, 'Shares of the images, or with --split_by=group '
      'of the groups, for validation and test.')
  flags.DEFINE_integer(
      'num_images', None, 'Images of --dataset=shapes, of all splits.',
      lower_bound=1)
  flags.DEFINE_string(
      'hold_out', None, 'Combinations of --dataset=shapes held out for '
      'testing: VALUE+VALUE,..., as in triangle+purple,star; none if empty.')
  flags.DEFINE_integer(
      'eval_every', None, 'Steps between validations.', lower_bound=1)
  flags.DEFINE_integer(
      'checkpoint_every', None, 'Steps between checkpoints.', lower_bound=1)
  flags.DEFINE_integer(
      'max_to_keep', 2, 'How many of the newest checkpoints are kept, besides '
      'the best by validation.', lower_bound=1)
  flags.DEFINE_integer(
      'chunk_steps', None,
      'Steps between writes to the log and checks for signals.',
      lower_bound=1)
  processes.define_flags()
  flags.DEFINE_bool(
      'resume', True, 'Resume what the workdir holds; false refuses to.')
  flags.DEFINE_bool('eval', True, 'Evaluate after training.')
  flags.DEFINE_bool('figures', True, 'Draw figures after training.')
  cli.define_path(
      'vae_workdir', None, 'Run of a VAE to compare with in the evaluation.')


def config_from_flags(values: dict[str, Any]) -> presets.Config:
  """The preset of --dataset with the flags that were given on top.

  Exits with 2 where a flag's value makes no sense.
  """
  _check_data_set(values)
  preset = presets.PRESETS[values['dataset']]
  names = {field.name for field in dataclasses.fields(preset)}
  given = {name: value for name, value in values.items()
           if name in names and value is not None}
  for name in ('hidden_sizes', 'channels'):
    if name in given:
      given[name] = _numbers(name, given[name], int)
  if 'split_fractions' in given:
    given['split_fractions'] = _fractions(given['split_fractions'])
  if given.get('model') in ('vae', 'svi'):
    # The preset's penalties need groups, and an encoder.
    given = {'contrast': '', 'leakage': '', 'mean_leakage': ''} | given
  if 'batch_size' in given and given.get('model', preset.model) != 'vae':
    if 'groups_per_batch' in given:
      cli.bad_flag('give --batch_size or --groups_per_batch, not both')
    given['groups_per_batch'] = _groups_per_batch(
        given['batch_size'],
        given.get('max_group_size', preset.max_group_size))
  try:
    config = dataclasses.replace(preset, **given)
    model = presets.make_model(
        config, (config.image_size, config.image_size, 1))
    presets.make_train_config(config, model)
  except ValueError as error:
    cli.bad_flag(str(error))
  if values['steps'] is not None and values['epochs'] is not None:
    cli.bad_flag('give --steps or --epochs, not both')
  return config


def _check_data_set(values: dict[str, Any]) -> None:
  """Exits with 2 where a flag was given that the data set disregards."""
  fitting = dict.fromkeys(('hold_out', 'num_images'), ('shapes',))
  fitting |= dict.fromkeys(
      ('celeb_top_k', 'resize', 'black', 'white', 'read_as', 'group_level',
       'split_by', 'split_fractions'), tuple(folder.GROUPINGS))
  for name, known in fitting.items():
    if values.get(name) is not None and values['dataset'] not in known:
      cli.bad_flag(f'--{name} is for --dataset={" or ".join(known)}, not '
                   f'{values["dataset"]}')


def _groups_per_batch(batch_size: int, max_group_size: int) -> int:
  """Groups a step; exits with 2 where not even one fits."""
  if batch_size < max_group_size:
    cli.bad_flag(
        f'--batch_size={batch_size} does not hold a group of --max_group_size='
        f'{max_group_size} images; give a larger --batch_size or a smaller '
        '--max_group_size')
  return batch_size // max_group_size


def _warn(config: presets.Config, model: Model, data: Splits,
          values: dict[str, Any]) -> None:
  """Says what makes a run meaningless, and what flag does nothing."""
  found = meaning.find_warnings(config, model, data)
  if values['celeb_top_k'] and not folder.store_manifest(config)['top_k']:
    found.append(
        f'--celeb_top_k={config.celeb_top_k} does nothing: the images of '
        f'{config.data_dir} have no search ranks')
  for warning in found:
    print(f'warning: {warning}', file=sys.stderr, flush=True)


def _numbers(name: str, values: list[str], kind: type) -> tuple:
  try:
    return tuple(map(kind, values))
  except ValueError:
    what = 'integers' if kind is int else 'numbers'
    cli.bad_flag(f'expected --{name} as comma-separated {what}, got '
                 + ','.join(values))


def _fractions(values: list[str]) -> tuple[float, float]:
  shares = _numbers('split_fractions', values, float)
  if len(shares) != 2 or not (min(shares) > 0 and sum(shares) < 1):
    cli.bad_flag(
        'expected --split_fractions as the shares of validation and test, '
        'above 0 and together below 1, got ' + ','.join(values))
  return shares


def finish(workdir: str, data: Splits, values: dict[str, Any]) -> None:
  """Evaluates, draws and reports, as the flags ask for."""
  from experiments import evaluate, figures, report  # Slow to import.

  if values['eval']:
    evaluation = evaluate.evaluate(
        workdir, data, vae_workdir=values['vae_workdir'])
  if values['figures']:
    figures.draw_all(workdir, data)
  path = report.write(workdir)
  if values['eval']:
    print(report.summary(evaluation))
  print(f'report: {path}')


if __name__ == '__main__':
  define_flags()
  cli.run(main)
