"""Words for observations, which are images or rows of something else."""

from __future__ import annotations

import re

from mlvae_jax.model.model import Model

# What is not an image is a row, whose elements are not pixels. Names in quotes
# and values of flags stay as they are.
_WORDS = {'an image': 'a row', 'image': 'row', 'images': 'rows',
          'pixel': 'element', 'pixels': 'elements'}
_IMAGE = re.compile(r"(?<![\w'=/-])(an image|images?|pixels?)(?![\w'/-])")


def worded(model: Model, text: str) -> str:
  """A text about images, in words that fit the observations of a model.

  Args:
    model: model of the run.
    text: text that calls observations images.

  Returns:
    The text as it is for images, grey or RGB; otherwise about rows.
  """
  if shows_images(model):
    return text
  return _IMAGE.sub(lambda found: _WORDS[found[0]], text)


def shows_images(model: Model) -> bool:
  """Whether a model's observations have the shape of images, grey or RGB."""
  shape = model.observation_shape
  return (len(shape) == 3 and shape[-1] in (1, 3)
          and model.likelihood.takes_pixels)
