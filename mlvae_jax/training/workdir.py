"""The workdir of `fit`: config.json, which says what it holds, and its lock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import json
import os
from typing import Any

from mlvae_jax.data.augment import Augment
from mlvae_jax.data.content import fingerprint
from mlvae_jax.data.grouped import GroupedData
from mlvae_jax.data.plan import Settings
from mlvae_jax.files import write_atomically
from mlvae_jax.model.model import Model
from mlvae_jax.training import run_files
from mlvae_jax.training.step import TrainConfig

_CHANGEABLE = ('num_steps',)  # Settings that may differ when a run resumes.


@contextlib.contextmanager
def open_workdir(
    workdir: str, model: Model, data: Mapping[str, GroupedData],
    config: TrainConfig, batches: Settings, *, resume: bool) -> Iterator[None]:
  """Creates a workdir with its config.json, or checks an existing one.

  While the context is open, no other run may open the workdir.

  Args:
    workdir: folder of the run.
    model: model of the run.
    data: data of the run, by what they are for.
    config: settings of the optimisation.
    batches: how batches are drawn.
    resume: whether a run that the workdir holds may be resumed.

  Yields:
    Nothing.

  Raises:
    ValueError: where the workdir is in use, or holds a run of another model,
      other settings or other data, or that must not be resumed.
  """
  os.makedirs(workdir, exist_ok=True)
  path = os.path.join(workdir, run_files.CONFIG_FILE)
  # Through JSON, which turns tuples into lists, to compare it with the file's.
  new = json.loads(json.dumps({
      'model': model.to_dict(), 'fit': _settings(config, batches),
      'data': {name: fingerprint(part) for name, part in data.items()}}))
  with run_files.locked(workdir):
    if os.path.exists(path):
      if not resume:
        raise ValueError(
            f'{workdir} already holds a run; choose another workdir, or pass '
            'resume=True')
      old = run_files.read_config(workdir)
      _check_same(workdir, old, new)
      # What is not given this time may be given the next time.
      new['data'] = old['data'] | new['data']
    write_atomically(path, json.dumps(new, indent=2) + '\n')
    yield


def _settings(config: TrainConfig, batches: Settings) -> dict[str, Any]:
  # Both have the same seed.
  return {name: value for name, value in (
      dataclasses.asdict(batches) | dataclasses.asdict(config)).items()
          if name not in _CHANGEABLE}


def _check_same(workdir: str, old: dict[str, Any], new: dict[str, Any]
                ) -> None:
  """Raises a ValueError where a workdir holds another run."""
  if 'fit' not in old:
    raise ValueError(
        f'{workdir} holds a run that mlvae_jax.fit did not make; choose '
        'another workdir')
  if old['model'] != new['model']:
    changed = [name for name, value in new['model'].items()
               if old['model'].get(name) != value]
    raise ValueError(
        f'{workdir} holds a run of another model, which differs in '
        f'{", ".join(changed)}; choose another workdir')
  for name, value in new['fit'].items():
    before = old['fit'].get(name, value)
    if name == 'augment':  # What did not exist at the time was not done.
      before = dataclasses.asdict(Augment()) | before
    if before != value:
      raise ValueError(
          f'{workdir} holds a run with {name}={before}, not {value}; choose '
          'another workdir, or the same settings to resume it')
  for name, found in new['data'].items():
    before = old['data'].get(name, found)
    if before != found:
      raise ValueError(
          f'{workdir} holds a run with different {name}: '
          f'{before["rows"]:,} rows of {before["groups"]:,} groups then, '
          f'{found["rows"]:,} of {found["groups"]:,} now, with different '
          'values; choose another workdir')
