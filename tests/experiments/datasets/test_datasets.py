"""Data sets: what they hold, how they split, what bad input gets."""

import dataclasses
import io
import os
import struct

import numpy as np
from PIL import Image, ImageOps
import pytest

from experiments import datasets, train
from experiments.cli import UserError
from experiments.config import presets
from experiments.datasets import splits
from experiments.datasets.sources import images
from mlvae_jax.data.grouped import GroupedData
from tests.helpers import ROOT

_SHARED = ROOT.parent / 'shared' / 'data'


def _config(**values):
  return dataclasses.replace(presets.PRESETS['folder'], image_size=8, **values)


def _write_groups(root, sizes, mode='L', extension='png', size=(12, 12)):
  """One folder per group, each image of one brightness of its own."""
  for group, count in enumerate(sizes):
    path = root / f'group {group}'
    path.mkdir(parents=True)
    for i in range(count):
      value = (37 * group + 11 * i) % 256
      colour = value if mode == 'L' else (value, 10, 20)
      Image.new(mode, size, colour).save(path / f'{i:03}.{extension}')
  return str(root)


def test_mnist5k_has_its_digits():
  data = datasets.load(presets.PRESETS['mnist5k'])
  assert [len(s) for s in (data.train, data.validation, data.test)] == [
      4000, 500, 500]
  assert np.all(np.diff(data.test.offsets) == 50)
  assert data.train.x.shape == (4000, 28, 28, 1)
  assert data.train.x.max() == 255


