"""Membership of groups: densities, probabilities, calibration, detection."""

import numpy as np
import pytest

from mlvae_jax.grouping.normal import Normal
from mlvae_jax.measures import calibration
from mlvae_jax.measures.membership import membership_scores


def _normal(mean, var):
  return Normal(np.asarray(mean, float), np.log(np.asarray(var, float)))


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
    scores = membership_scores(q, groups, includes_prior=True)
    probabilities.append(calibration.membership_probabilities(scores))
    labels.append(label)
    known.append(calibration.evidence_of_known(scores))
    unknown.append(calibration.evidence_of_known(
        membership_scores(new, groups, includes_prior=True)))
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
    (lambda: calibration.reliability([[0.5, 0.5]], [2]), r'in \[0, 2\)'),
    (lambda: calibration.reliability(np.ones((0, 2)), []), 'N > 0'),
    (lambda: calibration.reliability([[np.nan, 1.0]], [0]), 'without NaN'),
    (lambda: calibration.reliability([[1.0]], [0], 0), 'num_bins >= 1'),
    (lambda: calibration.unknown_auc([], [1.0]), 'M > 0'),
])
def test_bad_arguments(call, message):
  with pytest.raises(ValueError, match=message):
    call()
