"""Runs to explore: a model whose decoder is lively, and images of groups."""

import jax
import numpy as np

from experiments.datasets.splits import Splits
from experiments.pictures.subject import Subject
import mlvae_jax as ml
from mlvae_jax.data.grouped import GroupedData
from mlvae_jax.model.factors import parse_factors
from tests.helpers import pictures


def subject_of(factors='who:3:group,how:2|who', sizes=(9, 4, 1, 7),
               shape=(8, 8, 1), names=None, **parts):
  """An untrained model, and random images of groups."""
  labels = np.repeat(np.arange(len(sizes)), sizes)
  images = GroupedData.from_labels(
      np.random.default_rng(0).integers(
          0, 256, (len(labels), *shape), np.uint8), labels,
      names or [f'g{i}' for i in range(len(sizes))])
  model = ml.Model(parse_factors(factors), shape, **({
      'likelihood': ml.Bernoulli(), 'network': ml.MLP((8,))} | parts))
  params = pictures.init(model)
  # Initial weights decode every code to nearly the same grey.
  params |= {'decoder': jax.tree.map(
      lambda leaf: leaf + 0.5 * np.random.default_rng(1).normal(
          size=leaf.shape).astype(np.float32), params['decoder'])}
  return Subject(model, params, Splits(images, images, images, True),
                 model.grouped[0].name if model.grouped else None)
