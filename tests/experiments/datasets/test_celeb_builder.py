"""The TFDS builder of faces: what it keeps, how it splits, how it is read."""

import base64
import io
import json
import os
import pathlib
import pickle
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest
import tensorflow_datasets as tfds

from experiments.cli import UserError
from experiments.datasets import celeb_builder, celeb_index, splits
from experiments.datasets.sources import detect
from experiments.datasets.store import opening, packed
from tests.helpers import ROOT

_SPLITS = ('train', 'validation', 'test')
_SIZE = 8


def _jpeg(seed, mode='RGB'):
  pixels = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
  buffer = io.BytesIO()
  Image.fromarray(pixels).resize((20, 16)).convert(mode).save(buffer, 'JPEG')
  return buffer.getvalue()


def _folder(root, num_groups=7):
  """A folder per identity, with 1 to 3 images."""
  for group in range(num_groups):
    folder = root / f'p{group}'
    folder.mkdir(parents=True)
    for i in range(1 + group % 3):
      (folder / f'{i}.jpg').write_bytes(_jpeg(10 * group + i))
  return root


def _line(group, rank, image):
  return '\t'.join((group, str(rank), 'url', 'page', 'FaceId-0', 'AAAA',
                    base64.b64encode(image).decode())) + '\n'


def _tsv(root, num_groups=5):
  """Two shards; the ranks of each identity come in another order."""
  root.mkdir()
  rng = np.random.default_rng(0)
  lines = [
      _line(f'm.{group}', rank, _jpeg(100 * group + i))
      for group in range(num_groups)
      # Of equal ranks the first is kept.
      for i, rank in enumerate(rng.permutation([0, 1, 1, 4, 40, 41]))]
  (root / 'a.tsv').write_text(''.join(lines[:13]))
  (root / 'b.tsv').write_text('\n' + ''.join(lines[13:]))
  return root


def _celeb(tmp_path, source_dir, top_k=0):
  return celeb_builder.write(str(source_dir), str(tmp_path / 'tfds'), top_k)


def _packed(tmp_path, source_dir, top_k=0):
  return opening.open_or_prepare(
      str(source_dir), image_size=_SIZE, top_k=top_k,
      store_dir=str(tmp_path / 'store'))


def _encoded(builder, split):
  return list(builder.as_data_source(
      split, decoders={'image': tfds.decode.SkipDecoding()}))


def _identities(builder, split):
  """In order, each once."""
  return tuple(dict.fromkeys(
      record['identity'].decode() for record in _encoded(builder, split)))


@pytest.fixture(autouse=True)
def _nothing_in_the_home(tmp_path, monkeypatch):
  for name in ('HOME', 'XDG_CACHE_HOME'):
    monkeypatch.setenv(name, str(tmp_path / 'home'))
  yield
  assert not (tmp_path / 'home').exists()


@pytest.mark.parametrize('make, top_k', [
    (_folder, 0), (_tsv, 0), (_tsv, 1), (_tsv, 2)])
def test_it_holds_what_the_packed_store_holds(tmp_path, make, top_k):
  source_dir = make(tmp_path / 'faces')
  expected = _packed(tmp_path, source_dir, top_k)
  builder = _celeb(tmp_path, source_dir, top_k)

  parts = splits.split_groups(expected, celeb_index.FRACTIONS)
  for name in _SPLITS:
    part = getattr(parts, name)
    assert _identities(builder, name) == part.names
    assert builder.info.splits[name].num_examples == len(part)

  assert isinstance(
      detect.detect(str(tmp_path / 'tfds')), detect.TfdsSource)
  found = _packed(tmp_path, tmp_path / 'tfds')
  assert found.names == expected.names
  np.testing.assert_array_equal(found.offsets, expected.offsets)
  np.testing.assert_array_equal(found.x, expected.x)


def test_records_of_a_folder(tmp_path):
  source_dir = _folder(tmp_path / 'faces')
  builder = _celeb(tmp_path, source_dir)
  records = [r for name in _SPLITS for r in _encoded(builder, name)]
  assert len(records) == len(list(source_dir.glob('*/*.jpg')))
  for record in records:
    path = source_dir / record['identity'].decode() / record['name'].decode()
    assert record['image'] == path.read_bytes()
    assert path.name == f'{record["rank"]}.jpg'


def test_records_of_a_tsv_are_those_of_the_best_ranks(tmp_path):
  source_dir = _tsv(tmp_path / 'faces')
  builder = _celeb(tmp_path, source_dir, top_k=2)
  lines = {
      f'{path.name}:{number}': line.split('\t')
      for path in source_dir.iterdir()
      for number, line in enumerate(path.read_text().split('\n'), 1)}
  records = [r for name in _SPLITS for r in _encoded(builder, name)]
  assert [r['rank'] for r in records] == [0, 1] * 5
  for record in records:
    line = lines[record['name'].decode()]
    assert record['identity'].decode() == line[0]
    assert record['rank'] == int(line[1])
    assert record['image'] == base64.b64decode(line[6])


