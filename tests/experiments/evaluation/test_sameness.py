"""Warnings about codes that are the same for all images."""

import re

import numpy as np
import pytest

from experiments.evaluation.sameness import same_codes
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.model.factors import ml_vae
from mlvae_jax.model.likelihoods.gaussian import Gaussian
from mlvae_jax.model.model import Model

_MODEL = Model(ml_vae(3, 2), (8, 8, 1), Gaussian())


def _codes(content, style, num_rows=50):
  """Codes whose means vary so much in one dimension, with noise of 0.01."""
  return {name: Normal(
      3.0 + scale * np.random.default_rng(0).normal(size=(num_rows, dim))
      * (np.arange(dim) == 1), np.full((num_rows, dim), 2 * np.log(0.01)))
      for name, dim, scale in (('content', 3, content), ('style', 2, style))}


@pytest.mark.parametrize('content, style, said', [
    (1.0, 1.0, ''), (0.002, 0.002, ''),
    (0.0, 0.0, 'the encoder ignores its input.*--activation=silu'),
    (0.0005, 1e-9, 'the encoder ignores its input'),
    (1.0, 0.0005, 'the same code of style, which'),
    (0.0, 1.0, 'the same code of content, which')])
def test_codes_have_to_vary_beyond_their_noise(content, style, said):
  found = same_codes(_MODEL, _codes(content, style))
  assert len(found) == bool(said)
  assert re.search(said, ''.join(found))


def test_one_image_is_not_compared():
  assert not same_codes(_MODEL, _codes(0.0, 0.0, num_rows=1))


def test_rows_are_not_called_images():
  model = Model(ml_vae(3, 2), (8,), Gaussian())
  assert same_codes(model, _codes(0.0, 0.0))[0].startswith('all rows have')
