"""Models and settings of training that follow from the settings of a run."""

import dataclasses

import pytest

from experiments.config import library
from experiments.config.settings import Config
from mlvae_jax.model.likelihoods.categorical import Categorical
from mlvae_jax.model.likelihoods.laplace import Laplace
from mlvae_jax.model.likelihoods.registry import LIKELIHOODS


@pytest.mark.parametrize('name', LIKELIHOODS)
def test_every_likelihood_is_a_setting(name):
  config = Config(likelihood=name, num_categories=7)
  found = library.make_model(config, (8,)).likelihood
  assert type(found) is LIKELIHOODS[name]


def test_likelihoods_take_their_settings():
  config = Config(likelihood='laplace', sigma=0.4)
  assert library.make_model(config, (8,)).likelihood == Laplace(0.4)
  config = Config(likelihood='categorical', num_categories=7)
  assert library.make_model(config, (8,)).likelihood == Categorical(7)


def test_categories_must_be_counted():
  config = Config(likelihood='categorical')
  with pytest.raises(ValueError, match='needs --num_categories'):
    library.make_model(config, (8,))
  config = dataclasses.replace(config, num_categories=1)
  with pytest.raises(ValueError, match='num_categories >= 2, got 1'):
    library.make_model(config, (8,))


def test_vectors_are_not_augmented():
  config = Config(likelihood='gaussian', augment='flip')
  model = library.make_model(config, (8,))
  with pytest.raises(ValueError, match='leave augment out'):
    library.make_train_config(config, model)
