"""Uncertainty of codes that are as they should be, and of others."""

import matplotlib
import numpy as np
import pytest

from experiments.datasets.splits import split_images
from experiments.evaluation.context import Context
from experiments.evaluation.section import Results
from experiments.evaluation.uncertainty import rows as uncertainty
from experiments.evaluation.uncertainty import tables
from experiments.evaluation.uncertainty.chart import draw_uncertainty
from experiments.pictures import sheets
from mlvae_jax.data.ids import offsets_of
from tests.helpers import pictures
from tests.helpers.lit_people import MODEL, HandMade, random_images, splits

_WHO = MODEL.factor('who')


@pytest.fixture(scope='module')
def found():
  """Rows of eight people in a code that knows them."""
  data = split_images(random_images(400, people=8), (0.2, 0.4))
  codes, context = HandMade(data), Context({}, data)
  groups = uncertainty._groups(context, _WHO, np.arange(len(data.test)))
  membership, reliability = uncertainty.membership_rows(codes, _WHO, groups)
  return {
      'variance': uncertainty.variance_rows(codes, _WHO, groups),
      'membership': membership, 'reliability': reliability}


def test_variance_falls_with_evidence(found):
  assert [row['k'] for row in found['variance']][:3] == [1, 2, 5]
  for row in found['variance']:  # Products of Normals of variance exp(-6).
    assert row['variance'] == pytest.approx(np.exp(-6) / row['k'], rel=1e-4)
  assert len({row['sets'] for row in found['variance']}) == 1


def test_a_code_that_knows_its_groups(found):
  assert [row['shots'] for row in found['membership']] == [1, 5]
  for row in found['membership']:
    assert row['ways'] == row['labels'] == 4 and row['chance'] == 0.25
    assert row['accuracy'] > 0.95 < row['unknown_auc']
    assert row['calibration_error'] < 0.1
    bins = [b for b in found['reliability'] if b['shots'] == row['shots']]
    assert sum(b['count'] for b in bins) == row['examples']
    assert all(b['from'] <= b['confidence'] <= b['to'] for b in bins)


def test_trials_do_not_show_what_they_ask():
  offsets = offsets_of(np.array([3, 9, 2, 30, 8, 1, 7]))
  episodes = list(uncertainty._episodes(offsets, 2))
  assert len(episodes) == 20
  for episode in episodes:
    gallery, known, unknown = (
        np.searchsorted(offsets, places, side='right') - 1 for places in (
            episode.gallery, episode.known, episode.unknown))
    assert episode.gallery.shape == (2, 2)
    np.testing.assert_array_equal(gallery[:, 0], gallery[:, 1])
    np.testing.assert_array_equal(gallery[episode.labels, 0], known)
    assert not set(episode.gallery.ravel()) & set(episode.known)
    assert not set(unknown) & set(gallery.ravel())
    assert not {2, 5} & {*gallery.ravel(), *unknown}  # Too few images.
  assert not list(uncertainty._episodes(np.array([0, 9, 18, 27]), 2))


def test_every_grouped_factor_has_rows(params):
  found = uncertainty.uncertainty_rows(
      Context({'trained': (MODEL, params)}, splits()))
  assert {row['code'] for row in found['variance']} == {'who', 'light'}
  # Three people and two lights cannot be halved.
  assert found['membership'] == found['reliability'] == []
  empty = splits()
  empty = splits(test=empty.test.take([]))
  assert not any(uncertainty.uncertainty_rows(
      Context({'trained': (MODEL, params)}, empty)).values())


def test_doubt_of_errors():
  assert uncertainty._error_auc(np.array([1, 3, 2]), np.arange(3) == 1) == 1
  assert uncertainty._error_auc(np.ones(3), np.zeros(3, bool)) is None


def test_tables_and_summary(found):
  text = tables.report(Results('', MODEL, found, {'uncertainty': '<f/>'}))
  assert '<f/>' in text and 'each of 4 groups' in text
  assert text.count('<table') == 2
  lines = tables.summary(found, 36)
  assert len(lines) == 2 and max(map(len, lines)) <= 79
  assert not tables.report(Results('', MODEL, {}, {}))
  assert tables.summary({}, 24) == []
  only = {'variance': found['variance']}
  assert tables.report(Results('', MODEL, only, {})).count('<table') == 1


@pytest.mark.parametrize('kept', [('variance',), ('reliability',),
                                  ('variance', 'reliability')])
def test_the_chart_shows_what_was_measured(found, kept, tmp_path):
  with matplotlib.rc_context(sheets.STYLE):
    drawing = draw_uncertainty({name: found[name] for name in kept}, MODEL)
    sheets.save(drawing, str(tmp_path / 'uncertainty.png'))
  pictures.read([str(tmp_path / 'uncertainty.png')])
  assert [ax.get_title(loc='left').lower()
          for ax in drawing.figure.axes] == list(kept)
  assert ('Left' in drawing.caption) == (len(kept) == 2)
  for name in kept:
    assert name in drawing.caption.lower()
