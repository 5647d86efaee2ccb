"""A run: its model and data feeds, and the config.json of its workdir."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import fcntl
import json
import os
import socket
from typing import Any

from experiments import cli, datasets
from experiments.cli import UserError
from experiments.config.settings import Config, from_json, to_json
from experiments.datasets import folder
from experiments.datasets.splits import Splits
from mlvae_jax.model.model import Model, Params
from mlvae_jax.training import loading, run_files

_DATA = 'data'  # Of config.json: what the data are, see `Splits.content`.
# What may differ when a run is resumed.
_FREE_TO_CHANGE = (
    'steps', 'data_dir', 'store_dir', 'on_bad_image', 'chunk_steps',
    'eval_every', 'checkpoint_every')


@contextlib.contextmanager
def open_workdir(workdir: str, config: Config, model: Model,
                 content: Mapping[str, Any] | None = None, *, resume: bool,
                 data_changed: str = 'refuse') -> Iterator[None]:
  """Makes a workdir with its config.json, or checks the one that is there.

  While the context lasts, no other run may open the workdir.

  Args:
    workdir: the folder.
    config: of this run.
    model: of this run.
    content: of its data, as `Splits` has it; None neither records nor
      compares it.
    resume: False refuses a workdir that holds a run.
    data_changed: 'refuse', or 'accept' data other than the run's.

  Yields:
    Nothing.

  Raises:
    UserError: when the workdir is in use, holds a run of another
      configuration or other data, or one that is not to be resumed.
  """
  path = os.path.join(workdir, run_files.CONFIG_FILE)
  os.makedirs(workdir, exist_ok=True)
  with _locked(workdir):
    if os.path.exists(path):
      if not resume:
        raise UserError(
            f'{workdir} holds a run already; choose another --workdir, or '
            'resume it with --resume')
      _check_same_run(workdir, config, model)
      if content is not None and data_changed != 'accept':
        check_data(workdir, config, content)
      if config.steps < (loading.find_step(workdir, 'latest') or 0):
        yield  # Nothing is trained: config.json says what was.
        return
    cli.write_atomically(path, json.dumps(
        {'config': to_json(config), 'model': model.to_dict(),
         **({} if content is None else {_DATA: content})}, indent=2) + '\n')
    yield


@contextlib.contextmanager
def _locked(workdir: str) -> Iterator[None]:
  """Holds a lock that ends with the process, however it ends."""
  with open(os.path.join(workdir, 'lock'), 'a+', encoding='utf-8') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      file.seek(0)
      raise UserError(
          f'{workdir} is in use by {file.read().strip() or "another run"}; '
          'wait for its end, or choose another --workdir') from None
    except OSError:
      pass  # Some network file systems have no locks.
    file.truncate(0)
    file.write(f'process {os.getpid()} on {socket.gethostname()}\n')
    file.flush()
    yield


def read_run(workdir: str) -> tuple[Config, dict[str, Any]]:
  """The configuration of a run, and all of its config.json.

  Args:
    workdir: of the run.

  Returns:
    Both.

  Raises:
    UserError: when there is no run, or no readable configuration.
  """
  try:
    values = run_files.read_config(workdir)
    return from_json(values['config']), values
  except (ValueError, KeyError, TypeError) as error:
    raise UserError(
        f'cannot read the configuration of {workdir}: {error}') from error


def load_model(workdir: str, step: int | str = 'latest'
               ) -> tuple[Model, Params]:
  """The trained model of a run; a UserError where it cannot be loaded."""
  try:
    return loading.load(workdir, step)
  except ValueError as error:
    raise UserError(f'cannot load the model of {workdir}: {error}') from error


def check_vae(workdir: str, image_shape: tuple[int, int, int]) -> None:
  """Checks what --vae_workdir names.

  Args:
    workdir: that should hold a run of a VAE.
    image_shape: of the images that it is to encode.

  Raises:
    UserError: when it does not, or it is of other images.
  """
  config, values = read_run(workdir)
  model = Model.from_dict(values['model'])
  if config.model != 'vae':
    raise UserError(
        f'--vae_workdir={workdir} is a run of --model={config.model}, not of '
        'a VAE; train one with --model=vae')
  if model.image_shape != tuple(image_shape):
    raise UserError(
        f'--vae_workdir={workdir} is a VAE of images of '
        f'{list(model.image_shape)}, but these are of {list(image_shape)}; '
        'train one on the same data')


def load_data(workdir: str, *, data_changed: str = 'refuse',
              **moved: str | None) -> Splits:
  """Loads the data set of a run.

  Args:
    workdir: of the run.
    data_changed: 'refuse', or 'accept' other data than the run recorded, and
      record these.
    **moved: new values of data_dir and store_dir; None keeps the run's.

  Returns:
    The splits.

  Raises:
    UserError: when the data are not those of the run.
  """
  config, values = read_run(workdir)
  # The notes name flags of training.
  data = datasets.load(
      dataclasses.replace(
          config, **{name: path for name, path in moved.items() if path}),
      show_notes=False)
  if data_changed != 'accept':
    check_data(workdir, config, data.content)
  elif values.get(_DATA) != data.content:
    cli.write_atomically(
        os.path.join(workdir, run_files.CONFIG_FILE),
        json.dumps(values | {_DATA: data.content}, indent=2) + '\n')
  return data


def check_data(workdir: str, config: Config,
               content: Mapping[str, Any]) -> None:
  """Checks that data are those that a run recorded.

  Args:
    workdir: of the run.
    config: of the run.
    content: of the data, as `Splits` has it.

  Raises:
    UserError: when they are not: images that were trained on could be in the
      test split.
  """
  old = read_run(workdir)[1].get(_DATA)
  if old == content or old is None and config.dataset not in folder.GROUPINGS:
    return
  if old is None:
    what = (f'{workdir} was trained before runs recorded their data, and '
            'images were split in another way then: some that it was trained '
            'on may be in the test split now')
  else:
    what = (f'the data of {workdir} have changed since it was trained: '
            + _difference(old, content))
  raise UserError(
      f'{what}; restore the data, train in another --workdir, or take the data '
      'as they are now with --data_changed=accept')


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
  """In words, how two contents of data differ."""
  def size(content):
    return (f'{content["num_images"]:,} images of {content["num_groups"]:,} '
            'groups')

  if size(old) != size(new):
    return f'{size(old)} then, {size(new)} now'
  if old['names'] != new['names']:
    return f'{size(new)}, but not the same ones'
  return 'the same names, but other pixels'


def require_workdir(workdir: str | None) -> str:
  """The workdir that a flag names; exits with 2 where none is named.

  A UserError says at the start, not after hours, that it cannot be written to.
  """
  if not workdir:
    cli.bad_flag('--workdir is required: the folder of a run')
  if os.path.isdir(workdir):
    cli.check_writable(workdir)
  return workdir


def parse_step(text: str) -> int | str:
  """What --step names; exits with 2 where that is nothing."""
  if text in ('latest', 'best'):
    return text
  if not text.isdigit():
    cli.bad_flag(f'expected --step=latest, best or a number, got {text!r}')
  return int(text)


def _check_same_run(workdir: str, config: Config, model: Model
                    ) -> None:
  try:
    old = run_files.read_config(workdir)
  except ValueError as error:
    raise UserError(f'{error}; choose another --workdir') from error
  # What an older version did not know yet, it did as the defaults say.
  before = to_json(from_json(old.get('config', {})))
  now = to_json(config)
  changed = [name for name, value in now.items()
             if before[name] != value and name not in _FREE_TO_CHANGE]
  if 'split_fractions' in changed and _DATA not in old:
    # It was of groups alone then; `check_data` says what counts.
    changed.remove('split_fractions')
  if changed:
    # --batch_size sets groups_per_batch, too: the user knows the former.
    name = 'batch_size' if 'batch_size' in changed else changed[0]
    raise UserError(
        f'{workdir} holds a run with {name}={before[name]}, not {now[name]}; '
        'choose another --workdir, or the same settings to resume it')
  if Model.from_dict(old['model']) != model:
    raise UserError(
        f'{workdir} holds a run of another model, for images of '
        f'{old["model"].get("image_shape")}; choose another --workdir')
