"""The examples, in a small form."""

import runpy

import pytest

from tests.helpers import ROOT


def _main(name):
  return runpy.run_path(str(ROOT / 'examples' / f'{name}.py'))['main']


def test_wines_are_told_apart_as_well_as_by_logistic_regression():
  ours, regression = _main('wine')()
  assert ours >= regression - 1 / 72  # Of 72 wines.
  assert ours > 0.95


def test_cells_run():
  found = _main('cells')(steps=3, num_cells=200)
  assert set(found) == {
      f'{label} from {code}' for label in ('type', 'donor')
      for code in ('identity', 'batch', 'style')}
  assert all(0.0 <= value <= 1.0 for value in found.values())


def test_cells_are_drawn_from_the_stated_model():
  simulate = runpy.run_path(str(ROOT / 'examples' / 'cells.py'))['simulate']
  x, cell_type, donor = simulate(500, seed=3)
  assert x.shape == (500, 60) and x.min() >= 0
  assert len(set(cell_type)) == 6 and len(set(donor)) == 8
  assert x.var(axis=0).mean() > x.mean()  # More than a Poisson has.


@pytest.mark.parametrize('name', ['wine', 'cells'])
def test_examples_say_how_to_run_them(name):
  text = (ROOT / 'examples' / f'{name}.py').read_text(encoding='utf-8')
  assert f'python examples/{name}.py' in text
