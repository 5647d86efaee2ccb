"""Trains a Multi-Level VAE, evaluates it, draws it and writes a report.

  python -m experiments.train                          # 5,000 MNIST digits
  python -m experiments.train --dataset=mnist --data_dir=~/tensorflow_datasets
  python -m experiments.train --dataset=celeb --data_dir=FACES    # by identity
  python -m experiments.train --dataset=folder --data_dir=FOLDER_OF_FOLDERS
  python -m experiments.train --dataset=arrays --data_dir=FILE.npz
  python -m experiments.train --dataset=shapes     # drawn; see --hold_out
  python -m experiments.train --dataset=fonts      # drawn; see --hold_out

The preset of the data set gives every setting; flags override it. Running the
same command again resumes the run in the workdir. With 10 + 10 dimensions on
the digits, expect a classifier to get about 98 % of single images right from
their content codes, and about 16 % from the means of their style codes (chance
is 10 %).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import sys
from typing import Any

from absl import flags

from experiments import cli, datasets
from experiments.config import library, options, settings
from experiments.config.flags import Setting, define
from experiments.config.from_flags import given_settings, make_config
from experiments.config.presets import PRESETS
from experiments.config.settings import OPTIMISATION, RUN, SETTINGS, Config
from experiments.datasets import folder
from experiments.datasets.splits import Splits
from experiments.evaluation import meaning
from experiments.runs import loop, processes
from experiments.runs.build import check_values, make_model, make_stream
from experiments.runs.reading import check_vae
from experiments.runs.workdir import open_workdir, write_scale
from mlvae_jax.model.model import Model

_FLAGS = {
    'epochs': Setting(
        'Number of epochs to train, instead of --steps.', OPTIMISATION, int,
        lower=1),
    'max_to_keep': Setting(
        'Number of newest checkpoints to keep, besides the one with the '
        'highest validation ELBO.', RUN, int, 2, lower=1),
    'resume': Setting(
        'Whether to resume the run in the workdir; if false, a workdir that '
        'holds a run is refused.', RUN, bool, True),
    'eval': Setting('Whether to evaluate after training.', RUN, bool, True),
    'figures': Setting(
        'Whether to draw figures after training.', RUN, bool, True),
}


def main() -> None:
  """Reads the flags and runs the whole job."""
  values = flags.FLAGS.flag_values_dict()
  config = config_from_flags(values)
  workdir = values['workdir'] or os.path.join(
      'runs', f'{config.dataset}-{config.model}')
  processes.start(values)
  data, model = _load(config, values)
  if values['epochs'] is not None:
    # Only the data say how many steps an epoch has.
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
    processes.on_first(lambda: write_scale(workdir, data.scale))
    loop.train(workdir, config, model, data,
               max_to_keep=values['max_to_keep'])
    # The others may exit now; the lock is held until the report is written.
    processes.part()
    if processes.is_first() and (values['eval'] or values['figures']):
      finish(workdir, data, values)


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines the flags of this entry point in a registry."""
  settings.define('dataset', flag_values=flag_values, default='mnist5k',
                  choices=tuple(PRESETS))
  settings.define(*(name for name in SETTINGS if name != 'dataset'),
                  flag_values=flag_values)
  options.define('workdir', flag_values=flag_values,
                 text='Folder of the run; runs/DATASET-MODEL by default.')
  options.define('data_changed', 'vae_workdir', flag_values=flag_values)
  for name, option in _FLAGS.items():
    define(name, option, flag_values)
  processes.define_flags(flag_values)


def config_from_flags(values: dict[str, Any]) -> Config:
  """The preset of --dataset, overridden by the flags that were given.

  Args:
    values: values of the flags by name.

  Returns:
    The configuration. Exits with 2 when the value of a flag makes no sense.
  """
  with cli.checked_flags():
    return checked_config(values)


def checked_config(values: dict[str, Any]) -> Config:
  """As `config_from_flags`; a ValueError when a value makes no sense."""
  datasets.check_fit(values['dataset'], given_settings(values))
  config = make_config(values)
  if values['steps'] is not None and values['epochs'] is not None:
    raise ValueError('give --steps or --epochs, not both')
  # Finds bad values before the data are read. Their channels are not known
  # yet, and do not matter here.
  known = config
  if config.dataset == 'arrays':  # Nor is their shape.
    known = dataclasses.replace(config, network='mlp', augment='')
  model = library.make_model(
      known, (config.image_size, config.image_size, 1))
  library.make_train_config(known, model)
  datasets.check(config)
  return config


def _load(config: Config, values: dict[str, Any]) -> tuple[Splits, Model]:
  """The data and the model, after checking that the run is possible."""
  data = processes.together(lambda: datasets.load(config))
  model = processes.together(lambda: _make_model(config, data))
  processes.together(
      lambda: meaning.check_trainable(config, model, data.train))
  processes.together(lambda: check_values(config, model, data))
  if values['vae_workdir']:  # Fail now, not after training.
    processes.on_first(
        lambda: check_vae(values['vae_workdir'], model.observation_shape))
  if processes.is_first():
    _warn(config, model, data, values)
  return data, model


def _make_model(config: Config, data: Splits) -> Model:
  """The model for the data; exits with 2 when --factors does not fit them."""
  with cli.checked_flags():
    model = make_model(config, data)
    library.make_train_config(config, model)  # Augmentation is of images.
    return model


def _warn(config: Config, model: Model, data: Splits,
          values: dict[str, Any]) -> None:
  """Prints what makes a run meaningless, and which flag has no effect."""
  found = meaning.find_warnings(config, model, data)
  if values['celeb_top_k'] and not folder.store_manifest(config)['top_k']:
    found.append(
        f'--celeb_top_k={config.celeb_top_k} has no effect: the images of '
        f'{config.data_dir} have no search ranks')
  for warning in found:
    print(f'warning: {warning}', file=sys.stderr, flush=True)


def finish(workdir: str, data: Splits, values: dict[str, Any]) -> None:
  """Evaluates, draws and writes the report, as far as the flags ask for it."""
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
