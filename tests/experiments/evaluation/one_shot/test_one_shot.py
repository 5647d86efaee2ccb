"""Classification in one-shot runs: preparation, errors, report."""

import dataclasses

import jax
import numpy as np
from PIL import Image
import pytest

from experiments import datasets
from experiments.cli import UserError
from experiments.config import presets
from experiments.datasets.like_source import prepare_like
from experiments.datasets.sources.one_shot_runs import read_runs
from experiments.datasets.splits import Splits
from experiments.evaluation.context import Context
from experiments.evaluation.one_shot import rows, tables
from experiments.evaluation.section import Results
from mlvae_jax.data.grouped import GroupedData
from mlvae_jax.grouping.product import PriorProduct
from mlvae_jax.model.factors import ml_vae
from mlvae_jax.model.model import Model
from mlvae_jax.model.networks.mlp import MLP
from tests.helpers import one_shot

_SIZE = 12


def _data(tmp_path, native, background=0, mode='L'):
  """A data set of drawings in files of a size, and its configuration."""
  for i in range(8):
    for drawer in range(2):
      path = tmp_path / 'data' / f'{i}' / f'{drawer}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      drawing = one_shot.character(i, drawer, native, background)
      # Grey files are not only of black and white.
      path.write_bytes(one_shot.png(
          np.clip(drawing, 9, 246) if mode == 'L' else drawing, mode))
  config = dataclasses.replace(
      presets.PRESETS['omniglot'], data_dir=str(tmp_path / 'data'),
      store_dir=str(tmp_path / 'stores'), image_size=_SIZE)
  return datasets.load(config), config


def _as_file(image, native):
  """A drawing as it would be in a data set of files of this size."""
  return np.asarray(Image.fromarray(image).resize(
      (native, native), Image.Resampling.LANCZOS))


def _stored(image):
  return np.asarray(Image.fromarray(image).resize(
      (_SIZE, _SIZE), Image.Resampling.LANCZOS))


@pytest.mark.parametrize('background', [0, 255])
@pytest.mark.parametrize('native', [14, 105])
def test_images_are_prepared_as_the_data_set_was(tmp_path, native, background):
  data, config = _data(tmp_path, native, background)
  raw = one_shot.character(3, 1)
  found, warning = prepare_like([raw], config, data.train)
  assert not warning
  as_file = _as_file(raw if background else 255 - raw, native)
  np.testing.assert_array_equal(found[0, ..., 0], _stored(as_file))


def test_black_and_white_files_stay_so(tmp_path):
  data, config = _data(tmp_path, 14, mode='1')
  raw = one_shot.character(3, 1)
  found, warning = prepare_like([raw], config, data.train)
  assert not warning
  as_file = np.where(_as_file(255 - raw, 14) > 127, 255, 0).astype(np.uint8)
  np.testing.assert_array_equal(found[0, ..., 0], _stored(as_file))


def test_a_source_that_is_gone_and_colours(tmp_path):
  data, config = _data(tmp_path, 105)
  gone = dataclasses.replace(config, data_dir=str(tmp_path / 'gone'))
  colour = dataclasses.replace(
      data.train, x=np.repeat(data.train.x, 3, axis=-1))
  raw = one_shot.character(3, 1)
  found, warning = prepare_like([raw], gone, colour)
  assert f'{tmp_path / "gone"} does not exist, so the size' in warning
  assert found.shape == (1, _SIZE, _SIZE, 3)
  np.testing.assert_array_equal(found[0, ..., 1], _stored(255 - raw))


def test_a_source_without_images_is_said_to_be_one(tmp_path):
  data, config = _data(tmp_path, 14)
  for path in (tmp_path / 'data').glob('*/*'):
    path.write_bytes(b'')
  _, warning = prepare_like([one_shot.character(3, 1)], config, data.train)
  assert 'files of' in warning and 'are not images, so the size' in warning


def test_a_source_that_has_become_another_is_not_passed_over(tmp_path):
  data, config = _data(tmp_path, 14)
  (tmp_path / 'other').mkdir()
  other = dataclasses.replace(config, data_dir=str(tmp_path / 'other'))
  with pytest.raises(UserError, match=str(tmp_path / 'other')):
    prepare_like([one_shot.character(3, 1)], other, data.train)


def _context(tmp_path, posterior=None, num_runs=2):
  data, config = _data(tmp_path, 28)
  model = Model(
      ml_vae(6, 2, 'character'), (_SIZE, _SIZE, 1), network=MLP((32,)),
      **{'group_posterior': posterior} if posterior else {})
  runs = read_runs(one_shot.write(
      tmp_path / 'runs', one_shot.runs(num_runs)))
  return Context(
      {'trained': (model, model.init(jax.random.key(0)))}, data, config,
      one_shot_runs=rows.prepare(runs, config, data))


@pytest.mark.parametrize('posterior', [None, PriorProduct()])
def test_errors_of_runs(tmp_path, posterior):
  context = _context(tmp_path, posterior)
  found = rows.one_shot_rows(context)['one_shot_runs']
  assert [(row['code'], row['score']) for row in found] == [
      ('content', 'cosine'), ('content', 'posterior'), ('style', 'cosine'),
      ('style', 'posterior'), ('pixels', 'cosine'),
      ('strokes', 'modified Hausdorff distance')]
  for row in found:
    assert 0 <= row['error'] <= 1 and row['margin'] == pytest.approx(
        1.96 * row['standard_error'])
    assert (row['runs'], row['ways'], row['chance']) == (2, 4, 0.75)
  # The same strokes, a little shifted.
  assert found[-1]['error'] == 0
  results = Results('', context.models['trained'][0],
                    {'one_shot_runs': found}, {})
  html = tables.report(results)
  assert 'In each of 2 runs' in html and '0.0 ± 0.0' in html
  lines = tables.summary(results.evaluation, 24)
  assert lines[0].split()[:3] == ['2', 'one-shot', 'runs,']
  assert lines[-1].split() == ['strokes', '0.0', '-']
  assert max(map(len, lines)) < 80
  assert tables.key_numbers(results)[0][0] == 'content one-shot error'


def test_a_single_run_has_no_margin(tmp_path):
  found = rows.one_shot_rows(_context(tmp_path, num_runs=1))['one_shot_runs']
  assert all(row['margin'] is None for row in found)
  html = tables.report(Results('', Model(ml_vae(6, 2, 'character'), (4,)), {
      'one_shot_runs': found}, {}))
  assert '±' not in html


def test_nothing_without_runs():
  assert rows.one_shot_rows(Context({}, None)) == {}
  nothing = Results('', Model(ml_vae(6, 2, 'character'), (4,)), {}, {})
  assert tables.report(nothing) == ''
  assert tables.summary({}, 30) == tables.key_numbers(nothing) == []


def test_runs_are_images():
  x = np.zeros((4, 3), np.float32)
  data = GroupedData.from_labels(x, np.arange(4))
  with pytest.raises(UserError, match='trained on other observations'):
    rows.prepare((), presets.PRESETS['arrays'], Splits(
        data, data, data, shares_groups=True))
