"""From a source to its packed store: bad input, kills, full disks, changes."""

import dataclasses
import errno
import json
import os
import pathlib
import stat
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest

from experiments.cli import UserError
from experiments.config import presets
from experiments.datasets import folder
from experiments.datasets.sources import detect, records
from experiments.datasets.sources.images import read_image
from experiments.datasets.store import (
    opening,
    packed,
    packing,
    partial_store,
    slots,
)
from experiments.datasets.store.settings import store_path
from tests.helpers import ROOT
from tests.helpers.made_up import jpeg, line, write_folder, write_tsv

SIZES = {'a b': 3, 'Zoë': 1, '<script>': 2}
_FILES = ['bad_images.jsonl', 'images.npy', 'manifest.json', 'names.json',
          'offsets.npy', 'row_names.npy']


def _prepare(data_dir, store_dir, image_size=8, **settings):
  return opening.open_or_prepare(
      str(data_dir), image_size=image_size, store_dir=str(store_dir),
      **settings)


def _groups(data):
  """The images of each group by name."""
  return {name: data.x[data.offsets[i]:data.offsets[i + 1]]
          for i, name in enumerate(data.names)}


def _pixels(images):
  return np.stack([read_image(image, 8) for image in images])


def _bad(store_dir):
  """Last part of the place, group and problem of what was passed over."""
  path, = store_dir.glob('*/bad_images.jsonl')
  rows = map(json.loads, path.read_text().splitlines())
  return {row['where'].split('/')[-1]: (row['group'], row['problem'])
          for row in rows}


# What is kept.


def test_a_folder_and_a_tsv_give_the_same_pixels(tmp_path):
  folder = _prepare(write_folder(tmp_path / 'folder', SIZES), tmp_path / 's')
  tsv = _prepare(write_tsv(tmp_path / 'x.tsv', SIZES), tmp_path / 's')
  assert folder.names == tsv.names and set(tsv.names) == set(SIZES)
  np.testing.assert_array_equal(folder.offsets, tsv.offsets)
  np.testing.assert_array_equal(folder.x, tsv.x)


@pytest.mark.parametrize('mode, channels', [('L', 1), ('RGB', 3)])
def test_all_grey_images_have_one_channel(tmp_path, mode, channels):
  data = _prepare(write_folder(tmp_path / 'x', {'a': 1}, mode), tmp_path / 's',
                  image_size=7)
  assert data.x.shape == (1, 7, 7, channels)
  np.testing.assert_array_equal(
      data.x[0], read_image(str(tmp_path / 'x' / 'a' / '000.jpg'), 7))


def test_one_colour_image_makes_all_rgb(tmp_path):
  root = write_folder(tmp_path / 'x', {'a': 2, 'b': 2}, 'L')
  (root / 'a' / '000.jpg').write_bytes(jpeg(0))
  images = _groups(_prepare(root, tmp_path / 's'))['b']
  assert images.shape == (2, 8, 8, 3)
  assert np.ptp(images, axis=-1).max() == 0 < np.ptp(images)


def test_a_colour_image_that_is_not_kept_does_not_count(tmp_path):
  path = tmp_path / 'x.tsv'
  path.write_bytes(line('m', 5, jpeg(0)) + line('m', 1, jpeg(1, 'L')))
  assert _prepare(path, tmp_path / 's', top_k=1).x.shape == (1, 8, 8, 1)


@pytest.mark.parametrize('top_k', [0, 1, 3, 100])
@pytest.mark.parametrize('seed', range(3))
def test_the_best_ranks_are_kept_whatever_their_order(tmp_path, top_k, seed):
  rng = np.random.default_rng(seed)
  rows = [(f'm.{i % 4}', int(rng.integers(-2, 8)), jpeg(i)) for i in range(40)]
  (tmp_path / 'x').mkdir()
  for shard in range(2):
    (tmp_path / 'x' / f'{shard}.tsv').write_bytes(
        b''.join(line(*row) for row in rows[20 * shard:20 * (shard + 1)]))
  found = _groups(_prepare(tmp_path / 'x', tmp_path / 's', top_k=top_k))
  assert set(found) == {'m.0', 'm.1', 'm.2', 'm.3'}
  for group, images in found.items():
    # Of equal ranks the first is kept: Python's sort is stable.
    best = sorted((r for r in rows if r[0] == group), key=lambda r: r[1])
    np.testing.assert_array_equal(
        images, _pixels([r[2] for r in best[:top_k or None]]))


