"""The chart of recognition."""

import matplotlib
import pytest

from experiments.evaluation.looks import looks
from experiments.evaluation.recognition.chart import draw_recognition
from experiments.pictures import sheets
from mlvae_jax.model.factors import parse_factors
from mlvae_jax.model.model import Model
from mlvae_jax.model.networks.mlp import MLP
from tests.helpers import pictures
from tests.helpers.recognition_rows import PROBES, recognition

_MODEL = Model(parse_factors('who:2:group,how:2'), (4, 4, 1),
               network=MLP((8,)))


def _draw_recognition(folder, evaluation):
  with matplotlib.rc_context(sheets.STYLE):
    drawing = draw_recognition(evaluation, _MODEL)
    if drawing is not None:
      sheets.save(drawing, str(folder / 'recognition.png'))
      pictures.read([str(folder / 'recognition.png')])
  return drawing


def test_recognition_looks_like_the_evidence(tmp_path):
  codes = ['vae', 'pixels', 'who']
  drawing = _draw_recognition(
      tmp_path, {'probes': PROBES, **recognition(codes)})
  styles = looks([row['code'] for row in PROBES] + codes, _MODEL)
  few, pairs = drawing.figure.axes
  assert few.get_title(loc='left') == 'Few-shot: one of 20 groups'
  for code in codes:
    lines = [line for line in few.get_lines()
             if line.get_marker() == styles[code]['marker']]
    assert {line.get_color() for line in lines} == {styles[code]['color']}
    # The fused gallery of one image is the image.
    assert {line.get_linestyle(): list(line.get_xdata()) for line in lines} == {
        '-': [1, 2, 3, 5, 10], ':': [1, 2, 3, 5, 10]}
  assert [label.get_text() for label in few.get_xticklabels()] == [
      '1', '2', '3', '5', '10']
  assert [label.get_text() for label in pairs.get_yticklabels()] == codes
  assert pairs.get_xlim()[0] < 0.4  # Below chance can be seen, too.


def test_few_shots_by_posterior_have_lines_of_their_own(tmp_path):
  found = recognition(['vae', 'who'])
  assert 'most likely' not in _draw_recognition(tmp_path, found).caption
  found['few_shot'] += [
      row | {'score': 'posterior'} for row in found['few_shot']
      if row['shots'] in (1, 5) and row['code'] == 'who']
  drawing = _draw_recognition(tmp_path, found)
  assert 'most likely' in drawing.caption
  line, = [line for line in drawing.figure.axes[0].get_lines()
           if line.get_linestyle() == '-.']
  assert list(line.get_xdata()) == [1, 5]
  assert 'by posterior' in [
      text.get_text() for text in drawing.figure.legends[0].get_texts()]


@pytest.mark.parametrize('kept', ['verification', 'few_shot'])
def test_recognition_of_one_kind(tmp_path, kept):
  drawing = _draw_recognition(
      tmp_path, {kept: recognition(['who'], float('nan'))[kept]})
  assert len(drawing.figure.axes) == 1
  assert ('ROC' in drawing.caption) == (kept == 'verification')
  assert ('of 20 groups' in drawing.caption) == (kept == 'few_shot')
  assert 'Left' not in drawing.caption and 'chance' in drawing.caption


@pytest.mark.parametrize('nothing', [None, float('nan')])
@pytest.mark.parametrize('codes', [
    ['who'], ['new_$code', '$a^', 'x' * 90],
    ['who', 'how', *(f'untrained_{i}' for i in range(14))]])
def test_recognition_of_any_codes(tmp_path, codes, nothing):
  drawing = _draw_recognition(tmp_path, recognition(codes, nothing))
  assert len(drawing.figure.axes) == 2


@pytest.mark.parametrize('evaluation', [
    {}, {'verification': [], 'few_shot': []}, {'few_shot': None}])
def test_nothing_on_recognition(tmp_path, evaluation):
  assert _draw_recognition(tmp_path, evaluation) is None
