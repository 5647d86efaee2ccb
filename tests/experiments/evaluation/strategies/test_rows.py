"""The two strategies of encoding, by hand."""

import jax
import numpy as np
import pytest

from experiments.datasets.splits import Splits, split_images
from experiments.evaluation.context import Context
from experiments.evaluation.encoding import encode_rows
from experiments.evaluation.strategies import rows as strategies
import mlvae_jax
from mlvae_jax.grouping.normal import kl_divergence
from mlvae_jax.model.factors import parse_factors
from mlvae_jax.model.model import Model
from mlvae_jax.model.networks.mlp import MLP
from tests.helpers.lit_people import MODEL, images_of, random_images


def _rows(model, params, images):
  return strategies.strategy_rows(Context(
      {'trained': (model, params)}, Splits(images, images, images, True)))[
          'strategies']


def test_sets_are_balanced_and_of_one_group():
  ids = np.random.default_rng(0).permutation(
      np.repeat([0, 2, 5, -1], [23, 11, 1, 4]))
  sets = strategies.split_into_sets(ids, 11, seed=0)
  sizes = np.bincount(sets)
  assert sorted(sizes) == [1, 1, 1, 1, 1, 7, 8, 8, 11]
  assert all(len(set(ids[sets == s])) == 1 for s in range(len(sizes)))
  np.testing.assert_array_equal(sets, strategies.split_into_sets(ids, 11, 0))


def test_strategies_by_hand(params):
  test = random_images(60)
  one, two = _rows(MODEL, params, test)
  assert (one['strategy'], two['strategy']) == (1, 2)
  assert one['images'] == two['images'] == 60
  encoded = encode_rows(MODEL, params, test.x)
  for name, q in encoded.items():
    assert one['kl'][name] == pytest.approx(
        float(kl_divergence(q).mean()), rel=1e-4)
  logits = MODEL.decode(params, {n: q.mean for n, q in encoded.items()})
  log_lik = MODEL.likelihood.log_prob(logits, MODEL.prepare(test.x))
  assert one['log_lik_of_means'] == pytest.approx(
      float(log_lik.mean()), rel=1e-4)
  ids = strategies.split_into_sets(test.labels_of('light').ids, 11, 0)
  group = mlvae_jax.encode_group(
      MODEL, params, test.x, ids, ids.max() + 1, factor='light')
  assert two['kl']['light'] == pytest.approx(
      float(kl_divergence(group).sum()) / 60, rel=1e-4)
  assert two['kl']['style'] == one['kl']['style']
  for row in (one, two):
    assert row['elbo_per_image'] == pytest.approx(
        row['log_lik'] - sum(row['kl'].values()))
    assert row['squared_error'] > 0


def test_strategies_agree_where_groups_are_single_images(params):
  test = images_of(np.arange(5), np.full(5, -1))
  one, two = _rows(MODEL, params, test)
  for name in ('elbo_per_image', 'log_lik_of_means', 'squared_error'):
    assert one[name] == pytest.approx(two[name], rel=1e-5)


def test_of_many_images_whole_sets_are_looked_at(monkeypatch):
  monkeypatch.setattr(strategies, '_MAX_IMAGES', 50)
  test = random_images()
  rows = strategies._choose_rows(test)
  sets = strategies.split_into_sets(test.labels, 11, 0)
  assert 39 <= len(rows) <= 50
  assert not set(sets[rows]) & set(np.delete(sets, rows))


def test_a_vae_has_one_strategy(params):
  vae = Model(parse_factors('z:2'), (4, 4, 1), network=MLP((8,)))
  assert _rows(vae, vae.init(jax.random.key(0)), random_images()) == []
  assert _rows(MODEL, params, random_images().take([])) == []


def test_rows_name_the_split_they_are_of(params):
  data = split_images(random_images(60), (0.5, 0.25))
  rows = strategies.strategy_rows(Context(
      {'trained': (MODEL, params)}, data, split='validation'))['strategies']
  assert [(row['split'], row['images']) for row in rows] == 2 * [
      ('validation', len(data.validation))]