def test_a_bad_image_takes_no_place_among_the_best(tmp_path):
  path = tmp_path / 'x.tsv'
  path.write_bytes(b''.join([
      line('m', 0, b'bad'), line('m', 2, jpeg(2)), line('m', 1, jpeg(1)),
      line('m', 3, jpeg(3))]))
  data = _prepare(path, tmp_path / 's', top_k=2)
  np.testing.assert_array_equal(data.x, _pixels([jpeg(1), jpeg(2)]))


def test_ranks_of_a_folder_mean_nothing(tmp_path):
  root = write_folder(tmp_path / 'x', SIZES)
  assert len(_prepare(root, tmp_path / 's', top_k=1)) == 6


# Names.


def _names(data):
  return [name.decode() for name in data.row_names]


def test_rows_keep_their_names_in_a_folder(tmp_path):
  root = write_folder(tmp_path / 'x', SIZES)
  data = _prepare(root, tmp_path / 's')
  for name, image in zip(_names(data), data.x, strict=True):
    np.testing.assert_array_equal(image, read_image(str(root / name), 8))
  assert [name.split('/')[0] for name in _names(data)] == [
      data.names[label] for label in data.labels]


@pytest.mark.parametrize('top_k', [0, 1])
def test_rows_of_a_tsv_are_called_by_rank_and_face(tmp_path, top_k):
  path = tmp_path / 'x.tsv'
  path.write_bytes(b''.join(
      line('m.1', rank, jpeg(rank)) for rank in (5, 120, 3)))
  data = _prepare(path, tmp_path / 's', top_k=top_k)
  assert _names(data) == [
      'm.1/3-FaceId-0', 'm.1/5-FaceId-0', 'm.1/120-FaceId-0'
  ][:top_k or None]
  # As wide as the longest that is kept.
  assert data.row_names.dtype == ('S14' if top_k else 'S16')


def test_a_long_name_is_cut_between_letters_and_stays_unique(tmp_path):
  group = 'x' + 'é' * 76
  root = write_folder(tmp_path / 'x', {group: 0})
  for name in ('n' * 40, *('é' * 60 + c for c in 'ab')):
    (root / group / f'{name}.jpg').write_bytes(jpeg(0))
  whole, *cut = _names(_prepare(root, tmp_path / 's'))
  assert whole == f'{group}/{"n" * 40}.jpg' and len(set(cut)) == 2
  for name in cut:
    start, _, digest = name.partition('~')
    assert start == 'x' + 'é' * 74 and len(digest) == 32


@pytest.mark.parametrize('name, expected', [
    ('a/b.png', b'a/b.png'), ('a\0', rb'a\x00'), ('\udcff', rb'\xff'),
    ('é' * 100, 'é'.encode() * 100)])
def test_names_are_utf8_without_nuls(name, expected):
  assert records.row_name(name) == expected


def test_content_has_the_same_fingerprint_wherever_it_lies(tmp_path):
  found = []
  for parent in ('a', 'b'):
    root = write_folder(tmp_path / parent / 'x', SIZES)
    if parent == 'b':
      (root / 'Zoë' / '000.jpg').rename(root / 'Zoë' / 'new.jpg')
    config = dataclasses.replace(
        presets.PRESETS['folder'], data_dir=str(root), image_size=8,
        store_dir=str(tmp_path / parent / 's'))
    with pytest.raises(UserError, match='no packed store in .*prepare it'):
      folder.store_manifest(config)
    folder.open_images(config)
    found.append(packed.content_fingerprint(folder.store_manifest(config)))
    root.rename(tmp_path / parent / 'gone')
    root = (tmp_path / parent / 'gone').rename(tmp_path / parent / 'y')
    config = dataclasses.replace(config, data_dir=str(root))
    folder.open_images(config)
    assert found[-1] == packed.content_fingerprint(
        folder.store_manifest(config))
  first, other = found
  assert first['pixels'] == other['pixels'] and first['num_images'] == 6
  assert first['names'] != other['names']


