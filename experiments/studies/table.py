"""The numbers of a study: one per run and column, and their means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
import csv
import io
import statistics
from typing import Any, NamedTuple

import numpy as np

from experiments.evaluation.formatting import number
from experiments.studies.definition import Choice, Column, Study
from experiments.studies.plan import Run

_REDUCE: Mapping[str, Callable[[list[float]], float]] = {
    'only': lambda found: found[0], 'max': max, 'min': min,
    'mean': statistics.fmean}
NOTE = ('Mean ± standard deviation (of a sample) over the seeds {seeds}; n, '
        'the number of seeds, is shown where it is not {n}.')


class Value(NamedTuple):
  """A number of a run, multiplied by the column's scale; None if absent.

  Attributes:
    value: the number.
    chance: chance level of the same rows, also multiplied.
  """

  value: float | None = None
  chance: float | None = None


class Cell(NamedTuple):
  """A column's numbers of one setting and data set.

  Attributes:
    mean: mean over the seeds; None without numbers.
    std: standard deviation of a sample; None with fewer than two numbers.
    values: the numbers.
  """

  mean: float | None
  std: float | None
  values: tuple[float, ...]


class Numbers:
  """All numbers of a study.

  Attributes:
    study: the study.
    runs: all its runs.
    missing: names of columns that no complete run has a number for.
  """

  def __init__(self, study: Study, runs: Sequence[Run],
               evaluations: Sequence[Mapping[str, Any]]):
    """Looks up the numbers.

    Args:
      study: the study.
      runs: all its runs.
      evaluations: evaluation of each run; {} if it is not complete.
    """
    self.study, self.runs = study, runs
    self._values = {
        (run.data.name, run.setting.name, run.seed, column.name):
        look_up(evaluation, column)
        for run, evaluation in zip(runs, evaluations)
        for column in study.columns}
    self.missing = [
        column.name for column in study.columns if any(evaluations) and all(
            self.value(run, column).value is None for run in runs)]

  def value(self, run: Run, column: Column) -> Value:
    """The number of a run."""
    return self._values[
        run.data.name, run.setting.name, run.seed, column.name]

  def cell(self, data: Choice, setting: Choice, column: Column) -> Cell:
    """The numbers of a setting and data set."""
    return aggregate(self._all(column, data, setting))

  def chance(self, data: Choice, column: Column) -> float | None:
    """The mean chance level of a column; None if it is not asked for."""
    found = [v.chance for v in self._all(column, data) if v.chance is not None]
    return statistics.fmean(found) if column.chance and found else None

  def _all(self, column: Column, data: Choice, setting: Choice | None = None
           ) -> list[Value]:
    return [self.value(run, column) for run in self.runs
            if run.data == data and setting in (None, run.setting)]


def look_up(evaluation: Mapping[str, Any], column: Column) -> Value:
  """The number that a column takes from an evaluation.

  Args:
    evaluation: content of evaluation.json.
    column: the column.

  Returns:
    The number and its chance level, None where the evaluation lacks them, or
    where several rows match but one was expected.
  """
  section = evaluation.get(column.section) or []
  rows = [section] if isinstance(section, dict) else section
  rows = [row for row in rows
          if all(row.get(key) in allowed
                 for key, allowed in column.where.items())]
  found = [value for row in rows if (value := _number(row, column)) is not None]
  chances = [row['chance'] for row in rows if row.get('chance') is not None]
  chance = column.scale * statistics.fmean(chances) if chances else None
  if not found or len(found) > 1 and column.reduce == 'only':
    return Value()
  return Value(column.scale * _REDUCE[column.reduce](found), chance)


def aggregate(values: Iterable[Value]) -> Cell:
  """The mean and standard deviation of the numbers that are not missing."""
  there = tuple(v.value for v in values if v.value is not None)
  with np.errstate(invalid='ignore'):  # NaN and infinity remain visible.
    return Cell(
        float(np.mean(there)) if there else None,
        float(np.std(there, ddof=1)) if len(there) > 1 else None, there)


def head(study: Study) -> list[str]:
  """The headings of the table."""
  return ['setting', *(column.heading for column in study.columns)]


def rows(numbers: Numbers, data: Choice) -> list[list[str]]:
  """The rows of the table of a data set, as text: one for each setting."""
  study = numbers.study
  found = [
      [setting.label, *(
          text(numbers.cell(data, setting, column), column, len(study.seeds))
          for column in study.columns)]
      for setting in study.settings]
  chances = [numbers.chance(data, column) for column in study.columns]
  if any(chance is not None for chance in chances):
    found.append(['chance', *(
        number(chance, column.decimals, missing='')
        for chance, column in zip(chances, study.columns))])
  return found


def text(cell: Cell, column: Column, num_seeds: int) -> str:
  """A cell as text, such as '95.3 ± 0.2', with n where seeds are missing."""
  parts = [number(cell.mean, column.decimals)]
  if cell.std is not None:
    parts.append(f'± {number(cell.std, column.decimals)}')
  if 0 < len(cell.values) < num_seeds:
    parts.append(f'(n = {len(cell.values)})')
  return ' '.join(parts)


def note(study: Study) -> str:
  """A sentence that says what the numbers are."""
  if len(study.seeds) == 1:
    return f'Seed {study.seeds[0]} only.'
  return NOTE.format(
      seeds=', '.join(map(str, study.seeds)), n=len(study.seeds))


def as_markdown(numbers: Numbers) -> str:
  """The table in Markdown, one for each data set."""
  lines = []
  for data in numbers.study.data:
    if data.name:
      lines += [f'**{data.label}**', '']
    table = [head(numbers.study), ['---'] * (1 + len(numbers.study.columns)),
             *rows(numbers, data)]
    # Labels may contain the factor style|content.
    lines += ['| ' + ' | '.join(
        cell.replace('|', '\\|') for cell in row) + ' |' for row in table]
    lines.append('')
  return '\n'.join([*lines, note(numbers.study), ''])


def as_csv(numbers: Numbers) -> str:
  """One line per run and column, with all digits."""
  content = io.StringIO()
  writer = csv.writer(content, lineterminator='\n')
  writer.writerow(
      ['data', 'setting', 'seed', 'column', 'value', 'chance', 'workdir'])
  for run in numbers.runs:
    for column in numbers.study.columns:
      value = numbers.value(run, column)
      writer.writerow([
          run.data.name, run.setting.name, run.seed, column.name,
          *('' if v is None else v for v in value), run.workdir])
  return content.getvalue()


def _number(row: Mapping[str, Any], column: Column) -> float | None:
  """The field of a row, less the one that is subtracted."""
  value = _at(row, column.field)
  if value is None or not column.minus:
    return value
  subtracted = _at(row, column.minus)
  return None if subtracted is None else value - subtracted


def _at(row: Any, path: str) -> float | None:
  """The number at a path such as kl.style; None if there is none."""
  for key in path.split('.'):
    row = row.get(key) if isinstance(row, dict) else None
  return row if isinstance(row, (int, float)) else None
