"""Images of people by a dim or a bright light, and a model of both."""

import dataclasses

import numpy as np

from experiments.datasets.splits import split_images
from experiments.evaluation.encoding import Encoded
from mlvae_jax.data.grouped import GroupedData, Labels
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.model.factors import parse_factors
from mlvae_jax.model.model import Model
from mlvae_jax.model.networks.mlp import MLP

MODEL = Model(parse_factors('who:2:who,light:2:light,style:2'), (4, 4, 1),
               network=MLP((8,)))
LIGHTS = ('dim', 'bright')


def images_of(who, light, names=None, lights=LIGHTS):
  """Dark images, of which two pixels say who it is and how it is lit."""
  who, light = np.asarray(who), np.asarray(light)
  pixels = np.zeros((len(who), 4, 4, 1), np.uint8)
  pixels[:, 0, 0, 0], pixels[:, 3, 3, 0] = 40 * who, 100 * (light + 1)
  return GroupedData.from_labels(
      pixels, who, names or [f'p{i}' for i in range(who.max() + 1)], 'who',
      {'light': Labels(light, lights)})


def random_images(count=200, people=3, **names):
  rng = np.random.default_rng(0)
  return images_of(
      rng.integers(0, people, count), rng.integers(0, 2, count), **names)


def splits(**changes):
  splits = split_images(random_images(), (0.2, 0.2))
  return dataclasses.replace(splits, **changes)


class HandMade(Encoded):
  """Knows who it is in one code and the light in another; style is noise."""

  def __init__(self, data):
    super().__init__(MODEL, {}, {})
    self._data = data

  def message(self, split, factor, rows, drawn=False):
    del drawn  # No factor is given others.
    data = getattr(self._data, split)
    rng = np.random.default_rng(len(rows))
    if factor == 'style':
      mean = rng.normal(size=(len(rows), 2))
    else:
      labels = data.labels_of(factor).ids[rows]
      mean = np.eye(len(data.labels_of(factor).names))[labels]
      mean = mean + 0.1 * rng.normal(size=mean.shape)
    mean = mean.astype(np.float32)
    return Normal(mean, np.full_like(mean, -6))
