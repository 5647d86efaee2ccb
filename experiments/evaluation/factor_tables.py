"""Tables of what each code predicts, and of the two strategies.

Of the sections "factors", "disentanglement" and "strategies" of
evaluation.json; nothing is shown of one that is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.evaluation import meaning, web
from mlvae_jax.model.model import Model

_COLUMN = 9  # Characters of a label's column in the terminal.
_STRATEGIES = {1: '1: each image alone', 2: '2: evidence of its group'}
_MATRIX_TEXT = (
    '<p>The data have several groupings. A classifier predicts the labels of '
    'each from each code, every image encoded alone (strategy 1). A factor '
    'should predict the label that it is grouped by, and none that another is '
    'grouped by (chance); labels that no factor is grouped by belong in the '
    'factors that no group shares. Where the test split is of combinations of '
    'labels never trained on, a classifier that relies on the wrong label '
    'scores below chance.</p>')
_DISENTANGLEMENT_TEXT = (
    '<p>These look at single dimensions of all codes side by side, whichever '
    'factor they belong to, every image encoded alone (strategy 1); all but '
    'the error are between 0 and 1, and 1 is best. MIG: how much more the '
    'best dimension says about a label than the second best, as a share '
    'of the label\'s entropy; it is low for a label that many dimensions of a '
    'code predict together. Disentanglement: '
    'whether a dimension matters for one label only. Completeness: whether '
    'few dimensions matter for a label. Error: of the forest that gives these '
    'importances, on test images. Scores no better than those of an untrained '
    'encoder mean nothing.</p>')
_STRATEGY_TEXT = (
    '<p>When test images are encoded, strategy 1 disregards how they are '
    'grouped: each image is a group. Strategy 2 takes several images of a '
    'group, here up to {size}, and accumulates their evidence into the codes '
    'that they share, whose KL counts once for all of them. {images:,} test '
    'images, in nats per image; the squared error is per pixel, of pixels '
    'from 0 to 1.</p>')

Rows = list[dict[str, Any]]


def labels_of(rows: Rows) -> dict[str, float]:
  """The labels of "factors", each with its chance."""
  return {row['label']: row['chance'] for row in rows}


def by_cell(rows: Rows, key: str) -> dict[tuple[str, str], dict[str, float]]:
  """A number of "factors": {(code, source): {label: value}}."""
  table = {}
  for row in rows:
    table.setdefault((row['code'], row['source']), {})[row['label']] = row[key]
  return table


def section(model: Model, evaluation: dict[str, Any], figure: str = '') -> str:
  """The report's section on which labels each code predicts.

  Args:
    model: the rows of its factors are bold.
    evaluation: the contents of evaluation.json.
    figure: HTML that goes first.

  Returns:
    HTML with a heading; '' where nothing was measured.
  """
  own = [factor.name for factor in model.factors]
  parts = [_matrix(evaluation.get('factors'), own, figure),
           _disentanglement(evaluation.get('disentanglement'))]
  if not any(parts):
    return ''
  return '\n'.join(
      ['<h2>Label accuracy by code</h2>', *filter(None, parts)])


def _matrix(rows: Rows | None, own: list[str], figure: str) -> str:
  if not rows:
    return ''
  labels, parts = labels_of(rows), [_MATRIX_TEXT, figure]
  caveats = meaning.caveats(rows, 'label')
  for heading, key, scale, digits in (
      ('Test accuracy in %', 'accuracy', 100, 1),
      ('Conditional entropy in nats', 'conditional_entropy', 1, 3)):
    cells = [
        [code, source, *(_cell(found.get(label), digits, scale)
                         for label in labels)]
        for (code, source), found in by_cell(rows, key).items()]
    if key == 'accuracy':
      cells.append(['chance', '', *(
          _cell(chance, 1, 100) for chance in labels.values())])
    parts.append(f'<h3>{heading}</h3>' + web.table(
        ['code', 'source', *(_marked(name, caveats) for name in labels)],
        cells, bold=own) + web.footnotes(meaning.footnotes(caveats)))
  return '\n'.join(parts)


def _disentanglement(rows: Rows | None) -> str:
  if not rows:
    return ''
  cells = [
      [row['code'], row['label'] or 'mean', _cell(row.get('mig'), 3),
       _cell(row.get('disentanglement'), 3),
       _cell(row.get('completeness'), 3), _cell(row.get('error'), 1, 100),
       row.get('dimension') or '–', _cell(row.get('information'), 1, 100)]
      for row in rows]
  return (
      '<h3>Dimension by dimension: MIG and DCI</h3>' + _DISENTANGLEMENT_TEXT
      + web.table(
          ['codes', 'label', 'MIG', 'disentanglement', 'completeness',
           'error, %', 'best dimension', 'information, %'], cells,
          bold=['all']))


def strategy_table(evaluation: dict[str, Any]) -> str:
  """The report's section that compares the strategies; '' without numbers."""
  rows = evaluation.get('strategies')
  if not rows:
    return ''
  factors = list(rows[0]['kl'])
  cells = [
      [_STRATEGIES.get(row['strategy'], str(row['strategy'])),
       _cell(row['elbo_per_image'], 2), _cell(row['log_lik'], 2),
       *(_cell(row['kl'].get(name), 2) for name in factors),
       _cell(row['log_lik_of_means'], 2), _cell(row['squared_error'], 5)]
      for row in rows]
  text = _STRATEGY_TEXT.format(
      size=max(row['set_size'] for row in rows), images=rows[0]['images'])
  return '<h2>Two strategies of encoding</h2>' + text + web.table(
      ['strategy', 'ELBO', 'log likelihood', *(f'KL of {n}' for n in factors),
       'log likelihood of means', 'squared error'], cells)


def summary_lines(evaluation: dict[str, Any], width: int) -> list[str]:
  """The accuracies of "factors" for the terminal, from posterior means.

  Args:
    evaluation: the contents of evaluation.json.
    width: characters for a code, 24 to 36.

  Returns:
    Lines of at most 79 characters, in blocks of as many labels as fit; none
    where nothing was measured.
  """
  rows = evaluation.get('factors') or []
  labels, lines = labels_of(rows), []
  table = {code: found for (code, source), found
           in by_cell(rows, 'accuracy').items() if source == 'mean'}
  caveats = meaning.caveats(rows, 'label')
  across = (79 - width - 7) // _COLUMN
  for start in range(0, len(labels), across):
    shown = list(labels)[start:start + across]
    names = [_marked(n, caveats, _COLUMN - 1) for n in shown]
    lines.append('label accuracy by code, %'.ljust(width + 7)[:width + 7]
                 + ''.join(f'{name:>{_COLUMN}}' for name in names))
    for code, found in [*table.items(), ('chance', labels)]:
      lines.append(code[:width].ljust(width + 7) + ''.join(
          f'{_cell(found.get(n), 1, 100, "-"):>{_COLUMN}}' for n in shown))
  return lines + meaning.footnotes(caveats)


def _marked(label: str, caveats: Mapping[str, str],
            width: int | None = None) -> str:
  """A label's heading of at most `width` characters, with the mark it needs."""
  mark = '*' if label in caveats else ''
  return label[:width and width - len(mark)] + mark


def _cell(value: float | None, digits: int, scale: float = 1,
          nothing: str = '–') -> str:
  return nothing if value is None else f'{scale * value:,.{digits}f}'
