"""Tables of the sections on several groupings."""

import json

import pytest

from experiments import report
from experiments.evaluation.disentanglement import tables as disentanglement
from experiments.evaluation.factors import tables as factors
from experiments.evaluation.factors.chart import draw_factors
from experiments.evaluation.section import Results
from experiments.evaluation.strategies import tables as strategies
from tests.helpers.factor_rows import SECTIONS, row
from tests.helpers.lit_people import MODEL


def _results(evaluation, figure=''):
  return Results('run', MODEL, evaluation, {'factors': figure})


def _report(evaluation, figure=''):
  results = _results(evaluation, figure)
  return factors.report(results) + disentanglement.report(results)


def test_sections_of_the_report():
  text = _report(SECTIONS, '<figure>')
  places = [text.index(part) for part in (
      'Label accuracy by code', '<figure>', 'Test accuracy', 'MIG and DCI')]
  assert places == sorted(places)
  for cells in (
      ['code', 'source', 'who', 'light'], ['who', 'mean', '100.0', '30.0'],
      ['who', 'sample', '87.5', '–'], ['pixels', 'mean', '70.0', '–'],
      ['chance', '', '25.0', '25.0'],
      ['all', 'mean', '0.500', '0.250', '0.125', '6.2', '–', '–'],
      ['all', 'who', '0.750', '–', '0.125', '6.2', 'who[2]', '50.0']):
    tag = 'th' if cells[0] == 'code' else 'td'
    assert ''.join(f'<{tag}>{cell}</{tag}>' for cell in cells) in text, cells
  text = strategies.report(_results(SECTIONS))
  assert '1: each image alone' in text and '2: evidence of its group' in text
  for piece in ('1,234', 'up to 11', '<td>-50.50</td>', 'KL of style',
                '<td>0.01562</td>'):
    assert piece in text, piece


@pytest.mark.parametrize('evaluation', [
    {}, {name: [] for name in SECTIONS}, dict.fromkeys(SECTIONS)])
def test_nothing_to_show(evaluation):
  assert _report(evaluation, '<figure>') == ''
  assert strategies.report(_results(evaluation)) == ''
  assert factors.summary(evaluation, 24) == []
  assert draw_factors(evaluation, MODEL) is None


def test_names_are_escaped():
  evil = '<script>'
  text = _report(json.loads(
      json.dumps(SECTIONS).replace('light', evil).replace('pixels', evil)))
  assert evil not in text and '&lt;script&gt;' in text


@pytest.mark.parametrize('width', [24, 36])
def test_summary_fits_the_terminal(width):
  assert [line.split() for line in factors.summary(
      SECTIONS, width)] == [
          'label accuracy by code, % who light'.split(),
          ['who', '100.0', '30.0'], ['style', '20.0', '90.0'],
          ['pixels', '70.0', '-'], ['chance', '25.0', '25.0']]
  rows = [row('c' * 60, f'label_{i:02}', 1.0) for i in range(9)]
  lines = factors.summary({'factors': rows}, width)
  assert max(map(len, lines)) <= 79
  named = ' '.join(line for line in lines if line.startswith('label'))
  assert all(f'label_{i:02}' in named for i in range(9))
  assert 'label_08' in report.summary({'factors': rows})
