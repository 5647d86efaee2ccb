"""Membership of groups: densities, probabilities, calibration, detection."""

import numpy as np
import pytest

from mlvae_jax.grouping.normal import Normal
from mlvae_jax.measures import calibration
from mlvae_jax.measures.verification import evidence_ratio


def _normal(mean, var):
  return Normal(np.asarray(mean, float), np.log(np.asarray(var, float)))


def _density(x, mean, var):
  return np.exp(-np.square(x - mean) / (2 * var)) / np.sqrt(2 * np.pi * var)


@pytest.mark.parametrize(('m', 'v', 'group_m', 'group_v'), [
    (0.3, 0.5, -0.4, 0.2), (2.0, 0.01, 2.1, 0.003), (-1.0, 0.9, 0.5, 1.5),
    (0.7, 1.0, 0.2, 0.3), (0.0, 0.4, 0.0, 1.0)])
def test_scores_are_the_integral(m, v, group_m, group_v):
  found = calibration.membership_scores(
      _normal([[m]], [[v]]), _normal([[group_m]], [[group_v]]))
  # Wide enough for the last of these; they all fall off within it.
  c = np.linspace(-40, 40, 800_001)
  integrand = (_density(c, m, v) * _density(c, group_m, group_v)
               / np.maximum(_density(c, 0, 1), 1e-300))
  assert found[0, 0] == pytest.approx(
      np.log(np.sum(integrand) * (c[1] - c[0])), abs=1e-6)


def test_rows_wider_than_the_prior_are_as_wide():
  groups = _normal([[0.5], [-1.0]], [[0.1], [30.0]])
  wide, capped = (calibration.membership_scores(
      _normal([[2.0]], [[var]]), groups) for var in (7.0, 1.0))
  assert np.all(np.isfinite(wide))
  np.testing.assert_array_equal(wide, capped)


def test_dimensions_add_up_and_blocks_change_nothing(monkeypatch):
  rng = np.random.default_rng(0)
  q = _normal(rng.normal(size=(7, 3)), rng.uniform(0.01, 1.5, (7, 3)))
  groups = _normal(rng.normal(size=(4, 3)), rng.uniform(0.01, 1, (4, 3)))
  found = calibration.membership_scores(q, groups)
  parts = [calibration.membership_scores(
      *(Normal(*(value[:, [d]] for value in n)) for n in (q, groups)))
      for d in range(3)]
  np.testing.assert_allclose(found, sum(parts), rtol=1e-12)
  monkeypatch.setattr(calibration, '_BLOCK', 25)
  np.testing.assert_array_equal(
      calibration.membership_scores(q, groups), found)


def test_scores_are_the_ratio_of_evidence_with_the_prior():
  # `evidence_ratio` takes a Normal as evidence without the prior: multiplied by
  # N(0, I) it is the posterior that scores are for.
  rng = np.random.default_rng(1)
  mean, var = rng.normal(size=(2, 6, 4)), rng.uniform(0.01, 5, (2, 6, 4))
  expected = evidence_ratio(*map(_normal, mean, var))
  posterior = [_normal(m / (1 + v), v / (1 + v)) for m, v in zip(mean, var)]
  found = calibration.membership_scores(*posterior)
  np.testing.assert_allclose(np.diag(found), expected, rtol=1e-9)


@pytest.mark.parametrize('logvar', [-80.0, -20.0, 80.0])
def test_scores_are_finite_at_extreme_variances(logvar):
  q = Normal(np.array([[1.0], [-3.0]], np.float32),
             np.full((2, 1), logvar, np.float32))
  assert np.all(np.isfinite(calibration.membership_scores(q, q)))


def test_a_new_group_scores_zero():
  rng = np.random.default_rng(2)
  q = _normal(rng.normal(size=(5, 3)), rng.uniform(0.1, 1, (5, 3)))
  prior = _normal(np.zeros((1, 3)), np.ones((1, 3)))
  np.testing.assert_allclose(
      calibration.membership_scores(q, prior), 0.0, atol=1e-12)


def _draw(rng, num_rows, num_groups, noise, dim=2, evidence=3):
  """Rows of groups of a linear-Gaussian model, with exact posteriors."""
  c = rng.normal(size=(num_groups, dim))
  labels = rng.integers(0, num_groups, num_rows)

  def posterior(mean, count):
    precision = 1 + count / noise ** 2
    return _normal(count / noise ** 2 / precision * mean,
                   np.full(mean.shape, 1 / precision))

  seen = c + noise / np.sqrt(evidence) * rng.normal(size=c.shape)
  x = c[labels] + noise * rng.normal(size=(num_rows, dim))
  new = rng.normal(size=(num_rows, dim)) * np.sqrt(1 + noise ** 2)
  return (posterior(x, 1), posterior(new, 1), posterior(seen, evidence), labels)


