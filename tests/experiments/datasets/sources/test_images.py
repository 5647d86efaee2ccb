"""What an image file becomes: formats, proportions, brightness."""

import numpy as np
from PIL import Image
import pytest

from experiments.config.settings import SETTINGS
from experiments.datasets.sources import images


@pytest.mark.parametrize('extension, name', [
    ('avif', 'AVIF'), ('jp2', 'JPEG2000')])
def test_newer_formats_are_read_where_pillow_reads_them(
    tmp_path, extension, name):
  if name not in images._FORMATS:
    pytest.skip('this Pillow lacks the codec')
  path = tmp_path / f'x.{extension}'
  Image.new('RGB', (32, 32), (200, 100, 50)).save(path)
  found = images.read_image(str(path), 8)
  assert np.abs(found.astype(int) - (200, 100, 50)).max() < 4


# Proportions.


def _striped(width, height):
  """Red around a green central square."""
  pixels = np.zeros((height, width, 3), np.uint8)
  pixels[..., 0] = 255
  side = min(width, height)
  top, left = (height - side) // 2, (width - side) // 2
  pixels[top:top + side, left:left + side] = 0, 255, 0
  return pixels


def _read(path, size, resize):
  return images.read_image(str(path), images.Pixels(size, resize))


@pytest.mark.parametrize('width, height', [(30, 10), (10, 30), (31, 10)])
def test_crop_takes_the_central_square(tmp_path, width, height):
  Image.fromarray(_striped(width, height)).save(tmp_path / 'x.png')
  np.testing.assert_array_equal(
      _read(tmp_path / 'x.png', 10, 'crop'),
      np.broadcast_to([0, 255, 0], (10, 10, 3)))


@pytest.mark.parametrize('mode', ['L', 'RGB'])
@pytest.mark.parametrize('width, height', [(40, 20), (20, 40)])
def test_pad_adds_black_and_keeps_everything(tmp_path, mode, width, height):
  Image.new(mode, (width, height), 'white').save(tmp_path / 'x.png')
  found = _read(tmp_path / 'x.png', 8, 'pad')[..., 0]
  found = found.T if height > width else found
  assert found.shape == (8, 8) and (found[2:6] == 255).all()
  assert not found[:2].any() and not found[6:].any()


def test_pad_takes_the_thinnest_strip(tmp_path):
  Image.new('L', (1000, 1), 255).save(tmp_path / 'x.png')
  assert (_read(tmp_path / 'x.png', 8, 'pad') > 0).sum() == 8


@pytest.mark.parametrize('extension', ['jpg', 'png'])
def test_square_images_are_the_same_in_all_three(tmp_path, extension):
  rng = np.random.default_rng(0)
  path = tmp_path / f'x.{extension}'
  Image.fromarray(rng.integers(0, 256, (101, 101, 3), np.uint8)).save(path)
  squeezed, *others = (
      _read(path, 16, name) for name in SETTINGS['resize'].choices)
  for other in others:
    np.testing.assert_array_equal(squeezed, other)


@pytest.mark.parametrize('resize', ['crop', 'pad'])
def test_a_large_jpeg_is_as_good_as_a_png(tmp_path, resize):
  """JPEGs are decoded smaller, but never smaller than is needed."""
  y, x = np.mgrid[:400, :1600]
  pixels = (127 + 100 * np.sin(x / 40) * np.cos(y / 40)).astype(np.uint8)
  for name in ('x.png', 'x.jpg'):
    Image.fromarray(pixels).save(tmp_path / name, quality=95)
  png, jpg = (_read(tmp_path / name, 32, resize) for name in ('x.png', 'x.jpg'))
  assert np.abs(png.astype(int) - jpg).max() < 12


# Brightness.


def _save(path, values, dtype):
  Image.fromarray(np.asarray(values, dtype)).save(path)
  return str(path)


@pytest.mark.parametrize('dtype, values, black, white, expected', [
    (np.uint16, [0, 1000, 65535], None, None, [0, 4, 255]),
    (np.uint16, [0, 200, 255], None, None, [0, 1, 1]),  # Not by its maximum.
    (np.uint16, [0, 1000, 4095], None, 4095, [0, 62, 255]),
    (np.uint16, [1000, 2000, 3000], 1000, 3000, [0, 128, 255]),
    (np.int32, [0, 32768, 65535], None, None, [0, 128, 255]),
    (np.int32, [-100, -50, 100], -100, 100, [0, 64, 255]),
    (np.float32, [0, 0.5, 1], None, None, [0, 128, 255]),
    (np.float32, [0, 0.25, 0.5], None, None, [0, 64, 128]),
    (np.float32, [0, 100, 255], None, 255, [0, 100, 255]),
    (np.float32, [-1, 0, 1], -1, None, [0, 128, 255]),
    (np.float32, [-0.0015, 0.5, 1.0015], None, None, [0, 128, 255]),
    (np.uint8, [0, 10, 100], 20, 50, [0, 10, 100]),  # Stays as it is.
])
def test_a_value_has_one_brightness_in_all_files(
    tmp_path, dtype, values, black, white, expected):
  path = _save(tmp_path / 'x.tif', [values] * 3, dtype)
  found = images.read_image(path, images.Pixels(3, black=black, white=white))
  np.testing.assert_array_equal(found[..., 0], [expected] * 3)


@pytest.mark.parametrize('dtype, values, scale, problem', [
    (np.float32, [0, 255], {}, r'^holds values from 0 to 255, expected 0 '
     r'\(black\) to 1 \(white\); set the scale with --black and --white$'),
    (np.float32, [-0.003, 1], {}, 'holds values from -0.003 to 1, expected'),
    (np.float32, [0, np.nan], {}, 'holds values that are not finite'),
    (np.float32, [0, -np.inf], {}, 'holds values that are not finite'),
    (np.int32, [0, 70_000], {}, 'from 0 to 70000, expected 0 .* 65535'),
    (np.uint16, [0, 5000], {'white': 4095}, 'from 0 to 5000, .* 4095'),
    (np.uint16, [0, 5000], {'black': 500}, 'from 0 to 5000, expected 500 '),
    (np.float32, [3, 3], {'black': 2}, r'expected 2 \(black\) to 1 '),
])
def test_values_outside_the_scale_make_an_image_bad(
    tmp_path, dtype, values, scale, problem):
  path = _save(tmp_path / 'x.tif', [values] * 2, dtype)
  with pytest.raises(images.BadImageError, match=problem):
    images.read_image(path, images.Pixels(2, **scale))


@pytest.mark.parametrize('content, expected', [
    ('png', True), ('text', False), ('folder', False), ('nothing', False)])
def test_the_first_bytes_say_whether_it_is_an_image(
    tmp_path, content, expected):
  path = tmp_path / 'x.dat'
  if content == 'png':
    Image.new('L', (2, 2)).save(path, 'PNG')
  elif content == 'text':
    path.write_text('hello')
  elif content == 'folder':
    path.mkdir()
  assert images.is_image(str(path)) == expected
