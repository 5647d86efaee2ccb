"""The notebook for Colab, executed as a script."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pytest

from tests.helpers import ROOT

_NOTEBOOK = json.loads(
    (ROOT / 'examples' / 'colab.ipynb').read_text(encoding='utf-8'))
_CELLS = [cell for cell in _NOTEBOOK['cells'] if cell['cell_type'] == 'code']


def test_it_holds_no_outputs_and_installs_first():
  assert all(not cell['outputs'] and cell['execution_count'] is None
             for cell in _CELLS)
  first, *rest = (''.join(cell['source']) for cell in _CELLS)
  assert _CELLS[0]['metadata'] == {'tags': ['install']}
  assert first.startswith('%pip install ')
  assert not [text for text in rest if text.startswith(('%', '!'))]


@pytest.mark.slow
def test_it_separates_the_digits(tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  found = {}
  code = '\n'.join(''.join(cell['source']) for cell in _CELLS[1:])
  try:
    exec(code.replace('STEPS = 400', 'STEPS = 50'), found)
    assert len(plt.get_fignums()) == 2
  finally:
    plt.close('all')
  accuracy = {
      name: float(value.rstrip('%')) for name, value in (
          line.split(': ') for line in capsys.readouterr().out.splitlines()
          if line.endswith('%'))}
  assert accuracy['content'] > 65 and accuracy['style'] < 40, accuracy
  assert found['history'][-1]['step'] == 50
  assert found['swapped'].shape == (10, 10, 28, 28)
  with np.load('digits.npz') as codes:
    assert list(codes['name']) == [str(digit) for digit in range(10)]