# Bad input.


def _huge_png(side):
  """Says that it has so many pixels a side."""
  header = b'IHDR' + struct.pack('>IIBBBBB', side, side, 8, 0, 0, 0, 0)
  data = b'IDAT' + zlib.compress(bytes(side))
  return b'\x89PNG\r\n\x1a\n' + b''.join(
      struct.pack('>I', len(chunk) - 4) + chunk
      + struct.pack('>I', zlib.crc32(chunk)) for chunk in (header, data))


def _break_folder(root):
  """Adds what cannot be used; gives the problem of each, in part."""
  group = root / 'a b'
  (group / 'text <b>.png').write_text('no image')
  (group / 'empty.png').write_bytes(b'')
  (group / 'truncated.jpg').write_bytes(jpeg(0)[:-60])
  (group / 'huge.png').write_bytes(_huge_png(30_000))
  (group / 'loop.jpg').symlink_to('loop.jpg')
  (group / 'nowhere.jpg').symlink_to('nowhere')
  (group / 'parent.jpg').symlink_to('..')
  os.mkfifo(group / 'pipe.jpg')
  (root / 'vacant').mkdir()
  (root / 'up').symlink_to('.')
  (root / 'lost').symlink_to('nowhere')
  (root / 'round').symlink_to('round')
  return {
      'text <b>.png': 'not an image of a known format',
      'empty.png': 'not an image of a known format',
      'truncated.jpg': 'truncated',
      'huge.png': '30000x30000 pixels', 'loop.jpg': 'symbolic links',
      'nowhere.jpg': 'No such file', 'parent.jpg': 'to a folder above it',
      'pipe.jpg': 'is not a file', 'vacant': 'holds no images',
      'up': 'is a link to a folder above it', 'lost': 'cannot be listed',
      'round': 'cannot be listed'}


def test_bad_files_are_named_and_passed_over(tmp_path, capsys):
  root = write_folder(tmp_path / 'x', SIZES)
  expected = _break_folder(root)
  data = _prepare(root, tmp_path / 's')
  assert len(data) == 6 and set(data.names) == set(SIZES)
  bad = _bad(tmp_path / 's')
  assert set(bad) == set(expected)
  for name, problem in expected.items():
    assert problem in bad[name][1], name
    assert bad[name][0] == (
        'a b' if '.' in name else '' if name == 'up' else name)
    assert str(tmp_path) not in bad[name][1]
  path, = (tmp_path / 's').glob('*/bad_images.jsonl')
  said = f'6 images of 3 groups in {path.parent}; 12 bad images skipped'
  assert f'{said}, see {path}\n' in capsys.readouterr().out
  _prepare(root, tmp_path / 's')  # Said when it is opened, too.
  assert said in capsys.readouterr().out


def test_names_that_are_not_utf8_are_no_matter(tmp_path, capsys):
  root = os.path.join(os.fsencode(tmp_path), b'\xff')
  try:
    os.makedirs(os.path.join(root, b'b\xe9ta'))
  except OSError:
    pytest.skip('this file system wants UTF-8')
  for name, image in ((b'\xfe.jpg', jpeg(0)), (b'\xfd.jpg', b'')):
    with open(os.path.join(root, b'b\xe9ta', name), 'wb') as file:
      file.write(image)
  data = _prepare(os.fsdecode(root), tmp_path / 's')
  assert data.names == (r'b\xe9ta',)
  assert _bad(tmp_path / 's') == {
      r'\xfd.jpg': (r'b\xe9ta', 'is not an image of a known format')}
  capsys.readouterr().out.encode()


def _forbid(path, mode):
  path.chmod(mode)
  if os.access(path, os.R_OK | os.W_OK):
    pytest.skip('root may do everything')