def test_splits_are_by_identity_in_the_papers_proportions(tmp_path):
  builder = _celeb(tmp_path, _folder(tmp_path / 'faces', num_groups=60))
  found = [_identities(builder, name) for name in _SPLITS]
  np.testing.assert_allclose(
      [len(names) / 60 for names in found], [0.49, 0.25, 0.25], atol=0.12)
  names = [f'p{i}' for i in range(60)]
  assert sum(found, ()) == tuple(
      names[i] for i in packed.group_order(names))


@pytest.mark.parametrize('make, top_k', [(_folder, 0), (_tsv, 2)])
def test_broken_images_are_passed_over_and_listed(tmp_path, make, top_k):
  source_dir = make(tmp_path / 'faces')
  if make is _folder:
    (source_dir / 'p1' / 'x.jpg').write_bytes(b'no image')
    (source_dir / 'p5' / '2.jpg').write_bytes(_jpeg(0)[:-60])
    (source_dir / 'nobody').mkdir()
    bad = {('p1', 'x.jpg'), ('p5', '2.jpg'), ('nobody', 'nobody')}
  else:
    # An identity without a usable image takes no place in the splits.
    (source_dir / 'c.tsv').write_text(
        _line('m.1', -1, b'no image') + _line('m.9', 0, _jpeg(0)[:-60])
        + 'm.2\tfew columns\n')
    bad = {('m.1', 'c.tsv:1'), ('m.9', 'c.tsv:2'), ('m.2', 'c.tsv:3')}
  expected = _packed(tmp_path, source_dir, top_k)
  builder = _celeb(tmp_path, source_dir, top_k)

  assert builder.info.metadata['num_bad_images'] == 3
  text = pathlib.Path(builder.data_dir, packed.BAD_IMAGES).read_text()
  lines = [json.loads(line) for line in text.splitlines()]
  assert {(line['group'], line['where']) for line in lines} == bad
  assert all(line['problem'] for line in lines)
  for leak in (str(tmp_path), ' at 0x'):
    assert leak not in text
  parts = splits.split_groups(expected, celeb_index.FRACTIONS)
  for name in _SPLITS:
    assert _identities(builder, name) == getattr(parts, name).names


def test_the_prepared_folder_does_not_say_where_the_source_was(tmp_path):
  builder = _celeb(tmp_path, _folder(tmp_path / 'secret place'))
  for path in pathlib.Path(builder.data_dir).iterdir():
    assert b'secret place' not in path.read_bytes()


def test_a_grey_image_is_read_as_three_equal_channels(tmp_path):
  source_dir = _folder(tmp_path / 'faces')
  grey = _jpeg(7, 'L')
  (source_dir / 'p0' / '0.jpg').write_bytes(grey)
  builder = _celeb(tmp_path, source_dir)
  images = {
      record['identity']: record['image']
      for name in _SPLITS for record in builder.as_data_source(name)}
  expected = np.asarray(Image.open(io.BytesIO(grey)))
  np.testing.assert_array_equal(
      images[b'p0'], np.repeat(expected[..., None], 3, -1))
  assert {image.shape for image in images.values()} == {(16, 20, 3)}


def test_a_source_is_read_as_the_packed_store_reads_it(tmp_path):
  for i in range(8):
    path = tmp_path / 'faces' / 'train' / f'p{i}' / 's' / '0.tif'
    path.parent.mkdir(parents=True)
    Image.fromarray(np.full((4, 4), i + 1, np.float32)).save(path)
  reading = {'group_level': 2, 'white': 7.0}
  builder = celeb_builder.write(
      str(tmp_path / 'faces'), str(tmp_path / 'tfds'), reading=reading)
  expected = opening.open_or_prepare(
      str(tmp_path / 'faces'), image_size=_SIZE, store_dir=str(tmp_path / 's'),
      **reading)
  assert len(expected) == builder.info.splits.total_num_examples == 7
  assert builder.info.metadata['num_bad_images'] == 1


def test_many_shards_and_splits_of_more_than_the_memory(tmp_path, monkeypatch):
  from tensorflow_datasets.core import shuffle

  # From here on TFDS would shuffle on disk, which needs TensorFlow.
  monkeypatch.setattr(shuffle, 'MAX_MEM_BUFFER_SIZE', 1)
  arguments = {'data_dir': str(tmp_path / 'tfds'),
               'source_dir': _tsv(tmp_path / 'faces')}
  config = tfds.download.DownloadConfig(num_shards=4, try_download_gcs=False)
  builder = celeb_builder.Celeb(**arguments)
  builder.download_and_prepare(download_config=config)
  assert builder.info.splits['train'].shard_lengths == [3, 3, 3, 3]
  records = _encoded(builder, 'train')
  assert len(records) == 12
  assert [r['rank'] for r in records] == [0, 1, 1, 4, 40, 41] * 2


