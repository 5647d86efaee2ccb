"""Codes of images, alone and in sets."""

import dataclasses

import jax
import numpy as np

from experiments.evaluation import encoding, probing
from experiments.evaluation.encoding import Encoded, encode_rows
import mlvae_jax
from mlvae_jax.grouping.normal import Normal
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

  def infer(model, params, factor, images, rows, set_ids, num_sets):
    asked.append(len(rows))
    return Normal(*np.ones((2, num_sets, 2), np.float32))

  monkeypatch.setattr(encoding, '_infer_sets', infer)
  for source in ('mean', 'sample'):
    features = probing.code_features(encoded, 'who', source)
    for split in images:
      assert features(split, np.array([[0, 1], [2, 0]])).shape == (2, 2)
      # An image alone is inferred as such, with its other codes.
      np.testing.assert_array_equal(
          encoded.together(split, 'who', np.array([2, 0]), np.arange(2),
                           2).mean,
          encoded.alone(split, 'who', np.array([2, 0])).mean)
  assert asked == [4, 4]
