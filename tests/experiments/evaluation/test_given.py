"""Factors that are given others: what the evaluation and the figures infer."""

import zlib

import jax
import numpy as np
import pytest

from experiments.datasets.splits import Splits
from experiments.evaluation.context import Context
from experiments.evaluation.encoding import Encoded, encode_rows
from experiments.evaluation.probing import code_features
from experiments.evaluation.strategies import rows as strategies
from experiments.pictures import shown
from experiments.pictures.subject import Subject
import mlvae_jax
from mlvae_jax.grouping.normal import kl_divergence
from mlvae_jax.model.factors import parse_factors
from mlvae_jax.model.model import Model
from mlvae_jax.model.networks.mlp import MLP
from tests.helpers.lit_people import MODEL as _LIT
from tests.helpers.lit_people import random_images

_MODEL = Model(parse_factors('who:2:who,style:3|who'), _LIT.observation_shape,
               network=MLP((8,)))


@pytest.fixture(scope='module')
def params():
  return jax.tree.map(lambda v: 3.0 * v, _MODEL.init(jax.random.key(0)))


def _posterior(params, x, who):
  """q(style | x, who)."""
  return _MODEL.posterior(
      params, _MODEL.factor('style'),
      _MODEL.encode_rows(params, _MODEL.prepare(x)), {'who': who})


def test_strategies_infer_style_after_the_content_that_was_drawn(params):
  data = random_images(60)
  one, two = strategies.strategy_rows(Context(
      {'trained': (_MODEL, params)}, Splits(data, data, data, True)))[
          'strategies']
  ids = strategies.split_into_sets(data.labels_of('who').ids, 11, 0)
  for row, which in ((one, np.arange(60)), (two, ids)):
    q = mlvae_jax.encode_group(_MODEL, params, data.x, which, 60).take(which)
    rng = np.random.default_rng(0)
    who = q.reparameterize(rng.standard_normal((60, 2), np.float32))
    style = _posterior(params, data.x, who)
    codes = {'who': who, 'style': style.reparameterize(
        rng.standard_normal((60, 3), np.float32))}
    assert row['kl']['style'] == pytest.approx(
        float(kl_divergence(style).mean()), rel=1e-3)
    for key, decoded in (('log_lik', codes), ('log_lik_of_means', {
        'who': q.mean, 'style': _posterior(params, data.x, q.mean).mean})):
      assert row[key] == pytest.approx(float(_MODEL.likelihood.log_prob(
          _MODEL.decode(params, decoded), _MODEL.prepare(data.x)).mean()),
                                       rel=1e-3)
    assert row['elbo_per_image'] == pytest.approx(
        row['log_lik'] - sum(row['kl'].values()))
    assert list(row['kl']) == ['who', 'style']


def test_a_sample_of_style_is_drawn_after_a_sample_of_content(params):
  data = random_images(40)
  encoded = Encoded(_MODEL, params, {'test': data.x})
  rows = np.arange(40)
  # By split and by the first row of those that are encoded together.
  key = jax.random.fold_in(jax.random.fold_in(
      jax.random.key(0), zlib.crc32(b'test')), 0)
  keys = jax.random.split(key, 2)
  alone = encode_rows(_MODEL, params, data.x)
  who = alone['who'].sample(keys[0])
  for drawn, given in ((False, alone['who'].mean), (True, who)):
    found = encoded.alone('test', 'style', rows, drawn=drawn)
    np.testing.assert_allclose(
        found.mean, _posterior(params, data.x, given).mean, rtol=1e-4,
        atol=1e-5)
  sample, mean = (
      code_features(encoded, 'style', source)('test', rows[:, None])
      for source in ('sample', 'mean'))
  q = _posterior(params, data.x, who)
  noise = (sample - q.mean) / np.exp(0.5 * q.logvar)
  assert np.abs(noise).max() < 5
  np.testing.assert_allclose(noise.std(), 1.0, atol=0.2)
  np.testing.assert_allclose(mean, alone['style'].mean, rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(
      encoded.alone('test', 'who', rows, drawn=True).mean,
      encoded.alone('test', 'who', rows).mean)


@pytest.mark.parametrize('key', [None, 5])
def test_figures_infer_style_after_the_content_of_the_group(params, key):
  data = random_images(40)
  subject = Subject(_MODEL, params, Splits(data, data, data, True), 'who')
  key = None if key is None else jax.random.key(key)
  rows = np.array([3, 20])
  codes = shown.infer_codes(subject, rows, key)
  q = _posterior(params, data.x[rows], codes['who'])
  expected = q.mean if key is None else q.sample(jax.random.split(key, 2)[1])
  np.testing.assert_allclose(codes['style'], expected, rtol=1e-4, atol=1e-4)
  alone = shown.infer_codes(subject._replace(strategy=1), rows, key)
  assert not np.allclose(codes['style'], alone['style'], atol=1e-4)
  if key is None:  # It is what the library infers of the same images.
    groups = subject.groups
    others = groups.rows(groups.ids[3])
    members = np.append(3, others[others != 3][:10])
    together = mlvae_jax.posteriors(
        _MODEL, params, data.x[members], np.zeros(len(members), int), 1)
    np.testing.assert_allclose(
        codes['style'][0], together['style'].mean[0], rtol=1e-4, atol=1e-4)
  assert 'style is kept as it was inferred' in subject.given_words
  plain = subject._replace(model=_LIT)
  assert plain.given_words == ''
