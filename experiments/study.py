"""Runs a comparison: settings × seeds × data sets, given by one TOML file.

  python -m experiments.study separation --define=DATA=~/tensorflow_datasets
  python -m experiments.study my_study.toml --only=paper --seeds=0
  python -m experiments.study separation --dry_run

The studies of this package are in experiments/studies/; definition.py there
explains the form of the file. Each run is trained and
evaluated in a folder of its own. Running the same command again skips the runs
that are complete, and resumes the others. After each run, table.md, table.csv,
the figures and index.html in the study's folder are written again.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import os
import re

from absl import flags

from experiments import cli
from experiments.cli import UserError
from experiments.config.flags import Path, Setting, define, expand_path

_SUBJECT = 'Study'
_FLAGS = {
    'output': Setting(
        'Folder of the study and its runs; runs/studies/NAME by default.',
        _SUBJECT, Path),
    'define': Setting(
        'Values that replace $NAME in the file, as NAME=VALUE,...; others are '
        'taken from the environment.', _SUBJECT, tuple, ()),
    'only': Setting(
        'Names of the settings and data sets to run, separated by commas; all '
        'by default. Tables and figures still show the others.', _SUBJECT,
        tuple, ()),
    'seeds': Setting(
        'Seeds to run, separated by commas; all seeds of the study by default.',
        _SUBJECT, tuple, ()),
    'jobs': Setting(
        'Number of runs to perform at the same time.', _SUBJECT, int, 1,
        lower=1),
    'gpus': Setting(
        'Numbers of the GPUs to use, separated by commas, one for each of the '
        '--jobs in turn; by default every run sees all devices.', _SUBJECT,
        tuple, ()),
    'evaluate_again': Setting(
        'Whether to evaluate complete runs again, for example after the '
        'evaluation has been extended; they are not trained again.', _SUBJECT,
        bool, False),
    'dry_run': Setting(
        'Whether to show the commands without running them.', _SUBJECT, bool,
        False),
}


def main(arguments: list[str]) -> None:
  """Reads the study and the flags, and performs the runs that are not complete.

  Args:
    arguments: name or path of the study.
  """
  from experiments.studies import output, plan, reading, runner, state

  values = flags.FLAGS.flag_values_dict()
  if len(arguments) != 1:
    cli.bad_flag('expected the name of one study, or the path of its .toml '
                 f'file; this package has {", ".join(reading.names())}')
  study = reading.read(arguments[0])
  folder = values['output'] or os.path.join('runs', 'studies', study.name)
  with cli.checked_flags():
    runs = plan.make_runs(
        study, folder, variables=os.environ | _variables(values['define']),
        only=values['only'], seeds=_seeds(values['seeds']))
  selected = [run for run in runs if run.selected]
  state.check_workdirs(selected)
  complete = [run for run in selected if state.is_complete(run)]
  rest = [run for run in selected
          if values['evaluate_again'] or run not in complete]
  print(f'{study.title}: {len(complete)} of {len(selected)} runs '
        'are complete', flush=True)
  if values['dry_run']:
    for run in rest:
      print(*map(output.command, plan.commands(run)), sep='\n')
    return
  os.makedirs(folder, exist_ok=True)
  cli.check_writable(folder)
  with _locked(folder):
    page = output.write(study, runs, folder)
    failures = runner.perform(
        rest, jobs=values['jobs'], gpus=values['gpus'],
        after=lambda: output.write(study, runs, folder))
  with open(os.path.join(folder, 'table.md'), encoding='utf-8') as file:
    print(f'\n{file.read()}')
  print(f'page: {page}')
  if failures:
    raise UserError(
        f'{len(failures)} of {len(rest)} runs failed: '
        + '; '.join(failure.run.name for failure in failures)
        + '; run the same command to try them again')


def define_flags() -> None:
  """Defines the flags of this entry point."""
  for name, option in _FLAGS.items():
    define(name, option)


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
  """Keeps a second process from performing the same runs."""
  from mlvae_jax.training import run_files

  with contextlib.ExitStack() as stack:
    try:
      stack.enter_context(run_files.locked(folder))
    except ValueError as error:
      raise UserError(f'{error} --output') from error
    yield


def _variables(given: list[str]) -> dict[str, str]:
  """The variables of --define; a ValueError if it is not of its form."""
  for one in given:
    if not re.fullmatch(r'\w+=.*', one):
      raise ValueError(f'expected --define=NAME=VALUE,..., got {one!r}')
  pairs = dict(one.split('=', 1) for one in given)
  # No shell expands ~ in the middle of a word.
  return {name: expand_path(value) if value.startswith('~') else value
          for name, value in pairs.items()}


def _seeds(given: list[str]) -> list[int]:
  """The numbers of --seeds; a ValueError if they are not numbers."""
  if not all(seed.isdigit() for seed in given):
    raise ValueError(
        'expected --seeds as comma-separated integers, got ' + ','.join(given))
  return list(map(int, given))


if __name__ == '__main__':
  define_flags()
  cli.run_with_arguments(main)
