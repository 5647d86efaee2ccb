"""The numbers of a study: which rows count, means, deviations, text."""

import csv
import dataclasses
import io

import numpy as np
import pytest

from experiments.studies import table
from experiments.studies.table import Value
from tests.helpers import studies


@pytest.fixture(name='study_and_runs')
def _study_and_runs(tmp_path):
  return studies.make_runs(tmp_path)


def _column(study_and_runs, **changes):
  return dataclasses.replace(study_and_runs[0].columns[0], **changes)


def test_numbers_are_looked_up(study_and_runs):
  leak, elbo, kl = study_and_runs[0].columns
  found = studies.evaluation(0.6, -11.0, 3.0)
  assert table.look_up(found, leak) == pytest.approx(Value(60.0, 25.0))
  assert table.look_up(found, elbo) == Value(-11.0, None)
  assert table.look_up(found, kl) == Value(3.0, None)


def test_rows_are_chosen_and_reduced(study_and_runs):
  rows = [{'code': code, 'label': label, 'accuracy': a, 'chance': c}
          for code, label, a, c in (('a', 'x', 0.5, 0.1), ('a', 'y', 0.2, 0.2),
                                    ('b', 'x', 0.9, 0.3))]
  def look_up(where, **changes):
    return table.look_up({'probes': rows}, _column(
        study_and_runs, where=where, **changes)).value

  assert look_up({'code': ('b',)}) == pytest.approx(90)
  assert look_up({'code': ('b',)}, minus='chance') == pytest.approx(60)
  assert look_up({'code': ('a',)}) is None  # Two rows.
  assert look_up({'code': ('a',)}, reduce='max') == pytest.approx(50)
  assert look_up({'code': ('a',)}, reduce='min') == pytest.approx(20)
  assert look_up({'code': ('a',)}, reduce='mean') == pytest.approx(35)
  assert look_up({'label': ('x', 'y')}, reduce='max',
                 minus='chance') == pytest.approx(60)


@pytest.mark.parametrize('evaluation', [
    {}, {'probes': []}, {'probes': [{'code': 'content'}]}, {'probes': None},
    {'probes': [{'code': 'style', 'source': 'mean', 'k': 1}]},
    {'probes': [{'code': 'style', 'source': 'mean', 'k': 1,
                 'accuracy': None}]}])
def test_absent_numbers_are_no_failure(study_and_runs, evaluation):
  assert table.look_up(evaluation, study_and_runs[0].columns[0]).value is None
  elbo = study_and_runs[0].columns[1]
  assert table.look_up({'elbo': {'test': None}}, elbo).value is None


def test_means_and_deviations_are_numpy_s():
  values = np.random.default_rng(0).normal(95, 2, 5)
  cell = table.aggregate([*map(Value, values), Value()])
  np.testing.assert_allclose(cell.mean, values.mean(), rtol=1e-12)
  np.testing.assert_allclose(cell.std, values.std(ddof=1), rtol=1e-12)
  np.testing.assert_allclose(
      cell.std ** 2, ((values - values.mean()) ** 2).sum() / 4, rtol=1e-12)
  assert len(cell.values) == 5
  assert table.aggregate([Value(2.0)]) == (2.0, None, (2.0,))
  assert table.aggregate([Value()]) == (None, None, ())
  broken = table.aggregate([Value(2.0), Value(float('inf'))])
  assert np.isinf(broken.mean) and np.isnan(broken.std)


def test_cells_as_text(study_and_runs):
  column = _column(study_and_runs)
  assert table.text(table.aggregate([Value(90), Value(92)]), column, 2) == (
      '91.0 ± 1.4')
  assert table.text(table.aggregate([Value(90), Value()]), column, 2) == (
      '90.0 (n = 1)')
  assert table.text(table.aggregate([Value()]), column, 2) == '–'


def test_tables_of_a_study_with_a_run_missing(study_and_runs):
  study, runs = study_and_runs
  evaluations = [studies.evaluation(0.5), studies.evaluation(0.3, kl=1.0),
                 studies.evaluation(0.7), {}]
  numbers = table.Numbers(study, runs, evaluations)
  assert not numbers.missing
  lines = table.as_markdown(numbers).splitlines()
  assert lines[:6] == [
      '| setting | style, % | elbo | kl |',
      '| --- | --- | --- | --- |',
      '| plain $1 \\| 2 | 60.0 ± 14.1 | -10.00 ± 0.00 | 2.00 ± 0.00 |',
      '| leakage | 30.0 (n = 1) | -10.00 (n = 1) | 1.00 (n = 1) |',
      '| chance | 25.0 |  |  |', '']
  rows = list(csv.DictReader(io.StringIO(table.as_csv(numbers))))
  assert len(rows) == 4 * 3
  assert [row['value'] for row in rows if row['column'] == 'leak'] == [
      '50.0', '30.0', '70.0', '']
  assert rows[0]['chance'] == '25.0' and rows[0]['setting'] == 'plain'


def test_a_column_that_nothing_fits_is_noticed(study_and_runs):
  study, runs = study_and_runs
  study = dataclasses.replace(study, columns=(
      _column(study_and_runs, field='acuracy'), *study.columns[1:]))
  numbers = table.Numbers(
      study, runs, [studies.evaluation(), {}, {}, {}])
  assert numbers.missing == ['leak']
  assert not table.Numbers(study, runs, [{}] * 4).missing  # Too early to say.