def test_files_that_must_not_be_read_are_passed_over(tmp_path):
  root = write_folder(tmp_path / 'x', {'a': 2, 'b': 2})
  _forbid(root / 'a' / '000.jpg', 0)
  _forbid(root / 'b', 0)
  data = _prepare(root, tmp_path / 's')
  (root / 'b').chmod(stat.S_IRWXU)
  assert len(data) == 1
  assert _bad(tmp_path / 's') == {
      '000.jpg': ('a', 'cannot be decoded: Permission denied'),
      'b': ('b', 'cannot be listed: Permission denied')}


def _break_tsv(path):
  """Adds bad lines; gives how many."""
  bad = [
      line('a b', 0, b'no image'), line('a b', 0, jpeg(0)[:-60]),
      line('a b', 0, b''), line('', 0, jpeg(0)), line('a b', 'x', jpeg(0)),
      b'a b\t0\turl\tpage\tface\tAAAA\n',
      line('a b', 0, jpeg(0)).replace(b'\n', b'*\n'), b'\xff\xfe\n']
  good = path.read_bytes().splitlines(keepends=True)
  path.write_bytes(b'\r\n'.join([good[0], *bad, b'', b'', *good[1:]]))
  return len(bad)


@pytest.mark.parametrize('top_k', [0, 1])
def test_bad_lines_are_named_and_passed_over(tmp_path, top_k):
  path = write_tsv(tmp_path / 'x.tsv', SIZES)
  num_bad = _break_tsv(path)
  data = _prepare(path, tmp_path / 's', top_k=top_k)
  assert len(data) == (3 if top_k else 6)
  # Of full groups the images need no decoding; every bad line is named.
  named = [f'x.tsv:{n}' for n in range(3, 3 + 2 * num_bad, 2)]
  assert list(_bad(tmp_path / 's')) == named[2 if top_k else 0:]


def test_of_bad_images_that_shall_fail_the_first_is_named(tmp_path):
  root = write_folder(tmp_path / 'x', SIZES)
  (root / 'Zoë' / 'bad <1>.jpg').write_text('no image')
  for _ in range(2):
    with pytest.raises(UserError) as error:
      _prepare(root, tmp_path / 's', on_bad_image='fail')
    assert str(error.value) == (
        f'{root}/Zoë/bad <1>.jpg: is not an image of a known format; repair or '
        'remove it, or skip bad images with --on_bad_image=skip')
  (root / 'Zoë' / 'bad <1>.jpg').write_bytes(jpeg(0))
  assert len(_prepare(root, tmp_path / 's', on_bad_image='fail')) == 7


def test_bad_images_that_were_passed_over_may_fail_later(tmp_path):
  root = write_folder(tmp_path / 'x', SIZES)
  (root / 'vacant').mkdir()
  _prepare(root, tmp_path / 's')
  root.rename(tmp_path / 'gone')
  for name in ('gone', 'x'):
    (tmp_path / name).rename(tmp_path / 'x')
    with pytest.raises(UserError, match='1 bad images, the first is .*vacant: '
                       'holds no images; repair or remove it and delete '):
      _prepare(root, tmp_path / 's', on_bad_image='fail')


def test_only_bad_images_are_an_error(tmp_path):
  root = write_folder(tmp_path / 'x', {'a': 2})
  for path in (root / 'a').iterdir():
    path.write_text('no image')
  with pytest.raises(UserError, match='no usable image in .*; see ') as error:
    _prepare(root, tmp_path / 's')
  path = pathlib.Path(str(error.value).split('; see ')[1])
  assert path.read_text().count('not an image of a known format') == 2
  assert not list((tmp_path / 's').glob('*/manifest.json'))
  (root / 'a' / '000.jpg').write_bytes(jpeg(0))  # Mended in place.
  assert len(_prepare(root, tmp_path / 's')) == 1


# Full disks.


def _no_space(*_, **__):
  raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize('what', ['add', 'save', 'sort', 'folder'])
