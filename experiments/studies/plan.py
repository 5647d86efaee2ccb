"""The runs of a study: their flags, checked before any of them starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import os
import re
import sys
from typing import Any

from absl import flags

from experiments import evaluate, train
from experiments.cli import UserError
from experiments.config.settings import Config
from experiments.studies.definition import Choice, Flags, Study

_VARIABLE = re.compile(r'\$(?:(\w+)|\{(\w+)\})')


@dataclasses.dataclass(frozen=True)
class Run:
  """A run of a study.

  Attributes:
    data: its data set.
    setting: its setting.
    seed: its seed.
    workdir: its folder.
    selected: whether this call is to perform it.
    train: flags of training, without dashes.
    evaluate: flags of the evaluation, without dashes.
    config: configuration that the flags give; None if the run is not selected
      and one of its variables has no value.
    epochs: number of epochs; None if the configuration says how many steps.
    split: split that it is evaluated on.
  """

  data: Choice
  setting: Choice
  seed: int
  workdir: str
  selected: bool
  train: Mapping[str, str]
  evaluate: Mapping[str, str]
  config: Config | None
  epochs: int | None = None
  split: str = 'test'

  @property
  def name(self) -> str:
    """What distinguishes the run, in words."""
    return ', '.join(filter(None, (
        self.data.label, self.setting.label, f'seed {self.seed}')))


def commands(run: Run) -> list[list[str]]:
  """The commands of a run: training, which resumes, and evaluation."""
  # A command of its own, since training has no flags of the evaluation.
  return [
      _command('train', run.train | {
          'seed': run.seed, 'eval': 'false', 'figures': 'false',
          'resume': 'true', 'workdir': run.workdir}),
      _command('evaluate', run.evaluate | {'workdir': run.workdir})]


def make_runs(study: Study, output: str, *, variables: Mapping[str, str],
              only: Sequence[str] = (), seeds: Sequence[int] = ()
              ) -> list[Run]:
  """All runs of a study, after checking their flags.

  Args:
    study: the study.
    output: folder of the study.
    variables: values of $NAMES.
    only: names of the settings and of the data sets to perform; an axis of
      which none is named is performed whole.
    seeds: seeds to perform; () for all.

  Returns:
    The runs, all settings with the first seed first.

  Raises:
    UserError: when a flag or its value is wrong, or a variable has no value.
    ValueError: when `only` or `seeds` has one that the study does not have.
  """
  known = [c.name for c in study.settings + study.data if c.name]
  for flag, wanted, there in (
      ('only', only, known), ('seeds', seeds, study.seeds)):
    wrong = [one for one in wanted if one not in there]
    if wrong:
      raise ValueError(f'--{flag}: {study.path} has no {wrong[0]}; it has '
                       + ', '.join(map(str, there)))
  _check_tables(study)
  settings, data_sets = (
      _chosen(choices, only) for choices in (study.settings, study.data))
  return [
      _make_run(study, output, data, setting, seed, variables,
                setting in settings and data in data_sets
                and (not seeds or seed in seeds))
      # Seeds first, so that an unfinished study compares all settings.
      for seed in study.seeds for data in study.data
      for setting in study.settings]


def _chosen(choices: tuple[Choice, ...], only: Sequence[str]
            ) -> list[Choice]:
  return [c for c in choices if c.name in only] or list(choices)


def _check_tables(study: Study) -> None:
  """Checks names and values of flags table by table, to name the table."""
  for kind, one in (('train', 'flags'), ('evaluate', 'evaluate')):
    for owner in (study, *study.settings, *study.data):
      given = getattr(owner, one)
      # Values with variables are checked once these are replaced.
      try:
        _parse(kind, {name: None if '$' in value else value
                      for name, value in given.values.items()})
      except flags.Error as error:
        raise _error(study, f'[{given.table}]', error) from error


def _make_run(study: Study, output: str, data: Choice, setting: Choice,
              seed: int, variables: Mapping[str, str], selected: bool) -> Run:
  workdir = os.path.join(output, '-'.join(
      filter(None, (data.name, setting.name, str(seed)))))
  run = Run(data, setting, seed, workdir, selected, {}, {}, None)
  try:
    given = {
        kind: _merge((getattr(study, one), getattr(data, one),
                      getattr(setting, one)), study, variables)
        for kind, one in (('train', 'flags'), ('evaluate', 'evaluate'))}
  except _NoValueError as error:
    if selected:
      raise UserError(str(error)) from error
    return run
  tables = f'[flags] with [settings.{setting.name}]' + (
      f' and [data.{data.name}]' if data.name else '')
  try:
    values = _parse('train', given['train'] | {'seed': str(seed)})
    config = train.checked_config(values)
    evaluation = _parse('evaluate', given['evaluate'])
    evaluate.checked_values(evaluation)
  except (ValueError, flags.Error) as error:
    raise _error(study, tables, error) from error
  return dataclasses.replace(
      run, **given, config=config, epochs=values['epochs'],
      split=evaluation['split'])


class _NoValueError(Exception):
  """A variable that has no value."""


def _merge(tables: Sequence[Flags], study: Study,
           variables: Mapping[str, str]) -> dict[str, str]:
  """The flags of several tables, of which the last counts."""
  def value_of(found: re.Match) -> str:
    name = found[1] or found[2]
    if name not in variables:
      raise _NoValueError(
          f'{study.path}, [{table.table}]: ${name} has no value; give '
          f'--define={name}=VALUE, or set the variable {name}')
    return variables[name]

  merged = {}
  for table in tables:
    for name, value in table.values.items():
      merged[name] = _VARIABLE.sub(value_of, value)
  return merged


def _parse(kind: str, values: Mapping[str, str | None]) -> dict[str, Any]:
  """The values of all flags of a command; a flags.Error if one is wrong.

  Of a flag whose value is None only the name is checked.
  """
  define: Callable = {'train': train, 'evaluate': evaluate}[kind].define_flags
  found = flags.FlagValues()
  define(found)
  for name, value in values.items():
    if value is None and name not in found:
      raise flags.UnrecognizedFlagError(name)
  found([kind, *(f'--{name}={value}' for name, value in values.items()
                 if value is not None)])
  return found.flag_values_dict()


def _command(module: str, values: Mapping[str, Any]) -> list[str]:
  return [sys.executable, '-m', f'experiments.{module}',
          *(f'--{name}={value}' for name, value in values.items())]


def _error(study: Study, where: str, error: Exception) -> UserError:
  return UserError(f'{study.path}, {where}: {" ".join(str(error).split())}')