def test_exact_posteriors_are_calibrated():
  rng = np.random.default_rng(3)
  probabilities, labels, known, unknown = [], [], [], []
  for _ in range(100):
    q, new, groups, label = _draw(rng, 200, 5, 0.7)
    scores = calibration.membership_scores(q, groups)
    probabilities.append(calibration.membership_probabilities(scores))
    labels.append(label)
    known.append(calibration.evidence_of_known(scores))
    unknown.append(calibration.evidence_of_known(
        calibration.membership_scores(new, groups)))
  found = calibration.reliability(
      np.concatenate(probabilities), np.concatenate(labels))
  assert found.calibration_error < 0.02
  assert 0.4 < found.accuracy[-1] and found.count.sum() == 20_000
  known, unknown = map(np.concatenate, (known, unknown))
  # Likelihood ratios are calibrated, too: E[exp(ratio)] is 1 if it is wrong.
  assert np.mean(np.exp(unknown)) == pytest.approx(1, abs=0.05)
  assert 0.55 < calibration.unknown_auc(known, unknown) < 0.9


def test_reliability_by_hand():
  probabilities = np.array(
      [[0.9, 0.1], [0.95, 0.05], [0.3, 0.7], [0.0, 1.0], [0.55, 0.45]])
  found = calibration.reliability(probabilities, [0, 1, 1, 1, 1])
  np.testing.assert_array_equal(found.count, [0] * 5 + [1, 0, 1, 0, 3])
  np.testing.assert_allclose(
      found.confidence[[5, 7, 9]], [0.55, 0.7, 2.85 / 3])
  np.testing.assert_allclose(found.accuracy[[5, 7, 9]], [0, 1, 2 / 3])
  assert np.all(np.isnan(found.accuracy[:5]))
  assert found.calibration_error == pytest.approx(
      (0.55 + 0.3 + 3 * (0.95 - 2 / 3)) / 5)
  assert found.log_loss == pytest.approx(
      -np.mean(np.log([0.9, 0.05, 0.7, 1.0, 0.45])))
  assert np.isfinite(calibration.reliability([[1.0, 0.0]], [1]).log_loss)


def test_probabilities_and_evidence_of_large_scores():
  scores = np.array([[-2000.0, -2001.0], [3000.0, 0.0]])
  found = calibration.membership_probabilities(scores)
  np.testing.assert_allclose(found.sum(axis=1), 1)
  assert found[0, 0] == pytest.approx(1 / (1 + np.exp(-1)))
  np.testing.assert_allclose(
      calibration.evidence_of_known(scores),
      [-2000 + np.log((1 + np.exp(-1)) / 2), 3000 - np.log(2)])


def test_nested_sets_are_disjoint_and_of_one_group():
  offsets = np.array([0, 3, 20, 31])
  sets = calibration.nested_sets(offsets, 5, 100)
  assert sets.shape == (5, 5) and len(np.unique(sets)) == 25
  groups = np.searchsorted(offsets, sets, side='right') - 1
  assert np.all(groups == groups[:, :1])
  assert sorted(groups[:2, 0]) == [1, 2]  # Groups take turns.
  np.testing.assert_array_equal(
      calibration.nested_sets(offsets, 5, 2), sets[:2])
  assert calibration.nested_sets(offsets, 40, 2).shape == (0, 40)


@pytest.mark.parametrize(('call', 'message'), [
    (lambda: calibration.membership_scores(
        _normal(np.zeros((2, 3)), np.ones((2, 3))),
        _normal(np.zeros((2, 2)), np.ones((2, 2)))), 'got 3 and 2'),
    (lambda: calibration.membership_scores(
        Normal(np.zeros((2, 1)), np.full((2, 1), np.nan)),
        _normal([[0]], [[1]])), 'finite'),
    (lambda: calibration.membership_scores(
        _normal([0], [1]), _normal([[0]], [[1]])), r'\[N, D\]'),
    (lambda: calibration.reliability([[0.5, 0.5]], [2]), r'in \[0, 2\)'),
    (lambda: calibration.reliability(np.ones((0, 2)), []), 'N > 0'),
    (lambda: calibration.reliability([[1.0]], [0], 0), 'num_bins >= 1'),
    (lambda: calibration.unknown_auc([], [1.0]), 'M > 0'),
])
def test_bad_arguments(call, message):
  with pytest.raises(ValueError, match=message):
    call()
