"""The state of a run: whether it is complete, and its numbers."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from experiments.cli import UserError
from experiments.evaluation.results import evaluation_file, read_evaluation
from experiments.evaluation.versions import versions
from experiments.runs.reading import read_run
from experiments.runs.workdir import changed_settings
from experiments.studies.plan import Run
from mlvae_jax.files import write_atomically
from mlvae_jax.training import run_files

# Written last, so a run that has it was trained and evaluated to the end.
RECORD_FILE = 'study.json'


def is_complete(run: Run) -> bool:
  """Whether a run was trained and evaluated with the flags that it has now."""
  record = read_record(run)
  return (record.get('asked') == _asked(run)
          and os.path.exists(_evaluation_path(run))
          and difference(run) is None
          and (run.epochs is not None
               or read_run(run.workdir)[0].steps == run.config.steps))


def difference(run: Run) -> str | None:
  """What a run in the workdir was trained with, if a run cannot resume it.

  Args:
    run: run whose flags were checked.

  Returns:
    A phrase that names the setting and its two values; None if the workdir
    holds no run, or this one.
  """
  if not os.path.exists(os.path.join(run.workdir, run_files.CONFIG_FILE)):
    return None
  before, _ = read_run(run.workdir)
  changed = changed_settings(before, run.config)
  # Its checkpoints have passed the last step.
  if run.epochs is None and before.steps > run.config.steps:
    changed.append('steps')
  if not changed:
    return None
  name = changed[0]
  return (f'{name}={getattr(before, name)}, not '
          f'{getattr(run.config, name)}')


def check_workdirs(runs: list[Run]) -> None:
  """Checks that the workdirs hold no runs of other settings.

  Args:
    runs: runs to perform.

  Raises:
    UserError: when one does.
  """
  for run in runs:
    if found := difference(run):
      raise UserError(
          f'{run.workdir} holds a run with {found}; move it away to train it '
          'again, or choose another --output')


def forget(run: Run) -> None:
  """Marks a run as incomplete, before it is worked on."""
  path = os.path.join(run.workdir, RECORD_FILE)
  if os.path.exists(path):
    os.remove(path)


def remember(run: Run, seconds: float) -> None:
  """Marks a run as complete.

  Args:
    run: the run, trained and evaluated.
    seconds: time that this took, since its last start.
  """
  write_atomically(os.path.join(run.workdir, RECORD_FILE), json.dumps({
      'asked': _asked(run), 'seconds': round(seconds, 1),
      'finished': time.strftime('%Y-%m-%d %H:%M:%S'),
      'versions': versions()}, indent=1) + '\n')


def read_record(run: Run) -> dict[str, Any]:
  """What `remember` wrote; {} without it."""
  try:
    with open(os.path.join(run.workdir, RECORD_FILE),
              encoding='utf-8') as file:
      record = json.load(file)
  except (FileNotFoundError, NotADirectoryError, ValueError):
    return {}  # Without a record the run is only evaluated again.
  return record if isinstance(record, dict) else {}


def read_numbers(run: Run) -> dict[str, Any]:
  """The evaluation of a run; {} if the run is not complete."""
  if run.config is None or not is_complete(run):
    return {}
  return read_evaluation(run.workdir, run.split)


def _asked(run: Run) -> dict[str, Any]:
  """What the configuration of a run does not say."""
  return {'epochs': run.epochs, 'evaluate': dict(run.evaluate)}


def _evaluation_path(run: Run) -> str:
  return os.path.join(run.workdir, evaluation_file(run.split))
