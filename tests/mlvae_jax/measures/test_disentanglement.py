"""MIG and DCI: exact on cases that can be worked out by hand."""

import itertools
import math
import sys

import numpy as np
import pytest

from mlvae_jax.measures import disentanglement as dci

# Every combination of two binary factors, equally often.
_A, _B = np.array(list(itertools.product((0, 1), repeat=2)) * 20).T
_LN2 = math.log(2)
_GRID = np.random.default_rng(0).permutation(
    list(itertools.product(range(4), range(3))) * 40)


def _codes(*columns):
  return np.stack(columns, axis=1).astype(np.float32)


def _gaps(codes):
  return [dci.mutual_information_gap(codes, labels).gap for labels in (_A, _B)]


@pytest.mark.parametrize('codes, expected', [
    (_codes(_A, _B), [1, 1]),
    (_codes(_B, 7 - 3 * _A), [1, 1]),  # Neither order nor scale matters.
    (_codes(_A, _A, _B), [0, 1]),  # Two dimensions tell the same.
    (_codes(_A + _B, _A - _B), [0, 0]),  # Rotated by 45 degrees.
    # A sum of 1 leaves both values open, half of the time.
    (_codes(_A + _B, 0 * _A), [0.5, 0.5]),
    (_codes(2 * _A + _B), [1, 1]),  # There is no second dimension.
    (_codes(0 * _A, 0 * _A), [0, 0]),
])
def test_gap_of_two_binary_factors(codes, expected):
  np.testing.assert_allclose(_gaps(codes), expected, atol=1e-12)


def test_gap_worked_out_by_hand():
  labels = np.repeat([0, 1], 40)
  # The second dimension is right three times of four:
  # I = 3/4 log(3/2) + 1/4 log(1/2).
  second = np.where(np.arange(80) % 4 == 3, 1 - labels, labels)
  told = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
  found = dci.mutual_information_gap(_codes(second, labels), labels)
  np.testing.assert_allclose(found.mutual_information, [told, _LN2])
  assert found.entropy == pytest.approx(_LN2)
  assert found.gap == pytest.approx((_LN2 - told) / _LN2)


def test_bins_are_of_equal_width():
  codes = np.linspace(-3, 5, 161)[:, None] * [1.0, 1e-6, 0.0]
  bins = dci.discretize(codes)
  np.testing.assert_allclose(np.bincount(bins[:, 0]), 8, atol=1)
  assert (bins[:, 2] == 0).all()
  assert bins[0].tolist() == [0, 0, 0] and bins[-1].tolist() == [19, 19, 0]


def test_independent_codes_tell_nothing():
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 3, 3000)
  found = dci.mutual_information_gap(rng.normal(size=(3000, 4)), labels)
  assert found.gap < 0.005 and found.mutual_information.max() < 0.02


@pytest.mark.parametrize('weights, disentangled, complete', [
    (np.eye(3), 1, [1, 1, 1]),
    (np.eye(3)[:, [2, 0, 1]], 1, [1, 1, 1]),
    (np.full((2, 2), 0.5), 0, [0, 0]),
    # Two dimensions of three share what tells of one factor.
    ([[0.5, 0], [0.5, 0], [0, 1]], 1, [1 - _LN2 / math.log(3), 1]),
    # One dimension tells of both factors, the other of none.
    ([[1, 1], [0, 0]], 0, [1, 1]),
    # By hand: entropies to base 2 of (0.2, 0.8), and of (0.75, 0.25).
    ([[0.75, 0], [0.25, 1]], (0.75 + 1.25 * (1 - 0.721928)) / 2,
     [1 - 0.811278, 1]),
    (np.zeros((2, 2)), 0, [0, 0]),
])
def test_importances_of_known_cases(weights, disentangled, complete):
  weights = np.asarray(weights, float)
  assert dci.disentanglement(weights) == pytest.approx(disentangled, abs=1e-6)
  np.testing.assert_allclose(dci.completeness(weights), complete, atol=1e-6)


def test_one_factor_cannot_be_disentangled():
  with pytest.raises(ValueError, match='K >= 2'):
    dci.disentanglement(np.ones((3, 1)))


def _importance(codes, labels):
  return dci.importance(*((codes[i::3], labels[i::3]) for i in range(3)))


def test_forest_finds_the_dimension():
  noise = np.random.default_rng(0).normal(size=len(_GRID))
  codes = _codes(noise, _GRID[:, 0], _GRID[:, 1])
  for factor, column in ((0, 1), (1, 2)):
    found = _importance(codes, _GRID[:, factor])
    np.testing.assert_allclose(found.weights, np.eye(3)[column], atol=1e-9)
    assert found.error == 0


def test_forest_shares_what_two_dimensions_tell():
  found = _importance(
      _codes(_GRID[:, 0], _GRID[:, 1], _GRID[:, 0]), _GRID[:, 0])
  assert found.weights[1] == pytest.approx(0, abs=1e-9)
  assert 0.2 < found.weights[0] < 0.8


def test_forest_cannot_tell_what_is_not_there():
  rng = np.random.default_rng(1)
  found = _importance(rng.normal(size=(600, 2)), rng.integers(0, 4, 600))
  assert found.error == pytest.approx(0.75, abs=0.12)


@pytest.mark.parametrize('codes, labels, message', [
    (np.ones(4), np.arange(4), r'codes of \[N, D\]'),
    (np.ones((4, 2)), np.arange(3), r'\[4, 2\] and \[3\]'),
    (np.ones((4, 2)), np.ones(4, int), 'at least two classes')])
def test_wrong_shapes_and_labels(codes, labels, message):
  with pytest.raises(ValueError, match=message):
    dci.mutual_information_gap(codes, labels)
  with pytest.raises(ValueError, match=message):
    dci.importance(*3 * [(codes, labels)])


@pytest.mark.parametrize('measure', [
    lambda codes: dci.mutual_information_gap(codes, _A),
    lambda codes: dci.importance(*3 * [(codes, _A)])])
def test_without_scikit_learn_one_error_says_how_to_get_it(
    monkeypatch, measure):
  for name in ('sklearn.metrics', 'sklearn.ensemble'):
    monkeypatch.setitem(sys.modules, name, None)
  with pytest.raises(ModuleNotFoundError, match=(
      r"scikit-learn: pip install 'mlvae_jax\[experiments\]'")):
    measure(_codes(_A, _B))
