"""Membership of groups: scores are the integrals they stand for."""

import numpy as np
import pytest

from mlvae_jax.grouping.group_posteriors import GROUP_POSTERIORS
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.measures import membership
from mlvae_jax.measures.membership import evidence_ratio, membership_scores
from mlvae_jax.measures.verification import verification_pairs, verify
from tests.helpers.codes import noisy_people


def _normal(mean, var):
  return Normal(np.asarray(mean, float), np.log(np.asarray(var, float)))


def _density(x, mean, var):
  return np.exp(-np.square(x - mean) / (2 * var)) / np.sqrt(2 * np.pi * var)


@pytest.mark.parametrize(('m', 'v', 'group_m', 'group_v'), [
    (0.3, 0.5, -0.4, 0.2), (2.0, 0.01, 2.1, 0.003), (-1.0, 0.9, 0.5, 1.5),
    (0.7, 1.0, 0.2, 0.3), (0.0, 0.4, 0.0, 1.0)])
def test_scores_are_the_integral(m, v, group_m, group_v):
  found = membership_scores(
      _normal([[m]], [[v]]), _normal([[group_m]], [[group_v]]),
      includes_prior=True)
  # Wide enough for the last of these; they all fall off within it.
  c = np.linspace(-40, 40, 800_001)
  integrand = (_density(c, m, v) * _density(c, group_m, group_v)
               / np.maximum(_density(c, 0, 1), 1e-300))
  assert found[0, 0] == pytest.approx(
      np.log(np.sum(integrand) * (c[1] - c[0])), abs=1e-6)


def test_rows_wider_than_the_prior_are_as_wide():
  groups = _normal([[0.5], [-1.0]], [[0.1], [30.0]])
  wide, capped = (membership_scores(
      _normal([[2.0]], [[var]]), groups, includes_prior=True)
                  for var in (7.0, 1.0))
  assert np.all(np.isfinite(wide))
  np.testing.assert_array_equal(wide, capped)


@pytest.mark.parametrize('includes_prior', [False, True])
def test_dimensions_add_up_and_blocks_change_nothing(
    monkeypatch, includes_prior):
  rng = np.random.default_rng(0)
  q = _normal(rng.normal(size=(7, 3)), rng.uniform(0.01, 1.5, (7, 3)))
  groups = _normal(rng.normal(size=(4, 3)), rng.uniform(0.01, 1, (4, 3)))

  def scores(q, groups):
    return membership_scores(q, groups, includes_prior=includes_prior)

  found = scores(q, groups)
  parts = [scores(*(Normal(*(value[:, [d]] for value in n))
                    for n in (q, groups))) for d in range(3)]
  np.testing.assert_allclose(found, sum(parts), rtol=1e-12)
  monkeypatch.setattr(membership, '_BLOCK', 25)
  np.testing.assert_array_equal(scores(q, groups), found)


def test_messages_are_posteriors_once_the_prior_is_a_factor():
  rng = np.random.default_rng(1)
  mean, var = rng.normal(size=(2, 6, 4)), rng.uniform(0.01, 5, (2, 6, 4))
  messages = [_normal(m, v) for m, v in zip(mean, var)]
  posteriors = [_normal(m / (1 + v), v / (1 + v)) for m, v in zip(mean, var)]
  found = membership_scores(*messages)
  np.testing.assert_allclose(
      found, membership_scores(*posteriors, includes_prior=True), rtol=1e-9)
  for pair, includes_prior in ((messages, False), (posteriors, True)):
    np.testing.assert_allclose(
        np.diag(found), evidence_ratio(*pair, includes_prior=includes_prior),
        rtol=1e-9)


@pytest.mark.parametrize('name', sorted(GROUP_POSTERIORS.keys() - {'free'}))
@pytest.mark.parametrize('seen', [(1.3,), (0.1, 1.3, 0.4, 0.9)])
def test_scores_of_a_model_whose_posteriors_are_known(name, seen):
  # x = c + noise of variance 0.5. x given the group's images is Normal, and so
  # is x alone.
  kind, x, noise, seen = GROUP_POSTERIORS[name](), 0.8, 0.5, np.array(seen)
  precision = 1 + len(seen) / noise
  mean = seen.sum() / noise / precision
  expected = np.log(_density(x, mean, 1 / precision + noise)
                    / _density(x, 0, 1 + noise))
  # Rows' Normals are the likelihoods, or otherwise the exact posteriors.
  adds_up = name in ('product', 'prior_product')
  scale = 1 if adds_up else 1 / (1 + noise)
  rows, query = (
      _normal(scale * np.reshape(v, (-1, 1)), np.full((np.size(v), 1),
                                                      scale * noise))
      for v in (seen, x))
  found = membership_scores(
      kind.alone(query), kind.combine(rows, np.zeros(len(seen), int), 1),
      includes_prior=kind.includes_prior)
  error = abs(found[0, 0] - expected)
  assert error < 1e-6 if adds_up or len(seen) == 1 else error > 0.05


