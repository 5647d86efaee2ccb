"""The packed store: what is written, opened, verified and split."""

import json
import os
import time
import tracemalloc

import numpy as np
import pytest

from experiments.cli import UserError
from experiments.datasets import splits
from experiments.datasets.store import packed
from mlvae_jax.data.grouped import GroupedData

_NAMES = ['Zoë', 'a b', '<script>', r'\xff', 'e']


def _write(path, names=_NAMES, channels=3):
  """A store of `g + 1` images of group g; they come in a random order."""
  rng = np.random.default_rng(0)
  labels = rng.permutation(np.repeat(np.arange(len(names)),
                                     np.arange(len(names)) + 1))
  rows = rng.integers(0, 256, (len(labels), 4, 4, channels), np.uint8)
  ranks = rng.permutation(len(labels))
  path.mkdir()
  (path / packed.BAD_IMAGES).write_text('')
  row_names = np.array([f'{i}é'.encode() for i in range(len(labels))])
  packed.write_store(
      str(path), rows, row_names, labels, ranks, names, {'source': 'here'})
  return rows, row_names, labels, ranks


def _flip(path, position):
  """Flips a bit of a file."""
  data = bytearray(path.read_bytes())
  data[position] ^= 1
  path.write_bytes(data)


def test_a_group_has_its_images_by_rank(tmp_path):
  rows, row_names, labels, ranks = _write(tmp_path / 'store')
  data = packed.open_store(str(tmp_path / 'store'))
  assert sorted(data.names) == sorted(_NAMES)
  for g, name in enumerate(data.names):
    mine = np.flatnonzero(labels == _NAMES.index(name))
    np.testing.assert_array_equal(
        data.x[data.offsets[g]:data.offsets[g + 1]],
        rows[mine[np.argsort(ranks[mine])]])
    assert data.row_names[data.offsets[g]:data.offsets[g + 1]].tolist() == (
        row_names[mine[np.argsort(ranks[mine])]].tolist())
  assert isinstance(data.row_names, np.memmap)


def test_a_store_is_six_files_that_its_manifest_describes(tmp_path):
  path = tmp_path / 'store'
  _write(path)
  assert sorted(os.listdir(path)) == [
      'bad_images.jsonl', 'images.npy', 'manifest.json', 'names.json',
      'offsets.npy', 'row_names.npy']
  manifest = packed.read_manifest(str(path))
  assert manifest['shape'] == [15, 4, 4, 3] and manifest['source'] == 'here'
  assert (manifest['num_images'], manifest['num_groups']) == (15, 5)
  assert manifest['sha256'] == {
      name: packed.file_digest(str(path / name))
      for name in os.listdir(path) if name != 'manifest.json'}


def test_images_are_written_in_blocks(tmp_path, monkeypatch):
  _write(tmp_path / 'whole')
  monkeypatch.setattr(packed, '_BLOCK_BYTES', 100)
  _write(tmp_path / 'blocks')
  for name in os.listdir(tmp_path / 'whole'):
    assert (tmp_path / 'blocks' / name).read_bytes() == (
        tmp_path / 'whole' / name).read_bytes()


def test_groups_without_images_are_left_out(tmp_path):
  (tmp_path / packed.BAD_IMAGES).write_text('')
  packed.write_store(
      str(tmp_path), np.zeros((2, 4, 4, 1), np.uint8), np.array([b'x', b'y']),
      np.array([2, 2]), np.arange(2), 'abc', {})
  assert packed.open_store(str(tmp_path)).names == ('c',)


def test_one_image_of_one_group_is_a_store(tmp_path):
  _write(tmp_path / 'store', ['only'], channels=1)
  data = packed.open_store(str(tmp_path / 'store'))
  assert data.x.shape == (1, 4, 4, 1) and data.num_groups == 1


def test_images_are_mapped_and_cannot_be_changed(tmp_path):
  _write(tmp_path / 'store')
  images = packed.open_store(str(tmp_path / 'store')).x
  assert isinstance(images, np.memmap)
  with pytest.raises(ValueError, match='read-only'):
    images[0] = 0


# Fingerprints of the content.


@pytest.mark.parametrize('change, same', [
    ({'source': 'elsewhere', 'fingerprint': 'other'}, 'names pixels'),
    ({'images.npy': 'x'}, 'names'), ({'row_names.npy': 'x'}, 'pixels'),
    ({'names.json': 'x'}, 'pixels'), ({'offsets.npy': 'x'}, 'pixels'),
    ({'labels-light.npy': 'x'}, 'pixels'),
    ({'bad_images.jsonl': 'x'}, 'names pixels')])
