"""Nearest groups are those of the library's scores, with true probabilities."""

import numpy as np
import pytest

from experiments.encoding import evidence, gallery
from mlvae_jax.grouping.group_posteriors import GROUP_POSTERIORS
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.measures import calibration
from mlvae_jax.measures.membership import membership_scores


def _world(kind, num_groups=30, size=4, dim=2, doubt=1.0, seed=0):
  """A gallery of groups, its rows alone, their groups, and rows to ask about.

  The encoder is exact for noise of variance 0.5, or overconfident by a factor.
  """
  posterior = GROUP_POSTERIORS[kind]()
  rng = np.random.default_rng(seed)
  codes = rng.normal(size=(num_groups, dim))

  def rows(number):
    groups = np.repeat(np.arange(num_groups), number)
    x = codes[groups] + np.sqrt(0.5) * rng.normal(size=(len(groups), dim))
    return Normal(x, np.full(x.shape, np.log(0.5 / doubt))), groups

  q, groups = rows(size)
  sums = evidence.Sums(num_groups, dim)
  sums.add(groups, evidence.terms(posterior, q))
  found = sums.evidence([f'{i:03}' for i in range(num_groups)])
  asked, truth = rows(20)
  return (gallery.make_gallery(posterior, found),
          *((Normal(*map(np.asarray, posterior.alone(q))), groups)
            for q, groups in ((q, groups), (asked, truth))))


@pytest.mark.parametrize('kind', ['product', 'prior_product', 'moments'])
def test_nearest_are_those_of_the_scores(kind, monkeypatch):
  known, _, (asked, _) = _world(kind)
  scores = membership_scores(
      asked, known.q, includes_prior=known.posterior.includes_prior)
  whole = gallery.nearest(asked, known, 5)
  monkeypatch.setattr(gallery, '_GROUPS', 7)
  monkeypatch.setattr(gallery, '_QUERIES', 11)
  found = gallery.nearest(asked, known, 5)
  np.testing.assert_array_equal(found.groups, whole.groups)
  np.testing.assert_array_equal(found.groups, np.argsort(-scores, 1)[:, :5])
  np.testing.assert_allclose(
      found.probabilities, -np.sort(-calibration.membership_probabilities(
          scores), axis=1)[:, :5], rtol=1e-10)
  np.testing.assert_allclose(
      found.known, calibration.evidence_of_known(scores), rtol=1e-10)
  everyone = gallery.nearest(asked, known, 99, temperature=3.0)
  assert everyone.groups.shape == (600, 30)
  np.testing.assert_allclose(everyone.probabilities.sum(axis=1), 1)


@pytest.mark.parametrize('kind', ['product', 'prior_product'])
def test_exact_posteriors_need_no_temperature(kind):
  known, own, _ = _world(kind, num_groups=200)
  found = gallery.calibrate(known, *own)
  assert 0.7 <= found.temperature <= 1.5 and found.num_images == 500


@pytest.mark.parametrize('kind', ['product', 'prior_product', 'harmonic'])
def test_overconfident_posteriors_are_calibrated(kind):
  known, own, (asked, truth) = _world(kind, doubt=10.0)
  found = gallery.calibrate(known, *own)
  assert found.temperature > 1.5

  def error(temperature):
    answer = gallery.nearest(asked, known, 30, temperature)
    probabilities = np.empty(answer.groups.shape)
    np.put_along_axis(
        probabilities, answer.groups, answer.probabilities, axis=1)
    return calibration.reliability(probabilities, truth).calibration_error

  assert error(found.temperature) < 0.1 < error(1.0)


def test_an_image_is_no_evidence_about_itself(monkeypatch):
  known, (q, groups), _ = _world('product')
  one = gallery._without_itself(known, q.take([5]), groups[[5]])
  others = q.take([4, 6, 7])
  left = known.posterior.combine(others, np.zeros(3, int), 1)
  np.testing.assert_allclose(
      one, membership_scores(q.take([5]), left)[0], rtol=1e-4)
  monkeypatch.setattr(gallery, '_GROUPS', 7)
  assert gallery.calibrate(known, q, groups) == gallery.calibrate(
      known, q, groups)


def test_too_few_images_to_calibrate():
  known, own, _ = _world('product', size=1)
  assert gallery.calibrate(known, *own) == gallery.Calibration()
  known, own, _ = _world('product', num_groups=5, size=2)
  assert gallery.calibrate(known, *own).num_images == 0