def test_mnist_is_split_as_in_the_paper():
  data_dir = _SHARED / 'tensorflow_datasets'
  if not data_dir.is_dir():
    pytest.skip('no prepared MNIST beside the project')
  data = datasets.load(dataclasses.replace(
      presets.PRESETS['mnist'], data_dir=str(data_dir)))
  assert [len(s) for s in (data.train, data.validation, data.test)] == [
      50_000, 10_000, 10_000]
  assert np.diff(data.test.offsets).tolist() == [
      980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.mark.parametrize('name', ['mnist', 'mnist5k'])
def test_image_size_that_a_data_set_does_not_have(name):
  with pytest.raises(UserError, match='28x28 pixels, not of 32'):
    datasets.load(dataclasses.replace(presets.PRESETS[name], image_size=32))


def test_mnist_that_is_not_prepared_names_the_remedy(tmp_path):
  with pytest.raises(UserError, match='point --data_dir at'):
    datasets.load(dataclasses.replace(
        presets.PRESETS['mnist'], data_dir=str(tmp_path)))


def test_damaged_mnist_is_one_error(tmp_path):
  path = tmp_path / 'mnist' / '3.0.1'
  path.mkdir(parents=True)
  (path / 'dataset_info.json').write_text('{}')
  with pytest.raises(UserError, match='cannot read MNIST train'):
    datasets.load(dataclasses.replace(
        presets.PRESETS['mnist'], data_dir=str(tmp_path)))


def test_unknown_data_set():
  with pytest.raises(UserError, match='unknown data set'):
    datasets.load(_config(dataset='mnits'))


def test_folder_splits_the_images_of_each_group(tmp_path):
  data = datasets.load(_config(data_dir=_write_groups(tmp_path, [20, 40])))
  assert data.shares_groups and data.grouping == 'group'
  sizes = {name: [] for name in data.train.names}
  for split in (data.train, data.validation, data.test):
    for name, size in zip(split.names, np.diff(split.offsets)):
      sizes[name].append(int(size))
  assert [sum(counts) for counts in sizes.values()] == [20, 40]
  assert all(max(counts) == counts[0] for counts in sizes.values())
  assert data.train.x.shape == (
      sum(counts[0] for counts in sizes.values()), 8, 8, 1)


def test_folder_splits_groups_when_asked(tmp_path):
  root = _write_groups(tmp_path, [3] * 8)
  data = datasets.load(_config(data_dir=root, split_by='group'))
  parts = [data.train.names, data.validation.names, data.test.names]
  assert min(len(p) for p in parts) > 0
  assert len(set(sum(parts, ()))) == 8
  assert not data.shares_groups


def test_splits_are_always_the_same(tmp_path):
  root = _write_groups(tmp_path, [20, 20])
  first = datasets.load(_config(data_dir=root, seed=1))
  again = datasets.load(_config(data_dir=root, seed=2))
  np.testing.assert_array_equal(first.test.x, again.test.x)


def test_split_images_puts_each_image_into_one_split():
  labels = np.repeat([0, 1, 2], [1, 15, 40])
  pixels = np.arange(56, dtype=np.uint8).reshape(56, 1, 1, 1)
  data = splits.split_images(GroupedData.from_labels(
      pixels, labels, 'abc', 'letter'))
  parts = [s.x.ravel().tolist()
           for s in (data.train, data.validation, data.test)]
  assert sorted(sum(parts, [])) == list(range(56))
  for split in (data.train, data.validation, data.test):
    np.testing.assert_array_equal(
        split.labels, labels[split.x.ravel()])
  assert np.diff(data.test.offsets).tolist() == [0, 1, 4]


def test_one_colour_image_makes_all_rgb(tmp_path):
  root = _write_groups(tmp_path, [20])
  Image.new('RGB', (9, 5), (200, 10, 20)).save(
      tmp_path / 'group 0' / 'colour.jpg')
  assert datasets.load(_config(data_dir=root)).train.x.shape[1:] == (
      8, 8, 3)


@pytest.mark.parametrize('mode, colour, expected', [
    ('L', 100, [100]),
    ('1', 1, [255]),
    ('RGB', (1, 2, 3), [1, 2, 3]),
    ('RGBA', (200, 100, 50, 0), [0, 0, 0]),
    ('LA', (200, 255), [200]),
    ('I;16', 65535, [255]),
    ('I;16', 0x8000, [128]),
    ('I;16B', 0x8000, [128]),
    ('I', 0x8000, [128]),
    ('F', 0.5, [128]),
    ('CMYK', (0, 0, 0, 255), [0, 0, 0]),
])
def test_read_image_takes_every_mode(tmp_path, mode, colour, expected):
  is_tiff = mode in ('CMYK', 'I;16B', 'I', 'F')
  path = tmp_path / ('x.tif' if is_tiff else 'x.png')
  Image.new(mode, (5, 7), colour).save(path)
  pixels = images.read_image(str(path), 4)
  assert pixels.dtype == np.uint8
  np.testing.assert_array_equal(
      pixels, np.broadcast_to(expected, (4, 4, len(expected))))


def test_resize_antialiases(tmp_path):
  # A fine chessboard has no grey in it; a good resize makes it all grey.
  board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
  Image.fromarray(board).save(tmp_path / 'x.png')
  pixels = images.read_image(str(tmp_path / 'x.png'), 8)
  assert 120 < pixels.min() <= pixels.max() < 135


def test_photographs_are_turned_upright(tmp_path):
  image = Image.new('L', (8, 8), 0)
  image.paste(255, (0, 0, 8, 4))  # White above, black below.
  exif = image.getexif()
  exif[0x0112] = 3  # Stored upside down.
  image.save(tmp_path / 'x.png', exif=exif)
  pixels = images.read_image(str(tmp_path / 'x.png'), 8)
  assert pixels[0].max() == 0 and pixels[-1].min() == 255


@pytest.mark.parametrize('extension', ['jpg', 'png', 'tif', 'webp'])
@pytest.mark.parametrize('orientation', range(10))  # 1 to 8 mean something.
def test_every_orientation_is_that_of_pil(tmp_path, extension, orientation):
  pixels = np.random.default_rng(0).integers(0, 255, (4, 6, 3), np.uint8)
  image = Image.fromarray(pixels).resize((24, 16), Image.Resampling.NEAREST)
  exif = image.getexif()
  exif[0x0112] = orientation
  path = str(tmp_path / f'x.{extension}')
  image.save(path, exif=exif)
  with Image.open(path) as image:
    expected = ImageOps.exif_transpose(image).resize(
        (9, 9), Image.Resampling.LANCZOS)
  np.testing.assert_array_equal(images.read_image(path, 9), expected)


def _exif(*entries):
  """EXIF data of (tag, type, count, four bytes)."""
  rows = [struct.pack('<HHI', *entry[:3]) + entry[3] for entry in entries]
  return b''.join([b'Exif\0\0II*\0', struct.pack('<IH', 8, len(rows)), *rows,
                   bytes(4)])


_UPSIDE_DOWN = (0x0112, 3, 1, struct.pack('<I', 3))


@pytest.mark.filterwarnings('ignore:.*:UserWarning:PIL')
@pytest.mark.parametrize('exif, is_turned', [
    (b'Exif\0\0', False), (b'Exif\0\0II', False), (b'Exif\0\0text', False),
    (b'Exif\0\0II*\0\xff\xff\xff\0', False),
    (_exif((0x0112, 2, 4, b'3\0\0\0')), False),  # As text.
    (_exif((0x0112, 3, 9999, bytes(4))), False),  # Beyond the end.
    # A negative width; a type that does not exist; places beyond the end.
    (_exif(_UPSIDE_DOWN, (0x0100, 9, 1, b'\xf0\xff\xff\xff')), True),
    (_exif(_UPSIDE_DOWN, (0x010f, 77, 3, b'abcd')), True),
    (_exif(_UPSIDE_DOWN, (0x011a, 5, 1, b'\xff\xff\0\0')), True),
    (_exif(_UPSIDE_DOWN, (0x8769, 4, 1, b'\xff\xff\0\0')), True),
])
def test_odd_exif_data_are_no_matter(tmp_path, exif, is_turned):
  pixels = np.arange(0, 256, 4).astype(np.uint8).reshape(8, 8)
  Image.fromarray(pixels).save(tmp_path / 'x.jpg', exif=exif, quality=100)
  found = images.read_image(str(tmp_path / 'x.jpg'), 8)[..., 0]
  expected = pixels[::-1, ::-1] if is_turned else pixels
  assert np.abs(found.astype(int) - expected).max() < 10


@pytest.mark.parametrize('values, message', [
    ({'black': 1.0, 'white': 1.0},
     '--black=1.0 must be below --white=1.0, and both must be finite'),
    ({'black': 0.0, 'white': float('inf')},
     '--black=0.0 must be below --white=inf, and both must be finite'),
    ({'white': float('nan')}, '--white=nan must be finite'),
    ({'black': float('-inf')}, '--black=-inf must be finite')])
def test_a_scale_of_no_use_is_a_bad_flag(tmp_path, capsys, values, message):
  with pytest.raises(SystemExit, match='2'):
    train.config_from_flags(
        {'dataset': 'folder', 'steps': None, 'epochs': None} | values)
  assert capsys.readouterr().err == f'error: {message}\n'
  with pytest.raises(UserError) as info:
    datasets.load(_config(data_dir=_write_groups(tmp_path, [2]), **values))
  assert str(info.value) == message


def _encoded(kind):
  """What cannot be used as an image."""
  noise = np.random.default_rng(0).integers(0, 255, (50, 50, 3), np.uint8)
  image = Image.fromarray(noise)
  if kind == 'huge':
    image = Image.new('1', (12_000, 10_000))
  buffer = io.BytesIO()
  image.save(buffer, 'EPS' if kind == 'program' else 'PNG')
  data = buffer.getvalue()
  return {'text': b'no image', 'empty': b'',
          'truncated': data[:len(data) // 2]}.get(kind, data)


@pytest.mark.parametrize('kind, problem', [
    ('text', 'is not an image of a known format'),
    ('empty', 'is not an image of a known format'),
    ('truncated', 'cannot be decoded: .*'),
    ('huge', '12000x10000 pixels, more than 100 million'),
    # Ghostscript would run it.
    ('program', 'is not an image of a known format'),
])
def test_broken_image_says_what_is_wrong(tmp_path, kind, problem):
  data = _encoded(kind)
  (tmp_path / 'x.png').write_bytes(data)
  for source in (data, str(tmp_path / 'x.png')):
    with pytest.raises(images.BadImageError, match=f'^{problem}$'):
      images.read_image(source, 8)


def test_what_is_no_file_is_no_image(tmp_path):
  os.mkfifo(tmp_path / 'pipe.png')  # To open it would wait for a writer.
  for name in ('pipe.png', '.'):
    with pytest.raises(images.BadImageError, match='is not a file'):
      images.read_image(str(tmp_path / name), 8)
  with pytest.raises(images.BadImageError,
                     match='^cannot be decoded: No such file or directory$'):
    images.read_image(str(tmp_path / 'none.png'), 8)


@pytest.mark.parametrize('extension', [
    'bmp', 'gif', 'jpg', 'ppm', 'png', 'tif', 'webp', 'avif', 'jp2'])
def test_flipped_bits_are_never_fatal(tmp_path, extension):
  name = {'avif': 'AVIF', 'jp2': 'JPEG2000'}.get(extension)
  if name and name not in images._FORMATS:
    pytest.skip('this Pillow lacks the codec')
  rng = np.random.default_rng(0)
  Image.fromarray(rng.integers(0, 255, (6, 5, 3), np.uint8)).save(
      tmp_path / f'x.{extension}')
  whole = (tmp_path / f'x.{extension}').read_bytes()
  for _ in range(100):
    data = bytearray(whole)
    for position in rng.integers(0, min(len(data), 60), 3):
      data[position] = rng.integers(0, 256)
    try:
      assert images.read_image(bytes(data), 4).shape[:2] == (4, 4)
    except images.BadImageError:
      pass


def test_images_that_shall_not_be_passed_over_are_named(tmp_path):
  root = _write_groups(tmp_path, [10])
  (tmp_path / 'group 0' / 'x.png').write_text('no image')
  data = datasets.load(_config(data_dir=root))
  assert len(data.train) + len(data.validation) + len(data.test) == 10
  with pytest.raises(UserError, match=r'x\.png: is not an image.* remove it'):
    datasets.load(_config(data_dir=root, on_bad_image='fail'))


def test_folder_errors_name_the_remedy(tmp_path):
  with pytest.raises(UserError, match='needs --data_dir'):
    datasets.load(_config())
  with pytest.raises(UserError, match='check --data_dir'):
    datasets.load(_config(data_dir=str(tmp_path / 'none')))
  with pytest.raises(UserError, match='holds no folders'):
    datasets.load(_config(data_dir=str(tmp_path)))


@pytest.mark.parametrize('name, tfds_name', [
    ('celeba', 'celeb_a'), ('omniglot', 'omniglot')])
def test_what_tfds_should_have_prepared_may_be_a_folder(
    tmp_path, monkeypatch, name, tfds_name):
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
  config = dataclasses.replace(
      presets.PRESETS[name], image_size=8, rotations_as_groups=False)
  with pytest.raises(UserError, match=f'no prepared {tfds_name} in '):
    datasets.load(config)
  root = _write_groups(tmp_path / 'images', [2] * 4)
  data = datasets.load(dataclasses.replace(config, data_dir=root))
  assert [s.num_groups for s in (data.train, data.validation, data.test)] == [
      2, 1, 1]