def test_a_full_disk_is_one_error_and_the_same_call_goes_on(
    tmp_path, monkeypatch, what):
  path = write_tsv(tmp_path / 'x.tsv', {f'm.{i}': 3 for i in range(10)})
  whole = _prepare(path, tmp_path / 'whole')
  monkeypatch.setattr(packing, '_IN_FLIGHT', 4)
  with monkeypatch.context() as patch:
    if what == 'sort':
      patch.setattr(packed, '_BLOCK_BYTES', 1000)
      # The second block, so that the file is begun.
      blocks = iter([None, _no_space])
      read = slots.SlotRows.__getitem__
      patch.setattr(
          slots.SlotRows, '__getitem__',
          lambda self, rows: (next(blocks) or read)(self, rows))
    elif what == 'save':
      patch.setattr(np, 'savez', _no_space)
    elif what == 'folder':
      patch.setattr(packing.os, 'makedirs', _no_space)
    else:
      add = partial_store.PartialStore.add

      def add_some(images, record, image):
        if images.num_rows == 20:
          images.save()
          _no_space()
        add(images, record, image)
      patch.setattr(partial_store.PartialStore, 'add', add_some)
    with pytest.raises(UserError, match='^[^\n]*--store_dir[^\n]*$') as error:
      _prepare(path, tmp_path / 's')
    assert what == 'folder' or 'resumes from the last save' in str(error.value)
  assert not list((tmp_path / 's').glob('x*/manifest.json'))
  decoded = []
  monkeypatch.setattr(packing, 'read_image', lambda image, pixels: (
      decoded.append(image) or read_image(image, pixels)))
  data = _prepare(path, tmp_path / 's')
  assert len(decoded) == {'add': 10, 'sort': 0}.get(what, 30)
  np.testing.assert_array_equal(data.x, whole.x)
  assert data.names == whole.names


def test_a_store_dir_that_cannot_be_written_names_the_remedy(tmp_path):
  root = write_folder(tmp_path / 'x', SIZES)
  (tmp_path / 's').mkdir()
  _forbid(tmp_path / 's', 0o555)
  with pytest.raises(UserError, match='Permission denied; .*--store_dir'):
    _prepare(root, tmp_path / 's' / 'stores')


def test_a_store_dir_that_is_a_file_names_the_remedy(tmp_path):
  root = write_folder(tmp_path / 'x', SIZES)
  (tmp_path / 's').write_text('')
  with pytest.raises(UserError, match='choose another folder with --store_dir'):
    _prepare(root, tmp_path / 's')


@pytest.mark.parametrize('ending, is_file', [
    ('', True), ('.partial', True), ('.lock', False)])
def test_what_is_in_the_way_of_a_store_is_named(tmp_path, ending, is_file):
  root = write_folder(tmp_path / 'x', SIZES)
  way = pathlib.Path(
      store_path(str(root), str(tmp_path / 's'), image_size=8) + ending)
  way.parent.mkdir()
  way.write_text('mine') if is_file else way.mkdir()
  with pytest.raises(UserError, match='choose another folder with --store_dir'
                     ) as error:
    _prepare(root, tmp_path / 's')
  assert str(way) in str(error.value)
  assert not is_file or way.read_text() == 'mine'


# Sources that change, or do not.


def _contents(store_dir):
  path, = [p for p in store_dir.iterdir() if p.is_dir()]
  return {name: (path / name).read_bytes() for name in os.listdir(path)}


def test_an_unchanged_source_is_not_read_again(tmp_path, monkeypatch, capsys):
  root = write_folder(tmp_path / 'x', SIZES)
  first = _prepare(root, tmp_path / 's')
  monkeypatch.setattr(detect.FolderSource, 'records', None)
  monkeypatch.setattr(packing, 'prepare', None)
  capsys.readouterr()
  again = _prepare(root, tmp_path / 's')
  np.testing.assert_array_equal(first.x, again.x)
  out = capsys.readouterr().out
  assert 'data: a folder per group, 3 of them' in out
  assert 'packed store: 6 images of 3 groups' in out


def test_a_changed_source_is_prepared_again(tmp_path):
  root = write_folder(tmp_path / 'x', SIZES)
  first = _prepare(root, tmp_path / 's')
  images = np.array(first.x)
  (root / 'Zoë' / 'new.jpg').write_bytes(jpeg(7))
  os.utime(root / 'Zoë', (1, 1))  # Clocks may tick slower than this test runs.
  data = _prepare(root, tmp_path / 's')
  assert (len(first), len(data)) == (6, 7)
  np.testing.assert_array_equal(
      _groups(data)['Zoë'][1], read_image(jpeg(7), 8))
  np.testing.assert_array_equal(first.x, images)  # Still open.
  assert sorted(_contents(tmp_path / 's')) == _FILES


