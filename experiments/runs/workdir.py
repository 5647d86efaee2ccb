"""The workdir of a run: its config.json, and who may write to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import contextlib
import io
import json
import os
from typing import Any
import zipfile

import numpy as np

from experiments import cli
from experiments.cli import UserError
from experiments.config.settings import Config, to_json
from experiments.datasets.splits import Scale
from experiments.runs.reading import DATA, check_data, read_run
from mlvae_jax.files import write_atomically
from mlvae_jax.model.model import Model
from mlvae_jax.training import loading, run_files

SCALE_FILE = 'scale.npz'  # Mean and standard deviation of what is standardised.
# Settings that may differ when a run resumes.
_FREE_TO_CHANGE = (
    'steps', 'data_dir', 'store_dir', 'on_bad_image', 'chunk_steps',
    'eval_every', 'checkpoint_every')


@contextlib.contextmanager
def open_workdir(workdir: str, config: Config, model: Model,
                 content: Mapping[str, Any] | None = None, *, resume: bool,
                 data_changed: str = 'refuse') -> Iterator[None]:
  """Creates a workdir with its config.json, or checks an existing one.

  While the context is open, no other run may open the workdir.

  Args:
    workdir: folder of the run.
    config: configuration of this run.
    model: model of this run.
    content: content of its data, as in `Splits`; None neither records nor
      compares it.
    resume: whether a run that the workdir holds may be resumed.
    data_changed: 'refuse'; or 'accept' to take data other than those recorded.

  Yields:
    Nothing.

  Raises:
    UserError: when the workdir is in use, or holds a run that has another
      configuration or other data, or that must not be resumed.
  """
  path = os.path.join(workdir, run_files.CONFIG_FILE)
  os.makedirs(workdir, exist_ok=True)
  with _locked(workdir):
    if os.path.exists(path):
      if not resume:
        raise UserError(
            f'{workdir} already holds a run; choose another --workdir, or '
            'resume it with --resume')
      _check_same_run(workdir, config, model)
      if content is not None and (
          data_changed != 'accept' or config.model == 'svi'):
        check_data(workdir, config, content)
      if config.steps < (loading.find_step(workdir, 'latest') or 0):
        yield  # Nothing is trained, so config.json stays true as it is.
        return
    write_atomically(path, json.dumps(
        {'config': to_json(config), 'model': model.to_dict(),
         **({} if content is None else {DATA: content})}, indent=2) + '\n')
    yield


@contextlib.contextmanager
def _locked(workdir: str) -> Iterator[None]:
  """Holds the library's lock of a workdir."""
  with contextlib.ExitStack() as stack:
    try:
      stack.enter_context(run_files.locked(workdir))
    except ValueError as error:
      raise UserError(f'{error} --workdir') from error
    yield


def write_scale(workdir: str, scale: Scale | None) -> None:
  """Writes the mean and standard deviation of standardised data.

  Args:
    workdir: folder of the run.
    scale: mean and standard deviation; None if nothing is standardised.
  """
  if scale is None:
    return
  content = io.BytesIO()
  np.savez(content, **scale._asdict())
  write_atomically(os.path.join(workdir, SCALE_FILE), content.getvalue())


def read_scale(workdir: str) -> Scale | None:
  """What `write_scale` wrote; None if there is no such file."""
  path = os.path.join(workdir, SCALE_FILE)
  if not os.path.exists(path):
    return None
  try:
    with np.load(path, allow_pickle=False) as file:
      return Scale(file['mean'], file['std'])
  except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
    raise UserError(
        f'{path} is damaged ({error}); run the same experiments.train again, '
        'which writes it again') from error


def require_workdir(workdir: str | None) -> str:
  """The workdir that a flag names; exits with 2 if none is named.

  A folder that cannot be written to is a UserError now, and not after hours.
  """
  if not workdir:
    cli.bad_flag('--workdir is required: the folder of a run')
  if os.path.isdir(workdir):
    cli.check_writable(workdir)
  return workdir


def changed_settings(before: Config, now: Config) -> list[str]:
  """Names of the settings that differ, and may not when a run resumes.

  Args:
    before: configuration that the run recorded. Settings that an older version
      did not have got their defaults, which are what it did.
    now: configuration to resume it with.

  Returns:
    The names, in the order of the settings.
  """
  old = to_json(before)
  return [name for name, value in to_json(now).items()
          if old[name] != value and name not in _FREE_TO_CHANGE]


def _check_same_run(workdir: str, config: Config, model: Model
                    ) -> None:
  old_config, old = read_run(workdir)
  changed = changed_settings(old_config, config)
  if 'split_fractions' in changed and DATA not in old:
    # It used to apply to groups only; `check_data` compares the splits.
    changed.remove('split_fractions')
  if changed:
    # --batch_size also sets groups_per_batch; name the flag that was given.
    name = 'batch_size' if 'batch_size' in changed else changed[0]
    raise UserError(
        f'{workdir} holds a run with {name}={to_json(old_config)[name]}, not '
        f'{to_json(config)[name]}; choose another --workdir, or the same '
        'settings to resume it')
  if Model.from_dict(old['model']) != model:
    raise UserError(
        f'{workdir} holds a run of another model, for observations of shape '
        f'{list(Model.from_dict(old["model"]).observation_shape)}; choose '
        'another --workdir')
