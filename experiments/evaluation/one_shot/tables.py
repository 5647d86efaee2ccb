"""The table of the one-shot runs."""

from __future__ import annotations

from experiments.evaluation import web
from experiments.evaluation.formatting import (
    number,
    terminal_row,
    with_error,
)
from experiments.evaluation.section import Evaluation, Pairs, Results

_SCORES = ('cosine', 'posterior')


def key_numbers(results: Results) -> Pairs:
  """The error of each grouped factor by posterior."""
  grouped = {factor.name for factor in results.model.grouped}
  return [(f'{row["code"]} one-shot error',
           f'{number(row["error"], 1, 100)} %')
          for row in results.evaluation.get('one_shot_runs') or []
          if row['code'] in grouped and row['score'] == 'posterior']


def report(results: Results) -> str:
  """A table of errors by code and score; '' if nothing was measured."""
  rows = results.evaluation.get('one_shot_runs')
  if not rows:
    return ''
  first = rows[0]
  return (
      '<h2>One-shot runs</h2>'
      f'<p>In each of {first["runs"]} runs, one image of each of '
      f'{first["ways"]} characters of an alphabet is given, and every test '
      'image is assigned to one of them: to the one with the most similar '
      'code, by the cosine of the means (cosine), or to the one under whose '
      'posterior the test image is most likely (posterior). Errors in %, '
      'averaged over the runs'
      + ('; ±: half of the 95 % confidence interval over runs'
         if first['margin'] is not None else '')
      + '. The rows pixels and strokes (modified Hausdorff distance) are '
      'controls. People are wrong in 4.5 % of cases in the runs of Lake '
      'et al. (2015). These runs are a test set: do not use them to choose '
      'settings.</p>') + web.table(
          ['code', 'score', 'error, %'],
          [[row['code'], row['score'],
            with_error(row['error'], row['margin'], 1, 100)] for row in rows]
          + [['chance', '', number(first['chance'], 1, 100)]],
          bold=[factor.name for factor in results.model.factors])


def summary(evaluation: Evaluation, width: int) -> list[str]:
  """Errors by code, for the terminal; none without runs."""
  rows = evaluation.get('one_shot_runs')
  if not rows:
    return []
  title = f'{rows[0]["runs"]} one-shot runs, errors in %'
  lines = [terminal_row(title, _SCORES, width, 10)]
  errors = {}
  for row in rows:
    # A control that has a score of its own is shown in the first column.
    score = row['score'] if row['score'] in _SCORES else _SCORES[0]
    errors.setdefault(row['code'], {})[score] = number(row['error'], 1, 100)
  return lines + [
      terminal_row(code[:width], (found.get(score, '-') for score in _SCORES),
                   width, 10)
      for code, found in errors.items()]
