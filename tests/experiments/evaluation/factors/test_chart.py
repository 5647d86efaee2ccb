"""The heat map of label accuracy by code."""

import matplotlib
import numpy as np
from PIL import Image
import pytest

from experiments.evaluation.factors.chart import draw_factors
from experiments.pictures import sheets
from tests.helpers.factor_rows import SECTIONS, row
from tests.helpers.lit_people import MODEL


@pytest.mark.parametrize('rows', [
    SECTIONS['factors'],
    [row('pixels', '$a^', 0.5)],
    [row(f'{"x" * 40}{i}', f'{j}{"y" * 30}', (i + j) / 30)
     for i in range(20) for j in range(8)]])
def test_heat_map(tmp_path, rows):
  with matplotlib.rc_context(sheets.STYLE):
    drawing = draw_factors({'factors': rows}, MODEL)
    sheets.save(drawing, str(tmp_path / 'factors.png'))
  with Image.open(tmp_path / 'factors.png') as image:
    assert 100 < min(image.size) and max(image.size) < 3000
    assert 'chance' in image.text['Description']
  ax = drawing.figure.axes[0]
  numbers = [text.get_text() for text in ax.texts]
  assert numbers == [f'{100 * r["accuracy"]:.1f}' for r in rows
                     if r['source'] == 'mean']


def test_frames_are_around_a_factor_s_own_label():
  ax = draw_factors(SECTIONS, MODEL).figure.axes[0]
  assert [tuple(np.round(p.get_center())) for p in ax.patches] == [(0, 0)]
  assert [label.get_text() for label in ax.get_yticklabels()] == [
      'who', 'style', 'pixels']
