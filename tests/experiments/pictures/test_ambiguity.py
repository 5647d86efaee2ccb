"""The picture of ambiguous images."""

import matplotlib
import numpy as np
import pytest

from experiments.datasets.splits import Splits
from experiments.pictures import ambiguity, sheets
from experiments.pictures.subject import Subject
import mlvae_jax
from tests.helpers import pictures
from tests.helpers.lit_people import MODEL, random_images


@pytest.fixture(scope='module', autouse=True)
def _fast():
  with pictures.fast():
    yield


def _subject(count=40):
  images = random_images(count)
  return Subject(MODEL, pictures.init(MODEL), Splits(
      images, images, images, True), 'who')


def test_variances_are_those_of_images_alone(monkeypatch):
  monkeypatch.setattr(ambiguity, '_BLOCK', 16)
  subject = _subject()
  found = ambiguity._variance_alone(subject, np.arange(40))
  q = mlvae_jax.posteriors(MODEL, subject.params, subject.images.x)['who']
  np.testing.assert_allclose(
      found, np.exp(q.logvar).mean(axis=1), rtol=1e-5)


@pytest.mark.parametrize(('count', 'shown'), [(40, 12), (7, 3)])
def test_images_are_in_order_of_their_variance(count, shown):
  subject = _subject(count)
  with matplotlib.rc_context(sheets.STYLE):
    drawn = dict(ambiguity.ambiguities(subject))
  assert set(drawn) == {'ambiguity', 'ambiguity_light'}
  curves, *images = drawn['ambiguity'].figure.axes
  images = [ax for ax in images if ax.get_images()]
  assert len(images) == 2 * shown
  variance = [float(ax.get_title().split()[-1]) for ax in images]
  least, most = variance[:shown], variance[shown:]
  assert least == sorted(least) and most == sorted(most)[::-1]
  assert least[-1] <= most[-1]
  mean, = (line for line in curves.get_lines() if line.get_label() == 'mean')
  assert list(mean.get_ydata()) == sorted(mean.get_ydata())[::-1]


def test_a_single_image_has_no_order():
  assert not list(ambiguity.ambiguities(_subject(1)))