def test_the_content_of_a_store_is_its_names_and_its_pixels(
    tmp_path, change, same):
  _write(tmp_path / 'store')
  manifest = packed.read_manifest(str(tmp_path / 'store'))
  found = packed.content_fingerprint(manifest)
  assert (found['num_images'], found['num_groups']) == (15, 5)
  digests = manifest['sha256'] | {
      k: v for k, v in change.items() if '.npy' in k or '.json' in k}
  other = packed.content_fingerprint(manifest | change | {'sha256': digests})
  for key in ('names', 'pixels'):
    assert (found[key] == other[key]) == (key in same.split()), key


# Damage.


@pytest.mark.parametrize('name', [
    'offsets.npy', 'names.json', 'row_names.npy'])
def test_a_flipped_bit_of_the_index_is_found_at_open(tmp_path, name):
  _write(tmp_path / 'store')
  _flip(tmp_path / 'store' / name, -3)
  with pytest.raises(
      UserError, match=f'damaged .*{name}.*; delete this folder'):
    packed.open_store(str(tmp_path / 'store'))


def test_a_flipped_bit_of_the_images_is_found_by_verifying(tmp_path):
  path = tmp_path / 'store'
  _write(path)
  packed.verify_store(str(path))
  _flip(path / 'images.npy', -100)
  packed.open_store(str(path))
  with pytest.raises(UserError, match='checksum of images.npy is wrong'):
    packed.verify_store(str(path))


@pytest.mark.parametrize('damage', [
    lambda path: (path / 'images.npy').unlink(),
    lambda path: (path / 'images.npy').write_bytes(b''),
    lambda path: (path / 'images.npy').write_bytes(b'no array'),
    lambda path: os.truncate(path / 'images.npy', 300),
    lambda path: np.save(path / 'images.npy', np.zeros((3, 4, 4, 3), np.uint8)),
    lambda path: np.save(path / 'images.npy', np.zeros((15, 4, 4, 3), np.int8)),
    lambda path: (path / 'bad_images.jsonl').write_text('{}\n'),
    lambda path: (path / 'names.json').unlink(),
    lambda path: (path / 'row_names.npy').unlink(),
])
def test_damage_is_one_error(tmp_path, damage):
  _write(tmp_path / 'store')
  damage(tmp_path / 'store')
  with pytest.raises(UserError, match='is damaged .*; delete this folder'):
    packed.open_store(str(tmp_path / 'store'))


@pytest.mark.parametrize('text', [
    '', '{', '[]', '{"format": 0}', '{"format": 1}'])
def test_without_a_manifest_there_is_no_store(tmp_path, text):
  _write(tmp_path / 'store')
  (tmp_path / 'store' / packed.MANIFEST).write_text(text)
  assert packed.read_manifest(str(tmp_path / 'store')) is None
  with pytest.raises(UserError, match='no packed store'):
    packed.open_store(str(tmp_path / 'store'))


@pytest.mark.parametrize('name, value', [
    ('num_images', None), ('num_groups', None), ('num_bad_images', None),
    ('shape', 3), ('sha256', ['x']), ('num_images', 'three')])
def test_a_manifest_that_lacks_an_entry_is_prepared_again(
    tmp_path, name, value):
  _write(tmp_path / 'store')
  path = tmp_path / 'store' / packed.MANIFEST
  manifest = json.loads(path.read_text())
  assert packed.read_manifest(str(path.parent)) == manifest
  del manifest[name]
  path.write_text(json.dumps(
      manifest if value is None else manifest | {name: value}))
  assert packed.read_manifest(str(path.parent)) is None
  with pytest.raises(UserError, match='no packed store in .*prepare it again'):
    packed.open_store(str(path.parent))


def test_a_full_disk_leaves_no_manifest(tmp_path):
  path = tmp_path / 'store'
  path.mkdir()
  (path / packed.BAD_IMAGES).write_text('')
  (path / packed.IMAGES).symlink_to('/dev/full')  # The real error.
  with pytest.raises(OSError, match='No space left'):
    packed.write_store(
        str(path), np.zeros((9, 4, 4, 3), np.uint8), np.full(9, b'x'),
        np.arange(9), np.arange(9), 'abcdefghi', {})
  assert packed.read_manifest(str(path)) is None


