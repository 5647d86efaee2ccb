"""Tables of the uncertainty of codes."""

from __future__ import annotations

from experiments.evaluation import meaning, web
from experiments.evaluation.formatting import (
    number,
    terminal_row,
    with_error,
)
from experiments.evaluation.section import Evaluation, Results
from experiments.evaluation.wording import worded

_VARIANCE = (
    '<h3>Variance by evidence</h3><p>The variance of the codes that groups '
    'share, given k images of a group, averaged over dimensions and over '
    'random sets of images. The sets, whose number is in the last column, are '
    'the same for every k: the first k images of each are used. More evidence '
    'should make a code more certain.</p>')
_MEMBERSHIP = (
    '<h3>Membership: which group, and how likely?</h3><p>In each of '
    '{episodes} random trials, a few images (the shots) of each of {ways} '
    'groups are given, and their evidence is accumulated. Other images of '
    'these groups, encoded alone, are assigned to one of the groups by the '
    'predictive density of their code. The probability of that group is the '
    'confidence. The calibration error is the average absolute difference '
    'between confidence and accuracy, in bins of the confidence: 0 is perfect. '
    'Log loss: minus the mean log probability of the true group, in nats. '
    'Unknown: images of as many other groups are added; the AUC is how often '
    'an image of a known group has more evidence of being from a known group '
    'than an image of an unknown one. Errors: the AUC is how often an image '
    'assigned to a wrong group has less confidence, or a code of larger '
    'variance, than one assigned correctly. For every AUC 0.5 is chance, and 1 '
    'is perfect.</p>')


def report(results: Results) -> str:
  """Tables of variance and membership.

  Args:
    results: results of the run; the figure "uncertainty" comes first.

  Returns:
    HTML with a heading; '' if nothing was measured.
  """
  parts = [_variance(results), _membership(results)]
  if not any(parts):
    return ''
  return web.lines('<h2>Uncertainty</h2>', results.figures.get('uncertainty'),
                   *parts)


def summary(evaluation: Evaluation, width: int) -> list[str]:
  """Accuracy, calibration error and unknown AUC, for the terminal.

  Args:
    evaluation: content of evaluation.json.
    width: maximum length of a code's name, 24 to 36.

  Returns:
    Lines of at most 79 characters; none if nothing was measured.
  """
  # The most shots of each code.
  rows = {row['code']: row for row in evaluation.get('membership') or []}
  if not rows:
    return []
  first = next(iter(rows.values()))
  shots = meaning.count(first['shots'], 'shot')
  title = f'1 of {first["ways"]} known groups, {shots}'
  columns = ('acc. %', 'calib. err.', 'unknown AUC')
  lines = [terminal_row(title, columns, width, 12)]
  for code, row in rows.items():
    cells = (number(row['accuracy'], 1, 100),
             number(row['calibration_error'], 3),
             number(row['unknown_auc'], 3))
    lines.append(terminal_row(code[:width], cells, width, 12))
  return lines


def _variance(results: Results) -> str:
  rows = results.evaluation.get('variance')
  if not rows:
    return ''
  table = {}
  for row in rows:
    table.setdefault(row['code'], {})[row['k']] = row
  ks = sorted({row['k'] for row in rows})
  cells = [
      [code, *(with_error(found[k]['variance'], found[k]['standard_error'], 4)
               if k in found else number(None, 4) for k in ks),
       str(max(row['sets'] for row in found.values()))]
      for code, found in table.items()]
  return worded(results.model, _VARIANCE) + web.table(
      ['code', *(f'k = {k}' for k in ks), 'sets'], cells)


def _membership(results: Results) -> str:
  rows = results.evaluation.get('membership')
  if not rows:
    return ''
  cells = [
      [row['code'], str(row['shots']), str(row['ways']),
       with_error(row['accuracy'], row['accuracy_error'], 1, 100),
       number(row['chance'], 1, 100), number(row['confidence'], 1, 100),
       number(row['calibration_error'], 1, 100), number(row['log_loss'], 2),
       with_error(row['unknown_auc'], row['unknown_auc_error'], 3),
       number(row['confidence_auc'], 3), number(row['variance_auc'], 3)]
      for row in rows]
  ways = sorted({row['ways'] for row in rows})
  return worded(results.model, _MEMBERSHIP.format(
      episodes=rows[0]['episodes'],
      ways=' or '.join(map(str, ways)))) + web.table(
          ['code', 'shots', 'groups', 'accuracy %', 'chance %',
           'confidence %', 'calibration error, points', 'log loss',
           'AUC, unknown', 'AUC, errors by confidence',
           'AUC, errors by variance'], cells) + web.footnotes(
               meaning.footnotes({
                   meaning.count(n, 'shot'): why for n, why in meaning.caveats(
                       rows, 'shots').items()}))
