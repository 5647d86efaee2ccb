"""The table of MIG and DCI."""

from __future__ import annotations

from experiments.evaluation import web
from experiments.evaluation.formatting import number
from experiments.evaluation.section import Results

_TEXT = (
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


def report(results: Results) -> str:
  """MIG and DCI per known factor, under the heading of "factors".

  Args:
    results: what the report has of a run.

  Returns:
    HTML; '' where nothing was measured.
  """
  rows = results.evaluation.get('disentanglement')
  if not rows:
    return ''
  cells = [
      [row['code'], row['label'] or 'mean', number(row.get('mig'), 3),
       number(row.get('disentanglement'), 3),
       number(row.get('completeness'), 3), number(row.get('error'), 1, 100),
       row.get('dimension') or '–', number(row.get('information'), 1, 100)]
      for row in rows]
  return (
      '<h3>Dimension by dimension: MIG and DCI</h3>' + _TEXT
      + web.table(
          ['codes', 'label', 'MIG', 'disentanglement', 'completeness',
           'error, %', 'best dimension', 'information, %'], cells,
          bold=['all']))
