"""Figures: every one is a whole PNG, whatever the model and the groups."""

import dataclasses
import json
import pathlib
import types

from absl import flags
import jax
import numpy as np
import pytest

from experiments import datasets, figures
from experiments.cli import UserError
from experiments.config import presets
from experiments.datasets.splits import Splits
from experiments.pictures import sheets, shown
from experiments.pictures.subject import Subject
from experiments.runs import loop
from experiments.runs.build import make_model
from experiments.runs.workdir import open_workdir
import mlvae_jax
from mlvae_jax.data.grouped import GroupedData
from tests.helpers import pictures
from tests.helpers.recognition_rows import PROBES, recognition

_CONFIG = dataclasses.replace(
    presets.PRESETS['folder'], factors='who:2:group,how:2', hidden_sizes=(8,),
    steps=2, groups_per_batch=2, max_group_size=4, chunk_steps=1,
    eval_every=1, checkpoint_every=2)
_SWAPPED = {'swap', 'generation', 'interpolation'}
_PICTURES = {'reconstruction', 'ambiguity'} | _SWAPPED | {
    f'{name}_strategy_1' for name in _SWAPPED}


def _data(sizes, shape=(4, 4, 1), names=None):
  rng = np.random.default_rng(0)
  labels = np.repeat(np.arange(len(sizes)), sizes)
  images = GroupedData.from_labels(
      rng.integers(0, 256, (len(labels), *shape), np.uint8), labels,
      names or [f'g{i}' for i in range(len(sizes))])
  return Splits(images, images, images, True)


def _model(data, **changes):
  """An untrained model with its parameters, as `mlvae_jax.load` gives it."""
  model = make_model(dataclasses.replace(_CONFIG, **changes), data)
  return model, pictures.init(model)


@pytest.fixture
def draw(tmp_path, monkeypatch):
  """Function that draws an untrained model: images by name."""
  def call(data, only=None, **changes):
    monkeypatch.setattr(
        figures, 'load_model', lambda workdir, step: _model(data, **changes))
    return pictures.read(figures.draw_all(str(tmp_path), data, only=only))
  return call


def _count(image, colour):
  """Pixels of exactly that colour, '#rrggbb'."""
  rgb = np.frombuffer(bytes.fromhex(colour[1:]), np.uint8)
  return int((np.asarray(image.convert('RGB')) == rgb).all(-1).sum())


@pytest.fixture(scope='module', autouse=True)
def _fast():
  with pictures.fast():
    yield


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
  """A trained and evaluated run with its figures."""
  workdir, data = tmp_path_factory.mktemp('trained'), _data([12, 3, 1, 7])
  model = make_model(_CONFIG, data)
  with open_workdir(str(workdir), _CONFIG, model, resume=False):
    loop.train(str(workdir), _CONFIG, model, data)
  (workdir / 'evaluation.json').write_text(json.dumps({
      'probes': PROBES, **recognition(['who', 'how', 'pixels'])}))
  return workdir, data, figures.draw_all(str(workdir), data)


def test_every_figure_is_drawn(trained):
  workdir, _, paths = trained
  assert set(pictures.read(paths)) == _PICTURES | {
      'evidence', 'recognition', 'curves'}
  assert sorted(paths) == sorted(map(str, (workdir / 'figures').iterdir()))


def test_frames_say_what_an_image_is(trained):
  drawn = pictures.read(trained[2])
  for name in ('swap', 'interpolation', 'reconstruction'):
    for colour in (sheets.GREEN, sheets.BLUE, sheets.RED):
      assert _count(drawn[name], colour) > 500, (name, colour)
  assert not _count(drawn['generation'], sheets.BLUE)


def test_captions_name_the_model_s_factors(trained):
  for name, image in pictures.read(trained[2]).items():
    caption = image.text['Description']
    assert name in ('evidence', 'recognition', 'curves') or 'who' in caption
    assert 'style' not in caption
  assert 'chosen to show the benefit' in pictures.read(trained[2])[
      'reconstruction'].text['Description']


@pytest.mark.slow
def test_drawing_again_gives_the_same_bytes(trained):
  workdir, data, paths = trained
  before = {path: pathlib.Path(path).read_bytes() for path in paths}
  assert figures.draw_all(str(workdir), data) == paths
  assert {path: pathlib.Path(path).read_bytes() for path in paths} == before


def test_failure_leaves_the_old_figure(trained, monkeypatch):
  workdir, data, paths = trained
  before = pathlib.Path(paths[0]).read_bytes()

  def fail(*args, **kwargs):
    raise OSError('disk full')

  monkeypatch.setattr(sheets.Figure, 'savefig', fail)
  with pytest.raises(OSError, match='disk full'):
    figures.draw_all(str(workdir), data)
  assert pathlib.Path(paths[0]).read_bytes() == before