@pytest.mark.parametrize('includes_prior', [False, True])
@pytest.mark.parametrize('logvar', [-80.0, -20.0, 80.0])
def test_scores_are_finite_at_extreme_variances(logvar, includes_prior):
  q = Normal(np.array([[1.0], [-3.0]], np.float32),
             np.full((2, 1), logvar, np.float32))
  found = membership_scores(q, q, includes_prior=includes_prior)
  assert np.all(np.isfinite(found))


def test_a_new_group_scores_zero():
  rng = np.random.default_rng(2)
  q = _normal(rng.normal(size=(5, 3)), rng.uniform(0.1, 1, (5, 3)))
  prior = _normal(np.zeros((1, 3)), np.ones((1, 3)))
  np.testing.assert_allclose(
      membership_scores(q, prior, includes_prior=True), 0.0, atol=1e-12)
  nothing = Normal(np.ones((1, 3)), np.full((1, 3), 300.0))
  np.testing.assert_allclose(membership_scores(q, nothing), 0.0, atol=1e-12)


def _log_z(precision, eta):
  c = np.linspace(-40, 40, 400_001)
  exponent = eta * c - precision * c**2 / 2 - c**2 / 2
  total = np.sum(np.exp(exponent - exponent.max())) * (c[1] - c[0])
  return np.log(total) + exponent.max() - np.log(2 * np.pi) / 2


@pytest.mark.parametrize('m_a, logvar_a, m_b, logvar_b', [
    (0.5, -1.0, 0.7, -2.0), (1.5, 0.3, -1.0, -3.0), (0.0, 0.0, 0.0, 0.0),
    (2.0, -6.0, 2.01, -5.0), (-1.0, 3.0, 2.0, 4.0)])
def test_evidence_ratio_is_the_integral(m_a, logvar_a, m_b, logvar_b):
  precision_a, precision_b = np.exp(-logvar_a), np.exp(-logvar_b)
  eta_a, eta_b = precision_a * m_a, precision_b * m_b
  expected = (
      _log_z(precision_a + precision_b, eta_a + eta_b)
      - _log_z(precision_a, eta_a) - _log_z(precision_b, eta_b))
  q_a = Normal(np.array([[m_a]]), np.array([[logvar_a]]))
  q_b = Normal(np.array([[m_b]]), np.array([[logvar_b]]))
  for ratio in (evidence_ratio(q_a, q_b),
                evidence_ratio(q_b, q_a)):
    np.testing.assert_allclose(ratio, [expected], rtol=1e-7, atol=1e-9)


def test_evidence_ratio_of_certain_and_of_ignorant_codes():
  mean = np.full((3, 1), 2.0)
  q = Normal(mean, np.array([[-60.0], [80.0], [-800.0]]))
  ratio = evidence_ratio(q, q)
  # Of v near 0: log N(m_a; m_b, 2 v) against log N(m_a; 0, 1).
  np.testing.assert_allclose(ratio[0], (60 - np.log(2)) / 2 + 2, rtol=1e-12)
  assert abs(ratio[1]) < 1e-12 and np.isfinite(ratio[2])


def test_evidence_ratio_sums_over_dimensions():
  rng = np.random.default_rng(0)
  q_a, q_b = (Normal(*rng.normal(size=(2, 5, 3)).astype('f4')) for _ in 'ab')
  parts = [
      evidence_ratio(*(
          Normal(q.mean[:, d:d + 1], q.logvar[:, d:d + 1]) for q in (q_a, q_b)))
      for d in range(3)]
  ratio = evidence_ratio(q_a, q_b)
  assert ratio.shape == (5,) and ratio.dtype == np.float64
  np.testing.assert_allclose(ratio, np.sum(parts, axis=0), rtol=1e-12)


def test_evidence_ratio_verifies():
  codes, offsets = noisy_people(0.3)
  pairs = verification_pairs(offsets)
  scores = evidence_ratio(
      codes.take(pairs.first), codes.take(pairs.second))
  assert verify(scores, pairs.same).auc > 0.99


@pytest.mark.parametrize(('call', 'message'), [
    (lambda: membership_scores(
        _normal(np.zeros((2, 3)), np.ones((2, 3))),
        _normal(np.zeros((2, 2)), np.ones((2, 2)))), 'got 3 and 2'),
    (lambda: membership_scores(
        Normal(np.zeros((2, 1)), np.full((2, 1), np.nan)),
        _normal([[0]], [[1]])), 'finite'),
    (lambda: membership_scores(
        _normal([0], [1]), _normal([[0]], [[1]])), r'\[N, D\]'),
    (lambda: evidence_ratio(
        _normal([[0]], [[1]]), _normal(np.zeros((2, 1)), np.ones((2, 1)))),
     r'of one shape, got \[1, 1\] and \[2, 1\]'),
])
def test_bad_arguments(call, message):
  with pytest.raises(ValueError, match=message):
    call()
