"""The table of MIG and DCI."""

from __future__ import annotations

from experiments.evaluation import web
from experiments.evaluation.formatting import number
from experiments.evaluation.section import Results
from experiments.evaluation.wording import worded

_TEXT = (
    '<p>These scores compare single dimensions of all codes, whichever factor '
    'they belong to; every image is encoded alone (strategy 1). All scores '
    'except the error are between 0 and 1, and 1 is best. MIG: how much more '
    'information the best dimension has about a label than the second best, '
    'as a share of the label\'s entropy; it is low for a label that many '
    'dimensions of a code predict together. Disentanglement: whether each '
    'dimension matters for one label only. Completeness: whether only few '
    'dimensions matter for a label. Error: the error, on test images, of the '
    'forest that measures this importance. Scores that are no better than '
    'those of an untrained encoder mean nothing.</p>')


def report(results: Results) -> str:
  """MIG and DCI per known factor, a subsection of "factors".

  Args:
    results: results of the run.

  Returns:
    HTML; '' if nothing was measured.
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
      '<h3>Dimension by dimension: MIG and DCI</h3>'
      + worded(results.model, _TEXT)
      + web.table(
          ['codes', 'label', 'MIG', 'disentanglement', 'completeness',
           'error, %', 'best dimension', 'information, %'], cells,
          bold=['all']))
