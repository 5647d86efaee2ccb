"""Which pictures a model allows."""

import pytest

from experiments.pictures.registry import OF_IMAGES, draw_pictures
from experiments.pictures.subject import Subject
from mlvae_jax.model.factors import ml_vae
from mlvae_jax.model.likelihoods.categorical import Categorical
from mlvae_jax.model.likelihoods.counts import Poisson
from mlvae_jax.model.likelihoods.gaussian import Gaussian
from mlvae_jax.model.model import Model


@pytest.mark.parametrize('likelihood, shape', [
    (Poisson(), (8, 8, 1)), (Categorical(4), (8, 8, 1)), (Gaussian(), (8,))])
@pytest.mark.parametrize('name', OF_IMAGES)
def test_pictures_are_of_pixels_only(name, likelihood, shape):
  model = Model(ml_vae(3, 2), shape, likelihood)
  assert not list(draw_pictures(name, Subject(model, {}, None, 'content')))
