"""Codes of images, alone and in sets."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments.evaluation import encoding, probing
from experiments.evaluation.encoding import Encoded, encode_rows
import mlvae_jax
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.model.factors import parse_factors
from tests.helpers.lit_people import MODEL, random_images


def test_rows_are_encoded_as_if_all_were(params):
  images = random_images().x
  rows = np.array([3, 5, 40, 199])
  whole, some = encode_rows(MODEL, params, images), encode_rows(
      MODEL, params, images, rows)
  for name, q in whole.items():
    np.testing.assert_allclose(some[name].mean, q.mean[rows], rtol=1e-5)
  encoded = Encoded(MODEL, params, {'test': images}, {'test': rows})
  np.testing.assert_array_equal(
      encoded.alone('test', 'who', np.array([199, 3])).logvar,
      some['who'].logvar[[3, 0]])


def test_sets_accumulate_the_evidence_of_their_images(params):
  images = random_images().x
  encoded = Encoded(MODEL, params, {'test': images})
  rows = np.array([[0, 7], [7, 9], [3, 0]])
  codes = probing.code_features(encoded, 'light', 'mean')('test', rows)
  expected = mlvae_jax.encode_group(
      MODEL, params, images[rows.ravel()], np.repeat(np.arange(3), 2), 3,
      factor='light')
  np.testing.assert_allclose(codes, expected.mean, rtol=1e-4)


def test_with_the_prior_an_image_alone_is_a_set_of_one(params):
  model = dataclasses.replace(
      MODEL, group_posterior=mlvae_jax.PriorProduct())
  encoded, rows = Encoded(model, params, {
      'test': random_images().x}), np.array([3, 8])
  for found in (encoded.alone('test', 'who', rows),
                encoded.all_alone('test', rows)['who']):
    for a, b in zip(found, encoded.together(
        'test', 'who', rows, np.arange(2), 2)):
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
  # Style is not of a group: no prior is added to its posterior.
  for style in (encoded.alone('test', 'style', rows),
                encoded.together('test', 'style', rows, np.arange(2), 2)):
    np.testing.assert_array_equal(
        style.mean, encoded.messages('test', rows)['style'].mean)
  # Groups multiply what rows say without the prior.
  messages = encoded.messages('test', rows)['who']
  np.testing.assert_allclose(
      np.exp(-found.logvar), 1.0 + np.exp(-messages.logvar), rtol=1e-5)


def test_sets_are_inferred_once_where_there_is_no_encoder(monkeypatch):
  model = dataclasses.replace(MODEL, group_posterior=mlvae_jax.Free())
  images = {'train': random_images().x[:3],
            'test': random_images().x[3:6]}
  encoded = Encoded(model, model.init(jax.random.key(0)), images)
  asked = []

  def infer(model, params, factor, images, rows, alone, set_ids, num_sets):
    asked.append(len(rows))
    return Normal(*np.ones((2, num_sets, 2), np.float32))

  monkeypatch.setattr(encoding, '_infer_sets', infer)
  for source in ('mean', 'sample'):
    features = probing.code_features(encoded, 'who', source)
    for split in images:
      assert features(split, np.array([[0, 1], [2, 0]])).shape == (2, 2)
      # An image alone is inferred as such, with its other codes.
      np.testing.assert_allclose(
          encoded.together(split, 'who', np.array([2, 0]), np.arange(2),
                           2).mean,
          encoded.alone(split, 'who', np.array([2, 0])).mean, rtol=1e-5)
  assert asked == [4, 4]


@pytest.mark.slow
def test_inferred_sets_have_the_exact_posteriors(monkeypatch):
  """Also a few at a time, and with each image's own code of other groups."""
  factors = parse_factors('who:2:who,light:2:light,style:2')
  model = mlvae_jax.Model(
      factors, (6,), mlvae_jax.Gaussian(0.3), mlvae_jax.MLP(()),
      group_posterior=mlvae_jax.Free())
  # Each element of an observation shows one dimension: 0.5 times its code.
  params = {'decoder': {'pixels': {
      'kernel': 0.5 * np.eye(6, dtype=np.float32),
      'bias': np.zeros(6, np.float32)}}}
  rows, ids = np.array([0, 5, 7, 9, 3, 1, 4]), np.array([1, 1, 0, 0, 2, 2, 2])
  rng = np.random.default_rng(0)
  x = rng.normal(size=(10, 6)).astype(np.float32)
  codes = np.array([[1.5, -1.5], [0.0, 0.0], [-1.5, 1.5]])
  x[rows, 2:4] = 0.5 * codes[ids] + 0.3 * rng.normal(size=(7, 2))
  monkeypatch.setattr(encoding, '_INFER_ROWS', 4)
  found = Encoded(model, params, {'test': x}).together(
      'test', 'light', rows, ids, 3)
  light, per_row = x[rows, 2:4].astype(float), 0.5 / 0.3 ** 2
  precision = 1 + 0.5 * per_row * np.bincount(ids)[:, None]
  total = np.stack([light[ids == i].sum(axis=0) for i in range(3)])
  exact = per_row * total / precision
  assert np.ptp(exact, axis=0).min() > 1.0  # Mistaken sets would be noticed.
  np.testing.assert_allclose(found.mean, exact, atol=0.25)
  np.testing.assert_allclose(
      np.exp(found.logvar) * precision, 1.0, rtol=0.3)


