"""Reading a run: its configuration, its model and its data."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import json
import os
from typing import Any

from experiments import datasets
from experiments.cli import UserError
from experiments.config.settings import Config, from_json
from experiments.datasets import folder
from experiments.datasets.splits import Splits
from mlvae_jax.files import write_atomically
from mlvae_jax.model.model import Model, Params
from mlvae_jax.training import loading, run_files

DATA = 'data'  # Key of config.json: what the data are, see `Splits.content`.


def read_run(workdir: str) -> tuple[Config, dict[str, Any]]:
  """Reads the configuration of a run.

  Args:
    workdir: folder of the run.

  Returns:
    The configuration, and the whole content of config.json.

  Raises:
    UserError: when there is no run, or no readable configuration.
  """
  try:
    values = run_files.read_config(workdir)
    config = from_json(values['config'])
    Model.from_dict(values['model'])
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(
        f'cannot read the configuration of {workdir}: {error}; restore '
        f'{run_files.CONFIG_FILE}, or train in another --workdir') from error
  if DATA in values and not _is_content(values[DATA]):
    raise UserError(
        f'the record of the data in {run_files.CONFIG_FILE} of {workdir} is '
        'damaged; restore it, or train in another --workdir')
  return config, values


def _is_content(recorded: Any) -> bool:
  """Whether it is what `Splits.content` gives."""
  return isinstance(recorded, dict) and {
      'num_images', 'num_groups', 'names'} <= set(recorded) and all(
          isinstance(recorded[name], int)
          for name in ('num_images', 'num_groups'))


def load_model(workdir: str, step: int | str = 'latest'
               ) -> tuple[Model, Params]:
  """The trained model of a run; a UserError when it cannot be loaded."""
  try:
    return loading.load(workdir, step)
  except ValueError as error:
    raise UserError(f'cannot load the model of {workdir}: {error}') from error


def check_vae(workdir: str, observation_shape: tuple[int, int, int]) -> None:
  """Checks the run that --vae_workdir names.

  Args:
    workdir: folder that should hold a run of a VAE.
    observation_shape: shape of the images that the VAE is to encode.

  Raises:
    UserError: when there is no VAE, or it is for images of another shape.
  """
  config, values = read_run(workdir)
  model = Model.from_dict(values['model'])
  if config.model != 'vae':
    raise UserError(
        f'--vae_workdir={workdir} is a run of --model={config.model}, not of '
        'a VAE; train one with --model=vae')
  if model.observation_shape != tuple(observation_shape):
    raise UserError(
        f'--vae_workdir={workdir} is a VAE for observations of shape '
        f'{list(model.observation_shape)}, but these have '
        f'{list(observation_shape)}; train one on the same data')


def load_data(workdir: str, *, data_changed: str = 'refuse',
              **moved: str | None) -> Splits:
  """Loads the data set of a run.

  Args:
    workdir: folder of the run.
    data_changed: 'refuse'; or 'accept' to take data other than those recorded,
      and to record them, which an SVI run cannot do.
    **moved: new values of data_dir and store_dir; None keeps those of the run.

  Returns:
    The splits.

  Raises:
    UserError: when the data are not those of the run.
  """
  config, values = read_run(workdir)
  # Notes are not shown, because they name flags that only training has.
  data = datasets.load(
      dataclasses.replace(
          config, **{name: path for name, path in moved.items() if path}),
      show_notes=False)
  if data_changed != 'accept' or config.model == 'svi':
    check_data(workdir, config, data.content)
  elif values.get(DATA) != data.content:
    write_atomically(
        os.path.join(workdir, run_files.CONFIG_FILE),
        json.dumps(values | {DATA: data.content}, indent=2) + '\n')
  return data


def check_data(workdir: str, config: Config,
               content: Mapping[str, Any]) -> None:
  """Checks that data are the ones that a run recorded.

  Args:
    workdir: folder of the run.
    config: configuration of the run.
    content: content of the data, as in `Splits`.

  Raises:
    UserError: when they differ, because images that the run was trained on
      could then be in the test split.
  """
  old = read_run(workdir)[1].get(DATA)
  # Older runs recorded nothing; data sets that are not the user's never change.
  if old == content or old is None and config.dataset not in folder.GROUPINGS:
    return
  if old is None:
    what = (f'{workdir} was trained before runs recorded their data, when '
            'images were split differently: some of its training images may be '
            'in the test split now')
  else:
    what = (f'the data of {workdir} have changed since it was trained: '
            + _difference(old, content, config.dataset == 'arrays'))
  if config.model == 'svi':
    raise UserError(
        f'{what}; restore the data, or train in another --workdir: a posterior '
        'of every image is part of the run')
  raise UserError(
      f'{what}; restore the data, train in another --workdir, or accept the '
      'data as they are now with --data_changed=accept')


def _difference(old: Mapping[str, Any], new: Mapping[str, Any],
                are_rows: bool) -> str:
  """The difference between two contents of data, in words."""
  def size(content):
    return (f'{content["num_images"]:,} {"rows" if are_rows else "images"} of '
            f'{content["num_groups"]:,} groups')

  if size(old) != size(new):
    return f'{size(old)} then, {size(new)} now'
  if old['names'] != new['names']:
    return f'{size(new)}, but not the same ones'
  return f'the same names, but different {"values" if are_rows else "pixels"}'


def parse_step(text: str) -> int | str:
  """The value of --step; a ValueError if it is not a step."""
  if text in ('latest', 'best'):
    return text
  if not text.isdigit():
    raise ValueError(
        f'expected --step=latest, best or a number, got {text!r}')
  return int(text)
