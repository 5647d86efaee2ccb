"""Bounds on the log likelihood of groups, in an evaluation."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments.datasets.splits import Splits
from experiments.evaluation.bounds import rows as bounds
from experiments.evaluation.bounds import tables
from experiments.evaluation.context import Context
from experiments.evaluation.section import Results
from mlvae_jax import Adaptive, Free, Mixture
from mlvae_jax.model.factors import parse_factors
from mlvae_jax.model.model import Model
from mlvae_jax.model.networks.mlp import MLP
from tests.helpers.lit_people import MODEL, random_images

_PEOPLE = dataclasses.replace(
    MODEL, factors=parse_factors('who:2:who,style:2'))


@pytest.fixture
def rows_of(monkeypatch):
  """Function that returns the rows of an untrained model, with few samples."""
  monkeypatch.setattr(bounds, 'NUM_SAMPLES', ((1, 1), (3, 2)))

  def call(model, images):
    params = model.init(jax.random.key(0))
    return bounds.bound_rows(Context(
        {'trained': (model, params)}, Splits(images, images, images, True)))[
            'bounds']

  return call


def test_sets_are_whole_and_as_many_as_fit():
  ids = np.array([0] * 12 + [1] * 4 + [-1])
  rows, sets = bounds.choose_sets(ids, 100)
  assert sorted(rows) == list(range(17))
  assert sorted(np.bincount(sets)) == [1, 4, 4, 4, 4]
  some, of_some = bounds.choose_sets(ids, 9)
  assert 5 <= len(some) <= 9
  np.testing.assert_array_equal(some, rows[:len(some)])
  np.testing.assert_array_equal(of_some, sets[:len(some)])
  assert len(bounds.choose_sets(ids, 1)[0])  # At least one set.


def test_large_observations_are_fewer():
  assert bounds.num_images((8,)) == 400
  assert 20 <= bounds.num_images((64, 64, 3)) <= 100
  assert bounds.num_images((1024, 1024, 3)) == 20


def test_averages_over_images_weigh_groups_by_size():
  values, sizes = np.array([-10.0, -21.0, -29.0]), np.array([1, 2, 3])
  found = bounds.averages(values, sizes)
  assert found['bound'] == -20 and found['bound_per_image'] == -10
  assert found['bound_error'] == pytest.approx(
      np.std(values, ddof=1) / np.sqrt(3))
  assert found['bound_per_image_error'] == pytest.approx(0.5 / np.sqrt(3))
  assert bounds.averages(values[:1], sizes[:1])['bound_error'] is None


@pytest.mark.parametrize('model', [_PEOPLE, dataclasses.replace(
    _PEOPLE, group_posterior=Mixture())])
def test_rows_of_groups(rows_of, model):
  found = rows_of(model, random_images(30))
  assert [(row['num_outer'], row['num_inner']) for row in found] == [
      (1, 1), (3, 2)]
  assert {row['split'] for row in found} == {'test'}
  assert found[0]['images'] == 30 and found[0]['groups'] >= 6
  for row in found:
    assert np.isfinite(row['bound']) and row['bound_error'] > 0
    assert row['bound'] * row['groups'] == pytest.approx(
        row['bound_per_image'] * 30)
  text = tables.report(Results('', model, {'bounds': found}, {}))
  assert ('Normal with the mean' in text) == (not
      model.group_posterior.is_normal)
  assert found[0]['set_size'] == 5 and 'up to 5 images' in text
  line, = tables.summary({'bounds': found}, 24)
  assert line.startswith('log p per image in sets of 5: at least ')
  assert len(line) <= 79


def test_an_image_of_a_vae_is_a_group(rows_of):
  model = Model(parse_factors('z:2'), (4, 4, 1), network=MLP((8,)))
  found = rows_of(model, random_images(30))
  assert found[0]['groups'] == found[0]['images'] == 30
  assert 'each a group of its own' in tables.report(
      Results('', model, {'bounds': found}, {}))


@pytest.mark.slow
def test_posteriors_of_an_svi_model_are_inferred(rows_of):
  found = rows_of(dataclasses.replace(
      _PEOPLE, group_posterior=Free()), random_images(12))
  assert np.isfinite(found[1]['bound_per_image'])


def test_several_groupings_are_not_bounded(rows_of):
  assert rows_of(MODEL, random_images(12)) == []
  assert rows_of(_PEOPLE, random_images(12).take([])) == []
  text = tables.report(Results('', MODEL, {'bounds': []}, {}))
  assert 'no bound for this model: groups of several groupings (' in text
  adaptive = dataclasses.replace(_PEOPLE, group_posterior=Adaptive())
  assert rows_of(adaptive, random_images(12)) == []
  assert not tables.report(Results('', MODEL, {}, {}))
  assert not tables.summary({'bounds': []}, 24)
