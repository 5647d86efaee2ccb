"""Warnings about codes that are the same for all images."""

import re

import jax
import numpy as np
import pytest

from experiments import evaluate
from experiments.evaluation.context import Context
from experiments.evaluation.sameness import Spread, same_codes
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.model.factors import ml_vae
from mlvae_jax.model.likelihoods.gaussian import Gaussian
from mlvae_jax.model.model import Model
from mlvae_jax.model.networks.mlp import MLP
from tests.helpers.lit_people import MODEL, splits

_MODEL = Model(ml_vae(3, 2), (8, 8, 1), Gaussian())


def _spread(q, parts=1):
  spread = Spread()
  for part in np.array_split(np.arange(len(q.mean)), parts):
    spread.add(q.take(part))
  return spread


def _codes(content, style, num_rows=50):
  """Codes whose means vary so much in one dimension, with noise of 0.01."""
  return {name: _spread(Normal(
      3.0 + scale * np.random.default_rng(0).normal(size=(num_rows, dim))
      * (np.arange(dim) == 1), np.full((num_rows, dim), 2 * np.log(0.01))), 3)
      for name, dim, scale in (('content', 3, content), ('style', 2, style))}


@pytest.mark.parametrize('content, style, said', [
    (1.0, 1.0, ''), (0.003, 0.003, ''),
    (0.0, 0.0, 'the encoder ignores its input.*--activation=silu'),
    (0.0005, 1e-9, 'the encoder ignores its input'),
    (1.0, 0.0005, 'the same code of style, which'),
    (0.0, 1.0, 'the same code of content, which')])
def test_codes_have_to_vary_beyond_their_noise(content, style, said):
  found = same_codes(_MODEL, _codes(content, style))
  assert len(found) == bool(said)
  assert re.search(said, ''.join(found))


@pytest.mark.parametrize('parts', [1, 7])
def test_the_spread_is_in_nats(parts):
  rng = np.random.default_rng(0)
  q = Normal(1e3 + np.array([1e-3, 1.0]) * rng.normal(size=(60, 2)),
             rng.normal(size=(60, 2)))
  noise = np.exp(q.logvar.mean(0))
  np.testing.assert_allclose(
      _spread(q, parts).nats, 0.5 * np.sum(np.log(1 + q.mean.var(0) / noise)),
      rtol=1e-9)


def test_many_dimensions_that_say_little_say_something():
  rng = np.random.default_rng(0)
  sides = rng.choice([-0.09, 0.09], size=(200, 1)) * np.ones(128)
  assert not same_codes(_MODEL, {'style': _spread(
      Normal(sides, np.zeros((200, 128))))})


@pytest.mark.parametrize('logvar', [12.0, 800.0])
def test_an_uncertain_image_does_not_outweigh_the_others(logvar):
  rng = np.random.default_rng(0)
  q = Normal(rng.normal(size=(1000, 2)), np.full((1000, 2), -4.0))
  q.logvar[7] = logvar
  assert not same_codes(_MODEL, {'style': _spread(q)})


def test_few_images_and_codes_that_are_not_numbers_are_not_compared():
  assert not same_codes(_MODEL, _codes(0.0, 0.0, num_rows=9))
  q = Normal(np.zeros((20, 2)), np.zeros((20, 2)))
  q.mean[3] = np.nan
  assert not same_codes(_MODEL, {'style': _spread(q)})


def test_the_remedy_is_one_that_the_network_does_not_have():
  model = Model(ml_vae(3, 2), (8, 8, 1), Gaussian(), MLP((4,), 'silu'))
  found, = same_codes(model, _codes(0.0, 0.0))
  assert found.endswith('Train again with a lower --learning_rate')


def test_rows_are_not_called_images():
  model = Model(ml_vae(3, 2), (8,), Gaussian())
  assert same_codes(model, _codes(0.0, 0.0))[0].startswith('all rows have')


def test_the_evaluation_warns(params):
  def warnings(scale):
    scaled = jax.tree.map(lambda values: scale * values, params)
    return evaluate._of_codes(Context({'trained': (MODEL, scaled)}, splits()))

  assert 'the encoder ignores its input' in warnings(0.0)[0]
  assert not warnings(5.0)