def test_an_image_that_is_mended_in_place_is_prepared_again(tmp_path):
  root = write_folder(tmp_path / 'x', SIZES)
  (root / 'Zoë' / '000.jpg').write_bytes(jpeg(0)[:-60])
  assert set(_prepare(root, tmp_path / 's').names) == {'a b', '<script>'}
  (root / 'Zoë' / '000.jpg').write_bytes(jpeg(0))
  np.testing.assert_array_equal(
      _groups(_prepare(root, tmp_path / 's'))['Zoë'], _pixels([jpeg(0)]))
  assert not _bad(tmp_path / 's')


def test_a_source_that_changed_meanwhile_is_read_anew(tmp_path, monkeypatch):
  path = write_tsv(tmp_path / 'x.tsv', {'m.1': 5})
  with monkeypatch.context() as patch:
    patch.setattr(partial_store.PartialStore, 'write_store', _no_space)
    patch.setattr(partial_store.PartialStore, 'done', lambda images, record: (
        setattr(images, 'position', record.position), images.save()))
    with pytest.raises(UserError):
      _prepare(path, tmp_path / 's')
  write_tsv(path, {'m.2': 4})
  assert _prepare(path, tmp_path / 's').names == ('m.2',)
  assert sorted(_contents(tmp_path / 's')) == _FILES


def test_without_its_source_a_store_is_used(tmp_path, capsys):
  root = write_folder(tmp_path / 'x', SIZES)
  first = _prepare(root, tmp_path / 's')
  root.rename(tmp_path / 'gone')
  capsys.readouterr()
  again = _prepare(root, tmp_path / 's')
  np.testing.assert_array_equal(first.x, again.x)
  out = capsys.readouterr().out
  assert f'{root} does not exist; using its packed store' in out
  assert 'packed store: 6 images of 3 groups in ' in out
  with pytest.raises(UserError, match='check --data_dir'):
    _prepare(root, tmp_path / 's', image_size=9)


def test_a_damaged_store_is_refused_and_prepared_again(tmp_path):
  root = write_folder(tmp_path / 'x', SIZES)
  _prepare(root, tmp_path / 's')
  path, = (tmp_path / 's').glob('*/offsets.npy')
  path.write_bytes(path.read_bytes()[:-1] + b'\x7f')
  with pytest.raises(UserError, match='checksum of offsets.npy is wrong'):
    _prepare(root, tmp_path / 's')
  for file in path.parent.iterdir():  # As the message says.
    file.unlink()
  assert len(_prepare(root, tmp_path / 's')) == 6


def test_nothing_is_written_into_the_source(tmp_path):
  root = write_folder(tmp_path / 'x', SIZES)
  (root / 'vacant').mkdir()
  places = [root, *root.iterdir()]
  before = [(f.stat().st_mtime_ns, sorted(os.listdir(f))) for f in places]
  for place in places:
    place.chmod(0o555)
  _prepare(root, tmp_path / 's')
  assert [(f.stat().st_mtime_ns, sorted(os.listdir(f)))
          for f in places] == before
  for place in places:
    place.chmod(0o755)


def test_stores_are_in_the_users_cache_by_default(tmp_path, monkeypatch):
  root = write_folder(tmp_path / 'x', SIZES)
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  opening.open_or_prepare(str(root), image_size=8)
  assert sorted(_contents(tmp_path / 'cache' / 'mlvae_jax')) == _FILES


def test_what_tells_stores_apart_is_in_their_names(tmp_path):
  paths = {
      store_path(str(tmp_path / name), 's', image_size=size, **more)
      for name in 'ab' for size in (8, 9) for more in (
          {}, {'top_k': 1}, {'resize': 'crop'}, {'black': 1.0},
          {'white': 1.0}, {'group_level': 2}, {'read_as': 'folders'})}
  assert len(paths) == 28
  assert store_path('/x/a', 's', image_size=8) == store_path(
      '/x/y/../a/', 's', image_size=8)