def test_manual_dir_is_the_source_by_default(tmp_path):
  manual_dir = _folder(tmp_path / 'faces')
  builder = celeb_builder.Celeb(data_dir=tmp_path / 'tfds')
  builder.download_and_prepare(download_config=tfds.download.DownloadConfig(
      manual_dir=manual_dir, try_download_gcs=False))
  assert sum(s.num_examples for s in builder.info.splits.values()) == 13


def test_builder_and_data_source_survive_pickling(tmp_path):
  source_dir = _tsv(tmp_path / 'faces')
  fresh = pickle.loads(pickle.dumps(celeb_builder.Celeb(
      data_dir=str(tmp_path / 'tfds'), source_dir=source_dir, top_k=1)))
  assert not fresh.is_prepared()
  fresh.download_and_prepare(
      download_config=tfds.download.DownloadConfig(try_download_gcs=False))
  assert fresh.info.splits.total_num_examples == 5
  data = fresh.as_data_source('train')
  copy = pickle.loads(pickle.dumps(data))
  assert len(copy) == len(data) == 2
  np.testing.assert_array_equal(copy[1]['image'], data[1]['image'])


def test_it_is_written_once(tmp_path):
  source_dir = _tsv(tmp_path / 'faces')
  builder = _celeb(tmp_path, source_dir, top_k=2)
  before = os.stat(builder.data_dir).st_mtime_ns
  again = _celeb(tmp_path, source_dir, top_k=2)
  assert again.info.metadata['num_bad_images'] == 0
  assert os.stat(again.data_dir).st_mtime_ns == before
  with pytest.raises(UserError, match='celeb_top_k'):
    _celeb(tmp_path, source_dir, top_k=3)
  with open(source_dir / 'b.tsv', 'a') as file:
    file.write(_line('m.0', 2, _jpeg(0)))
  with pytest.raises(UserError, match='from one that has changed since'):
    _celeb(tmp_path, source_dir, top_k=2)


def test_errors_name_the_remedy_and_leave_nothing(tmp_path):
  with pytest.raises(UserError, match='falls into the validation split'):
    _celeb(tmp_path, _folder(tmp_path / 'two', num_groups=2))
  with pytest.raises(UserError, match='--tfds_dir'):
    celeb_builder.write(str(tmp_path / 'two'), str(tmp_path / 'two' / 'x'))
  with pytest.raises(UserError, match='no folder'):
    _celeb(tmp_path, tmp_path / 'missing')
  assert not list(tmp_path.glob('tfds/celeb/*'))


def test_a_source_that_changes_meanwhile_is_an_error(tmp_path, monkeypatch):
  source_dir = _tsv(tmp_path / 'faces')
  fill = celeb_builder.fill

  def fill_and_change(index, source, *args):
    fill(index, source, *args)
    text = (source_dir / 'b.tsv').read_text()
    (source_dir / 'b.tsv').write_text('\n\n\n' + text)

  monkeypatch.setattr(celeb_builder, 'fill', fill_and_change)
  with pytest.raises(UserError, match='changed while it was read'):
    _celeb(tmp_path, source_dir)
  assert not list(tmp_path.glob('tfds/celeb/*'))


_READ = """
import sys
import tensorflow_datasets as tfds

data = tfds.data_source('celeb', data_dir=sys.argv[1], split='train')
assert len(data) == 4, len(data)
assert data[0]['image'].shape == (16, 20, 3)
folder = tfds.builder_from_directory(sys.argv[1] + '/celeb/1.0.0')
assert len(folder.as_data_source('train[:50%]')) == 2
assert not any(m.startswith(('tensorflow.', 'experiments')) or m == 'tensorflow'
               for m in sys.modules)
"""


@pytest.mark.slow
def test_prepare_writes_it_and_anyone_reads_it_without_tensorflow(tmp_path):
  source_dir, tfds_dir = _tsv(tmp_path / 'faces'), tmp_path / 'tfds'

  def python(*args, cwd):
    return subprocess.run(
        [sys.executable, '-W', 'error', *args], cwd=cwd, text=True,
        capture_output=True, timeout=120, check=False,
        env=os.environ | {'JAX_PLATFORMS': 'cpu'})

  code = (
      'import runpy, sys\n'
      'try:\n'
      '  runpy.run_module("experiments.prepare", run_name="__main__")\n'
      'finally:\n'
      '  assert "tensorflow_datasets" in sys.modules\n'
      '  assert "tensorflow" not in sys.modules\n')
  written = python(
      '-c', code, f'--data_dir={source_dir}', f'--tfds_dir={tfds_dir}',
      f'--store_dir={tmp_path / "store"}', f'--image_size={_SIZE}',
      '--celeb_top_k=2', cwd=ROOT)
  assert written.returncode == 0, written.stderr
  assert f'10 images in {tfds_dir}/celeb/1.0.0' in written.stdout
  assert f"tfds.data_source('celeb', split='train', data_dir='{tfds_dir}')" in (
      written.stdout)
  read = python('-c', _READ, str(tfds_dir), cwd=tmp_path)
  assert read.returncode == 0, read.stderr
