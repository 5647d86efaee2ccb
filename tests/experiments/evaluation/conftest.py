"""What tests of the evaluation share."""

import types

import jax
import pytest

from experiments.datasets.splits import split_images
from experiments.evaluation import label_sets
from experiments.evaluation.encoding import Encoded
from tests.helpers import pictures
from tests.helpers.lit_people import MODEL, HandMade, random_images


@pytest.fixture(scope='module', autouse=True)
def compile_fast():
  """Next to nothing is computed here: compiling takes the time."""
  with pictures.fast():
    yield


@pytest.fixture(scope='module')
def params():
  """Parameters of the untrained model."""
  return MODEL.init(jax.random.key(0))


@pytest.fixture(scope='module')
def hand_made(params):
  """Codes that are as they should be, the labels, and the images."""
  # As many people as lights: one shape of probe, to compile little.
  data = split_images(random_images(people=2), (0.2, 0.2))
  images = {name: getattr(data, name).x for name in label_sets.SPLITS}
  return types.SimpleNamespace(
      codes={'trained': HandMade(data),
             'untrained': Encoded(MODEL, params, images)},
      groupings=[label_sets.choose(data, name) for name in ('who', 'light')],
      images=images)