# Memory.


def test_no_more_records_are_in_flight_than_allowed(tmp_path, monkeypatch):
  path = write_tsv(tmp_path / 'x.tsv', {'m': 40})
  monkeypatch.setattr(packing, '_IN_FLIGHT', 5)
  read, done, most = [], [], 0
  records, mark = detect.TsvSource.records, partial_store.PartialStore.done

  def counted(source, position=None):
    nonlocal most
    for record in records(source, position):
      read.append(record)
      most = max(most, len(read) - len(done))
      yield record
  monkeypatch.setattr(detect.TsvSource, 'records', counted)
  monkeypatch.setattr(
      partial_store.PartialStore, 'done', lambda images, record: (
          done.append(record), mark(images, record)))
  _prepare(path, tmp_path / 's')
  assert len(done) == 40 and most == 5


# Processes.


def _run(script, *args):
  result = subprocess.run(
      [sys.executable, '-c', script, *map(str, args)], cwd=ROOT, text=True,
      capture_output=True, timeout=300, check=False)
  assert result.returncode == 0, result.stderr
  return result.stdout


# Prepares the source in a child, killed after the given call of a function;
# then in another child to the end. All saves are made at once.
_KILLED = """
import json, os, signal, sys
from experiments.datasets.store import (
    opening,
    packed,
    packing,
    partial_store,
    slots,
)

def child(work, out):
  pid = os.fork()
  if not pid:
    os.dup2(os.open(out, os.O_CREAT | os.O_WRONLY, 0o600), 1)
    sys.stdout.reconfigure(line_buffering=True)
    work()
    os._exit(0)
  return os.waitpid(pid, 0)[1]

def killing(owner, name, call):
  real, calls = getattr(owner, name), []
  def replaced(*args, **kwargs):
    result = real(*args, **kwargs)
    calls.append(0)
    if len(calls) == call:
      os.kill(os.getpid(), signal.SIGKILL)
    return result
  setattr(owner, name, replaced)

def prepare(store_dir):
  opening.open_or_prepare(
      source, image_size=8, top_k=int(top_k), store_dir=store_dir)

def killed(store_dir, owner, name, call):
  killing(owner, name, call)
  prepare(store_dir)

def counted(store_dir):
  real = packing.read_image
  packing.read_image = lambda *args: print('decoded') or real(*args)
  prepare(store_dir)

source, top_k, root, points = sys.argv[1:]
packing._IN_FLIGHT = 4
packed._BLOCK_BYTES = 1000
real_done, calls = partial_store.PartialStore.done, []
def done(images, record):
  real_done(images, record)
  calls.append(0)
  if len(calls) % 7 == 0:
    images.save()
partial_store.PartialStore.done = done
owners = {'PartialStore': partial_store.PartialStore,
          'Rows': slots.SlotRows, 'os': os, 'packed': packed,
          'np': packed.np}
for owner, name, call in json.loads(points):
  store_dir = f'{root}/{owner}.{name}.{call}'
  os.mkdir(store_dir)
  status = child(lambda: killed(store_dir, owners[owner], name, call),
                 store_dir + '/first.txt')
  assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (
      owner, name, call, status)
  assert child(lambda: counted(store_dir), store_dir + '/second.txt') == 0
"""
_POINTS = {  # What is to be done after a kill there.
    ('PartialStore', 'done', 1): 'all',
    ('np', 'savez', 1): 'all',
    ('PartialStore', 'done', 9): 'rest',
    ('PartialStore', 'done', 30): 'rest',
    ('PartialStore', 'done', 49): 'rest',
    ('PartialStore', 'done', 61): 'rest',
    ('PartialStore', 'add', 18): 'rest',
    ('PartialStore', 'add_bad', 1): 'rest',
    ('np', 'savez', 5): 'rest',
    ('np', 'savez', 9): 'rest',
    ('Rows', '__getitem__', 1): 'sort',
    ('Rows', '__getitem__', 2): 'sort',
    ('np', 'save', 1): 'sort',
    ('packed', 'file_digest', 2): 'sort',
    ('packed', 'write_atomically', 1): 'nothing',
    ('os', 'remove', 1): 'nothing',
    ('os', 'remove', 2): 'nothing',
    ('os', 'rename', 1): 'nothing',
}


