"""The figures of a study: points, error bars, sizes, legends."""

import dataclasses

from matplotlib.collections import PathCollection
import numpy as np
import pytest

from experiments.studies import chart
from experiments.studies.table import Numbers
from tests.helpers import studies

_LEAKS = (0.5, 0.3, 0.7, 0.4)  # plain, leakage, plain, leakage.


@pytest.fixture(name='numbers')
def _numbers(tmp_path):
  study, runs = studies.make_runs(tmp_path)
  return Numbers(study, runs, [
      studies.evaluation(leak, -100 * leak, 10 * leak) for leak in _LEAKS])


def _points(ax):
  """The large points; those of legends have no place."""
  return [c for c in ax.collections if isinstance(c, PathCollection)
          and len(c.get_offsets()) == 1]


def test_points_are_means_with_the_deviation_of_the_seeds(numbers):
  drawing = chart.draw(numbers, numbers.study.figures[0])
  ax, = drawing.figure.axes
  assert (ax.get_xlabel(), ax.get_ylabel()) == ('style, %', 'elbo')
  large, small = _points(ax)
  np.testing.assert_allclose(large.get_offsets(), [[60, -60]])
  np.testing.assert_allclose(small.get_offsets(), [[35, -35]])
  segments = [segment for c in ax.collections if hasattr(c, 'get_segments')
              for segment in c.get_segments()]
  across = [s for s in segments if s[0][1] == s[1][1] and len(s) == 2]
  widths = sorted(abs(s[1][0] - s[0][0]) / 2 for s in across)
  np.testing.assert_allclose(
      widths, [np.std([30, 40], ddof=1), np.std([50, 70], ddof=1)])
  # The larger KL has the larger point.
  assert small.get_sizes() < large.get_sizes()
  legend, = drawing.figure.legends
  assert [text.get_text() for text in legend.get_texts()][:4] == [
      'plain $1 | 2', 'leakage', 'chance', 'area: kl']
  assert 'The area of a large point shows kl.' in drawing.caption


def test_settings_without_numbers_are_left_out(numbers, tmp_path):
  scatter = dataclasses.replace(numbers.study.figures[0], size='')
  some = Numbers(numbers.study, numbers.runs, [
      studies.evaluation(), {}, {}, {'elbo': {'test': {}}}])
  drawing = chart.draw(some, scatter)
  texts = [t.get_text() for t in drawing.figure.legends[0].get_texts()]
  assert texts == ['plain $1 | 2', 'chance']
  assert chart.draw(Numbers(some.study, some.runs, [{}] * 4), scatter) is None
  odd = Numbers(some.study, some.runs, [
      studies.evaluation(elbo=float('nan'))] * 4)
  assert chart.draw(odd, scatter) is None


def test_a_panel_for_each_data_set(tmp_path):
  study, runs = studies.make_runs(
      tmp_path, studies.TEXT + '[data.one]\n[data.two]\n[data.none]\n')
  numbers = Numbers(study, runs, [
      {} if run.data.name == 'none' else studies.evaluation() for run in runs])
  drawing = chart.draw(numbers, study.figures[0])
  assert [ax.get_title(loc='center') or ax.get_title(loc='left')
          for ax in drawing.figure.axes] == ['one', 'two']


def test_looks_do_not_repeat_soon():
  looks = [tuple(look.items()) for look, _ in zip(chart._looks(), range(49))]
  assert len(set(looks)) == 49