def test_main_prints_the_paths(trained, monkeypatch, capsys):
  workdir, data, paths = trained
  values = {'workdir': str(workdir), 'data_changed': 'accept',
            'data_dir': 'moved', 'store_dir': None,
            'step': 'latest',
            'only': ['swap']}
  monkeypatch.setattr(
      flags, 'FLAGS', types.SimpleNamespace(flag_values_dict=lambda: values))
  monkeypatch.setattr(
      datasets, 'load',
      lambda config, show_notes: {'moved': data}[config.data_dir])
  figures.main()
  assert capsys.readouterr().out.split() == paths[:2]
  values['workdir'] = None
  with pytest.raises(SystemExit) as caught:
    figures.main()
  assert caught.value.code == 2


def test_images_of_another_shape_are_refused(trained):
  with pytest.raises(UserError, match='check --data_dir'):
    figures.draw_all(str(trained[0]), _data([3], (5, 4, 1)))


def test_vae_has_samples_in_place_of_swaps(draw):
  assert set(draw(_data([3, 4]), model='vae')) == {
      'samples', 'interpolation', 'reconstruction'}


@pytest.mark.slow
@pytest.mark.parametrize('sizes, shape', [
    ([5], (4, 4, 1)),  # One group.
    ([1, 1, 1], (6, 9, 3)),  # Nothing to accumulate; RGB; not a square.
])
def test_groups_and_images_of_all_sizes(draw, sizes, shape):
  assert set(draw(_data(sizes, shape))) == _PICTURES


@pytest.mark.parametrize('sizes', [
    [0, 2, 0, 1, 0],  # Groups that the split lacks.
    [1] * 30,  # More groups than are shown.
])
def test_groups_of_the_split(draw, sizes):
  drawn = draw(_data(sizes), ['generation', 'reconstruction'])
  assert set(drawn) == {
      'generation', 'generation_strategy_1', 'reconstruction'}


def test_one_image_is_not_interpolated(draw):
  assert set(draw(_data([0, 1]))) == _PICTURES - {
      'interpolation', 'interpolation_strategy_1', 'ambiguity'}


def test_split_without_images(draw):
  data = _data([0, 0])
  assert draw(data) == {}


@pytest.mark.slow
@pytest.mark.parametrize('factors, names', [
    ('who:2:group,what:2:group', _PICTURES | {
        f'{name}_what{ending}' for name in _SWAPPED
        for ending in ('', '_strategy_1')} | {'ambiguity_what'}),
    ('who:2:group', {
        'interpolation', 'interpolation_strategy_1', 'reconstruction',
        'ambiguity'}),
])
def test_any_set_of_factors(draw, factors, names):
  assert set(draw(_data([3, 4]), factors=factors)) == names


def test_names_from_the_disk_are_shown_as_they_are(draw):
  # Broken TeX, a glyph that the font lacks, bytes that are no text.
  names = ['$a^', '漢字', 'b\udcff\n', '<script>' * 9]
  only = ['generation', 'reconstruction']
  assert len(draw(_data([2] * 4, names=names), only)) == 3


def _subject(sizes=(30, 12, 1), **fields):
  """An untrained model, and groups of such sizes."""
  data = _data(sizes)
  model, params = _model(data)
  values = {'model': model, 'params': params, 'data': data, 'factor': 'who'}
  return Subject(**values | fields)


@pytest.mark.parametrize('strategy, count', [(1, 1), (2, 11)])
def test_codes_have_the_evidence_of_ten_others(strategy, count):
  subject = _subject(strategy=strategy)
  test, seen = subject.images, []
  rows = np.array([35, 42])
  for changed in range(len(test)):
    dark = test.x.copy()
    dark[changed] = 255 - dark[changed]
    other = subject._replace(data=dataclasses.replace(
        subject.data, test=dataclasses.replace(test, x=dark)))
    first, second = (
        shown.infer_codes(s, rows, jax.random.key(1))['who'][0]
        for s in (subject, other))
    seen += [changed] if not np.allclose(first, second) else []
  assert 35 in seen and len(seen) == count
  assert set(seen) <= set(range(30, 42))


def test_members_are_the_furthest_two_and_the_nearest_two():
  subject = _subject()
  members = shown.choose_members(subject, [0, 2])
  rows = subject.groups.rows(0)
  assert sorted(rows) == list(range(30))
  images = subject.images.x[rows]
  alone = mlvae_jax.infer(subject.model, subject.params, images)['who']
  group = mlvae_jax.encode_group(
      subject.model, subject.params, images, np.zeros(30, np.int32), 1)
  order = np.argsort(-np.linalg.norm(alone - group.mean, axis=-1))
  np.testing.assert_array_equal(members[0], rows[order[[0, 1, -2, -1]]])
  np.testing.assert_array_equal(members[1], [42])


@pytest.mark.parametrize('sizes, count, expected', [
    ([4, 4, 4], 10, [3, 3, 3]), ([4, 0, 1], 4, [2, 0, 1]), ([5], 3, [3]),
    ([0, 0], 3, [0, 0]),
])
def test_images_are_shared_out_among_groups(sizes, count, expected):
  subject = _subject(sizes)
  rows = shown.choose_images(subject, count)
  assert len(set(rows)) == len(rows)
  assert np.bincount(
      subject.images.labels[rows], minlength=len(sizes)).tolist() == expected