@pytest.mark.slow
def test_a_code_that_says_nothing_is_the_prior_for_a_set_of_any_size():
  """Of two dimensions the decoder uses one."""
  model = mlvae_jax.Model(
      mlvae_jax.ml_vae(2, 1), (3,), mlvae_jax.Gaussian(0.5),
      mlvae_jax.MLP(()), group_posterior=mlvae_jax.Free())
  params = {'decoder': {'pixels': {
      'kernel': np.array([[0.3, 0, 0], [0, 0, 0], [0, 0.3, 0]], np.float32),
      'bias': np.zeros(3, np.float32)}}}
  rng, ids = np.random.default_rng(0), np.repeat(np.arange(30), 10)
  x = rng.normal(scale=0.5, size=(300, 3)).astype(np.float32)
  found = Encoded(model, params, {'test': x}).together(
      'test', 'content', np.arange(300), ids, 30)
  variance = np.exp(found.logvar).mean(axis=0)
  np.testing.assert_allclose(
      variance, [1 / (1 + 10 * 0.3 ** 2 / 0.5 ** 2), 1.0], rtol=0.1)
  assert np.abs(found.mean[:, 1]).mean() < 0.3


def test_sets_without_images_are_not_cut_off(params, monkeypatch):
  monkeypatch.setattr(encoding, '_COMBINE_ROWS', 4)
  encoded = Encoded(MODEL, params, {'test': random_images().x})
  found = encoded.together('test', 'who', np.array([5, 6]),
                           np.array([0, 17]), 20)
  assert len(found.mean) == 20
  np.testing.assert_array_equal(found.mean[1:17], 0.0)
  np.testing.assert_allclose(
      found.mean[[0, 17]],
      encoded.alone('test', 'who', np.array([5, 6])).mean, rtol=1e-5)


def test_samples_of_other_rows_have_other_noise(params):
  """A probe must not recognise in the test the noise it was trained on."""
  encoded = Encoded(MODEL, params, {'test': random_images().x})
  rows = np.arange(6)[:, None]

  def noise(rows):
    q = encoded.alone('test', 'style', rows[:, 0])
    sample = probing.code_features(encoded, 'style', 'sample')('test', rows)
    return (sample - q.mean) / np.exp(0.5 * q.logvar)

  np.testing.assert_array_equal(noise(rows[:3]), noise(rows[:3]))
  assert np.abs(noise(rows[:3]) - noise(rows[3:])).min() > 1e-3


@pytest.mark.slow
def test_codes_given_in_other_splits_and_rows_have_other_noise(params):
  model = mlvae_jax.Model(
      parse_factors('who:2:who,style:2|who'), MODEL.observation_shape)
  params = model.init(jax.random.key(0))
  same = np.repeat(random_images().x[:1], 1100, axis=0)
  encoded = Encoded(model, params, {'train': same, 'test': same})
  found = np.concatenate([
      encoded.alone(split, 'style', np.arange(1100), drawn=True).mean
      for split in ('train', 'test')])
  assert len(np.unique(found, axis=0)) == 2200


@pytest.mark.parametrize('posterior', [
    mlvae_jax.Product(), mlvae_jax.PriorProduct(), mlvae_jax.Mixture()])
def test_sets_are_combined_a_few_at_a_time(params, monkeypatch, posterior):
  """Also one that is too large, and ids in any order."""
  model = dataclasses.replace(MODEL, group_posterior=posterior)
  encoded = Encoded(model, params, {'test': random_images().x})
  set_ids = np.array([2, 0, 1, 1, 2, 2, 2, 2, 3, 0])
  asked = ('test', 'who', np.arange(10), set_ids, 4)
  expected = encoded.together(*asked)
  monkeypatch.setattr(encoding, '_COMBINE_ROWS', 4)
  for found, whole in zip(encoded.together(*asked), expected):
    assert found.shape == (4, 2)
    np.testing.assert_allclose(found, whole, rtol=1e-5)