def _killed_source(path):
  """Sixty lines of four groups whose ranks improve, three of them bad."""
  ranks = np.random.default_rng(0).permutation(60) // 3
  lines = [line(f'm.{i % 4}', 40 - i // 2 if i % 3 else int(ranks[i]),
                jpeg(i)) for i in range(60)]
  for i in (7, 33, 50):
    lines[i] = line(f'm.{i % 4}', -1, b'no image')
  (path / 'a.tsv').write_bytes(b''.join(lines[:30]))
  (path / 'b.tsv').write_bytes(b''.join(lines[30:]) + b'bad\n')


@pytest.fixture(scope='module', params=[0, 5], ids=['all', 'top5'])
def killed(request, tmp_path_factory):
  """The source, and a store of it for each kill."""
  root = tmp_path_factory.mktemp('killed')
  for name in ('source', 'stores'):
    (root / name).mkdir()
  _killed_source(root / 'source')
  _prepare(root / 'source', root / 'whole', top_k=request.param)
  _run(_KILLED, root / 'source', request.param, root / 'stores',
       json.dumps(list(_POINTS)))
  return root


@pytest.mark.parametrize('point', _POINTS, ids=lambda point: '.'.join(
    map(str, point)))
def test_after_a_kill_the_same_store_is_made_of_what_was_done(killed, point):
  store_dir = killed / 'stores' / '.'.join(map(str, point))
  whole = _contents(killed / 'whole')
  assert sorted(whole) == _FILES and whole['bad_images.jsonl']
  assert _contents(store_dir) == whole
  out = (store_dir / 'second.txt').read_text()
  to_do = _POINTS[point]
  assert ('resuming with' in out) == (to_do in ('rest', 'sort'))
  assert ('sorting' in out) == (to_do != 'nothing')
  assert out.count('decoded') in {
      'all': range(20, 61), 'rest': range(54)}.get(to_do, [0])


_TWICE = """
import os, sys, time
from experiments.datasets.store import opening, packing

source, store_dir = sys.argv[1:]
prepare = packing.prepare
packing.prepare = lambda *args, **kwargs: (
    os.write(1, b'preparing\\n'), time.sleep(0.5), prepare(*args, **kwargs))
children = []
for _ in range(2):
  pid = os.fork()
  if not pid:
    data = opening.open_or_prepare(source, image_size=8, store_dir=store_dir)
    os.write(1, f'opened {len(data)}\\n'.encode())
    os._exit(0)
  children.append(pid)
assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0]
"""


@pytest.mark.slow
def test_of_two_processes_one_prepares_and_both_open(tmp_path):
  root = write_folder(tmp_path / 'x', SIZES)
  out = _run(_TWICE, root, tmp_path / 's')
  assert out.count('preparing\n') == 1 and out.count('opened 6\n') == 2
  _prepare(root, tmp_path / 'alone')
  assert _contents(tmp_path / 's') == _contents(tmp_path / 'alone')


_MEMORY = """
import os, sys
from experiments.datasets.store import opening

for source in sys.argv[2:]:
  pid = os.fork()
  if not pid:
    opening.open_or_prepare(source, image_size=64, store_dir=sys.argv[1])
    os._exit(0)
  _, status, usage = os.wait4(pid, 0)
  assert status == 0
  print('peak', usage.ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_source(tmp_path):
  paths = [tmp_path / f'{n}.tsv' for n in (1500, 5000)]
  images = [jpeg(i) + bytes(8000) for i in range(20)]
  for path in paths:
    count = int(path.stem)
    with open(path, 'wb') as file:
      for i in range(count):  # The images of a group are far apart.
        file.write(line(f'm.{i % (count // 5)}', 0, images[i % 20]))
  out = _run(_MEMORY, tmp_path / 's', *paths)
  small, large = (int(text.split()[0]) for text in out.split('peak ')[1:])
  # Between them lie 38 MB of lines, and as much of pixels.
  assert large - small < 15 * 1024