# Size.


def test_a_large_store_opens_at_once(tmp_path):
  num_images, num_groups = 811_792, 100_000
  shape = (num_images, 64, 64, 3)
  with open(tmp_path / packed.IMAGES, 'wb') as file:
    np.lib.format.write_array_header_1_0(file, {
        'descr': '|u1', 'fortran_order': False, 'shape': shape})
    try:
      file.truncate(file.tell() + int(np.prod(shape)))
    except OSError:
      pytest.skip('no sparse files here')
  if os.stat(tmp_path / packed.IMAGES).st_blocks > 1000:
    pytest.skip('no sparse files here')
  offsets = np.linspace(0, num_images, num_groups + 1).astype(np.int64)
  np.save(tmp_path / packed.OFFSETS, offsets)
  (tmp_path / packed.NAMES).write_text(
      json.dumps([f'm.{i:07x}' for i in range(num_groups)]))
  np.save(tmp_path / packed.ROW_NAMES, np.char.add(
      b'm.0123456/', np.arange(num_images).astype('S6')))
  (tmp_path / packed.BAD_IMAGES).write_text('')
  (tmp_path / packed.MANIFEST).write_text(json.dumps({
      'format': packed.FORMAT, 'shape': shape, 'num_images': num_images,
      'num_groups': num_groups, 'num_bad_images': 0,
      'sha256': {name: packed.file_digest(str(tmp_path / name))
                 for name in (packed.OFFSETS, packed.NAMES, packed.ROW_NAMES,
                              packed.BAD_IMAGES)}}))
  tracemalloc.start()
  start = time.perf_counter()
  data = packed.open_store(str(tmp_path))
  seconds = time.perf_counter() - start
  _, num_bytes = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  print(f'opened in {seconds:.3f} s, {num_bytes / 1e6:.1f} MB')
  assert seconds < 5 and num_bytes < 20e6  # Offsets, and names twice.
  assert len(data) == num_images and data.num_groups == num_groups
  assert data.slice_groups(99_999, 100_000).x.max() == 0


# Splits by group.


def _groups(num_groups):
  """One tiny image a group, in the order of a store."""
  names = [f'm.{i}' for i in range(num_groups)]
  names = tuple(names[i] for i in packed.group_order(names))
  return GroupedData(np.zeros((num_groups, 1, 1, 1), np.uint8),
                       np.arange(num_groups + 1), names)


def test_the_papers_identities_are_split_as_in_the_paper():
  from experiments.config import presets
  data = _groups(98_880)
  found = splits.split_groups(
      data, presets.PRESETS['celeb'].split_fractions)
  parts = [found.train, found.validation, found.test]
  # An identity's split follows from its name alone, so shares are near those.
  np.testing.assert_allclose(
      [part.num_groups for part in parts], [48_880, 25_000, 25_000], rtol=0.02)
  assert sum((part.names for part in parts), ()) == data.names
  assert len(set(data.names)) == 98_880
  for part in parts:
    assert np.shares_memory(part.x, data.x)
  assert not found.shares_groups


def test_slices_of_a_store_are_views_of_its_file(tmp_path):
  _write(tmp_path / 'store')
  data = packed.open_store(str(tmp_path / 'store'))
  found = splits.split_groups(data)
  for part in (found.train, found.validation, found.test):
    assert np.shares_memory(part.x, data.x)
    assert part.offsets[0] == 0 and part.offsets[-1] == len(part)


def test_the_order_of_groups_is_of_their_names_and_a_seed():
  names = [f'm.{i}' for i in range(100)]
  order = [names[i] for i in packed.group_order(names)]
  again = [names[::-1][i] for i in packed.group_order(names[::-1])]
  other = [names[i] for i in packed.group_order(names, seed=1)]
  assert order == again != names
  assert sorted(other) == sorted(names) and other != order
  # Groups that leave do not move the others.
  fewer = [names[50:][i] for i in packed.group_order(names[50:])]
  assert fewer == [name for name in order if name in names[50:]]


@pytest.mark.parametrize('num_groups', [1, 2, 5, 10])
def test_few_groups_are_split_too(num_groups):
  found = splits.split_groups(_groups(num_groups))
  assert sum(part.num_groups for part in (
      found.train, found.validation, found.test)) == num_groups
