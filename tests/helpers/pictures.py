"""What tests of figures share: reading them, and drawing them fast."""

import contextlib
import functools

import jax
from PIL import Image
import pytest

from experiments.pictures import sheets


def read(paths):
  """The images by name, which are PNGs of a sane size with a caption.

  The data of the explorer are left out.
  """
  found = {}
  for path in paths:
    if path.endswith('/explorer.json'):
      continue
    with Image.open(path, formats=['PNG']) as image:
      image.load()
      assert 50 < min(image.size) and max(image.size) < 3000, image.size
      assert len(image.text['Description']) > 60
      found[path.rpartition('/')[2].removesuffix('.png')] = image
  return found


@contextlib.contextmanager
def fast():
  """Next to nothing is computed: compiling and large images take the time."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sheets, '_TILE', 28)
    jax.config.update('jax_disable_most_optimizations', True)
    yield
    jax.config.update('jax_disable_most_optimizations', False)


@functools.cache
def init(model):
  """Parameters of an untrained model."""
  return jax.jit(model.init)(jax.random.key(0))
