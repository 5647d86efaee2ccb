"""Decoding of image files of any kind to small squares of uint8."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import io
import os
import stat
from typing import NamedTuple
import warnings

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError, features

# Some other PIL formats run external programs: EPS calls Ghostscript.
_FORMATS = ('BMP', 'GIF', 'JPEG', 'PNG', 'PPM', 'TIFF', 'WEBP') + tuple(
    name for name, found in (
        ('AVIF', 'avif' in features.modules and features.check('avif')),
        ('JPEG2000', features.check('jpg_2000'))) if found)
NOT_AN_IMAGE = 'is not an image of a known format'
_MAX_PIXELS = 100_000_000
Image.MAX_IMAGE_PIXELS = None  # PIL would warn, but `read_image` raises.
_GREY_MODES = ('1', 'L', 'LA')
# The operation that makes an image upright again, by its EXIF orientation.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90}
# PIL's warnings about odd EXIF data, which would appear in the middle of a
# progress bar, and do not concern the pixels.
warnings.filterwarnings('ignore', module=r'PIL\.TiffImagePlugin')


class BadImageError(Exception):
  """An image cannot be used; the message is the reason."""


class Pixels(NamedTuple):
  """The conversion of an image to a small square of uint8.

  Attributes:
    size: width and height in pixels.
    resize: method of making images square: 'squeeze' ignores proportions,
      'crop' keeps the central square, 'pad' adds black.
    black: value that becomes 0 in float images, and in integer images of more
      than 8 bits; None is 0.
    white: value that becomes 255 in these; None is 1 for float, 65,535 for
      integers. Images of 8 bits are not rescaled.
  """

  size: int
  resize: str = 'squeeze'
  black: float | None = None
  white: float | None = None


def read_image(source: str | bytes, pixels: Pixels | int) -> np.ndarray:
  """Decodes one image, resized with antialiasing to a square.

  Args:
    source: path, or encoded bytes.
    pixels: conversion of the image; an int is its size alone.

  Returns:
    `[size, size, C]` uint8, C = 1 if grey, otherwise 3; transparent parts are
    black.

  Raises:
    BadImageError: when the source is not an image, is damaged or too large, or
      has values outside the scale.
  """
  if isinstance(pixels, int):
    pixels = Pixels(pixels)
  with _opened(source) as image:
    _check_depth(image, pixels)
    # Large JPEGs are decoded at a smaller size, which is much faster; twice
    # the size leaves enough pixels for antialiasing.
    image.draft(None, (2 * pixels.size, 2 * pixels.size))
    square = _to_square(_to_grey_or_rgb(_upright(image), pixels), pixels)
  array = np.asarray(square, np.uint8)
  return array[..., None] if array.ndim == 2 else array


def read_grey(source: str | bytes) -> np.ndarray:
  """Decodes one image as it is, in grey.

  Args:
    source: path, or encoded bytes.

  Returns:
    `[height, width]` uint8.

  Raises:
    BadImageError: as `read_image` does.
  """
  with _opened(source) as image:
    return np.asarray(
        _to_grey_or_rgb(_upright(image), Pixels(0)).convert('L'), np.uint8)


@contextlib.contextmanager
def _opened(source: str | bytes) -> Iterator[Image.Image]:
  """Opens an image; whatever goes wrong with it is a BadImageError."""
  try:
    if isinstance(source, bytes):
      source = io.BytesIO(source)
    elif not stat.S_ISREG(os.stat(source).st_mode):  # Opening a pipe blocks.
      raise BadImageError('is not a file')
    with Image.open(source, formats=_FORMATS) as image:
      if image.width * image.height > _MAX_PIXELS:
        raise BadImageError(
            f'{image.width}x{image.height} pixels, more than '
            f'{_MAX_PIXELS // 10**6} million')
      yield image
  except BadImageError:
    raise
  except UnidentifiedImageError as error:  # Its text has a memory address.
    raise BadImageError(NOT_AN_IMAGE) from error
  except Exception as error:  # Damaged files make PIL raise errors of any kind.
    reason = getattr(error, 'strerror', None) or error
    raise BadImageError(f'cannot be decoded: {reason}') from error


def is_image(path: str) -> bool:
  """Whether a file begins like an image of a readable format."""
  try:
    if not stat.S_ISREG(os.stat(path).st_mode):
      return False
    with Image.open(path, formats=_FORMATS):
      return True
  except Exception:  # Damaged files make PIL raise errors of any kind.
    return False


def _check_depth(image: Image.Image, pixels: Pixels) -> None:
  """Raises a BadImageError where a scale is given that PIL cannot apply."""
  if pixels.black is None and pixels.white is None:
    return
  # PIL keeps 16 bits of a grey image, but only the upper 8 of colours. How deep
  # these are is in what its decoder is told: a raw mode such as RGB;16B, or the
  # largest value of a PPM file.
  told = [part for tile in image.tile for given in tile[3:]
          for part in (given if isinstance(given, tuple) else (given,))]
  if image.mode[0] not in 'IF' and any(
      ';16' in str(part) or (
          image.format == 'PPM' and isinstance(part, int) and part > 255)
      for part in told):
    raise BadImageError(
        'has 16 bits per colour, of which the upper 8 are read, so --black and '
        '--white do not apply to it; leave them out, or convert it to grey')


def _to_square(image: Image.Image, pixels: Pixels) -> Image.Image:
  size, longest, shortest = pixels.size, max(image.size), min(image.size)
  if pixels.resize == 'crop':
    left, top = ((side - shortest) // 2 for side in image.size)
    image = image.crop((left, top, left + shortest, top + shortest))
  if pixels.resize != 'pad':
    return image.resize((size, size), Image.Resampling.LANCZOS)
  inner = tuple(max(1, round(side * size / longest)) for side in image.size)
  square = Image.new(image.mode, (size, size))
  square.paste(image.resize(inner, Image.Resampling.LANCZOS),
               tuple((size - side) // 2 for side in inner))
  return square


def _upright(image: Image.Image) -> Image.Image:
  """The image rotated or mirrored as its EXIF data say.

  `ImageOps.exif_transpose` does the same, but then rewrites these data, and
  fails if they are odd.
  """
  image.load()  # Decoding errors are not EXIF errors.
  try:
    orientation = image.getexif().get(ExifTags.Base.Orientation)
  except Exception:  # Damaged data make PIL raise errors of any kind.
    return image
  return (image.transpose(_UPRIGHT[orientation])
          if orientation in _UPRIGHT else image)


def _to_grey_or_rgb(image: Image.Image, pixels: Pixels) -> Image.Image:
  """Mode L or RGB; transparent parts become black."""
  if image.mode[0] in 'IF':  # I, I;16, I;16B, F: PIL clips these at 255.
    return _rescaled(image, pixels)
  if 'A' in image.mode or 'transparency' in image.info:
    image = image.convert('RGBA') if image.mode != 'LA' else image
    black = Image.new(image.mode, image.size, (0,) * (len(image.mode) - 1)
                      + (255,))
    if image.mode == 'RGBA':
      return Image.alpha_composite(black, image).convert('RGB')
    return Image.composite(image, black, image.getchannel('A')).convert('L')
  return image.convert('L' if image.mode in _GREY_MODES else 'RGB')


def _rescaled(image: Image.Image, pixels: Pixels) -> Image.Image:
  """Mode L of an image of more than 8 bits, with one scale for all images."""
  values = np.asarray(image, np.float64)
  black = 0.0 if pixels.black is None else pixels.black
  white = pixels.white
  if white is None:
    white = 1.0 if image.mode == 'F' else 65535.0
  if not np.isfinite(values).all():
    raise BadImageError('holds values that are not finite')
  low, high = values.min(), values.max()
  # Values that round to 0 or 255 are accepted. Others show that the scale is
  # wrong, and would be clipped.
  slack = 0.5 / 255 * (white - black)
  if not black < white or low < black - slack or high > white + slack:
    raise BadImageError(
        f'holds values from {low:g} to {high:g}, expected {black:g} (black) '
        f'to {white:g} (white); set the scale with --black and --white')
  values = (values - black) * (255.0 / (white - black))
  return Image.fromarray(np.clip(values, 0, 255).round().astype(np.uint8))
