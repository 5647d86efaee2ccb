"""Decoding image files of any kind to small squares of uint8."""

from __future__ import annotations

import io
import os
import stat
import warnings

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

EXTENSIONS = (
    '.bmp', '.gif', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff',
    '.webp')
# Of any others PIL knows, some call programs: Ghostscript for EPS.
_FORMATS = ('BMP', 'GIF', 'JPEG', 'PNG', 'PPM', 'TIFF', 'WEBP')
_MAX_PIXELS = 100_000_000
Image.MAX_IMAGE_PIXELS = None  # PIL would warn; `read_image` raises.
_GREY_MODES = ('1', 'L', 'LA')
# What makes an image upright again, by its EXIF orientation.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90}
# PIL's on odd EXIF data, in the middle of a progress bar; pixels are not meant.
warnings.filterwarnings('ignore', module=r'PIL\.TiffImagePlugin')


class BadImageError(Exception):
  """An image that cannot be used; says why."""


def read_image(source: str | bytes, size: int) -> np.ndarray:
  """Decodes one image, resized with antialiasing to a square.

  Args:
    source: a path, or the encoded bytes.
    size: pixels of a side; other proportions are squeezed.

  Returns:
    `[size, size, C]` uint8, C = 1 if grey, else 3; transparent parts are
    black.

  Raises:
    BadImageError: when it is no image, damaged or too large.
  """
  try:
    if isinstance(source, bytes):
      source = io.BytesIO(source)
    elif not stat.S_ISREG(os.stat(source).st_mode):  # To open a pipe blocks.
      raise BadImageError('is no file')
    with Image.open(source, formats=_FORMATS) as image:
      if image.width * image.height > _MAX_PIXELS:
        raise BadImageError(
            f'{image.width}x{image.height} pixels, more than '
            f'{_MAX_PIXELS // 10**6} million')
      image.draft(None, (2 * size, 2 * size))  # Large JPEGs decode smaller.
      pixels = _to_grey_or_rgb(_upright(image))
      pixels = pixels.resize((size, size), Image.Resampling.LANCZOS)
  except BadImageError:
    raise
  except UnidentifiedImageError as error:  # Its text holds an address.
    raise BadImageError('is no image of a known format') from error
  except Exception as error:  # PIL meets damaged files with any of them.
    reason = getattr(error, 'strerror', None) or error
    raise BadImageError(f'cannot be decoded: {reason}') from error
  array = np.asarray(pixels, np.uint8)
  return array[..., None] if array.ndim == 2 else array


def _upright(image: Image.Image) -> Image.Image:
  """The image as its EXIF data say it is to be held, if they say it.

  `ImageOps.exif_transpose` does so too, but rewrites those data afterwards,
  and fails where they are odd.
  """
  image.load()  # What fails here is no matter of EXIF.
  try:
    orientation = image.getexif().get(ExifTags.Base.Orientation)
  except Exception:  # PIL meets damaged data with any of them.
    return image
  return (image.transpose(_UPRIGHT[orientation])
          if orientation in _UPRIGHT else image)


def _to_grey_or_rgb(image: Image.Image) -> Image.Image:
  """Mode L or RGB; transparent parts become black."""
  if image.mode[0] in 'IF':  # I, I;16, I;16B, F: PIL clips these at 255.
    values = np.nan_to_num(np.asarray(image, np.float64))
    top = 65535.0 if values.max() > 255 else 255.0
    return Image.fromarray(
        np.clip(values * (255.0 / top), 0, 255).round().astype(np.uint8))
  if 'A' in image.mode or 'transparency' in image.info:
    image = image.convert('RGBA') if image.mode != 'LA' else image
    black = Image.new(image.mode, image.size, (0,) * (len(image.mode) - 1)
                      + (255,))
    if image.mode == 'RGBA':
      return Image.alpha_composite(black, image).convert('RGB')
    return Image.composite(image, black, image.getchannel('A')).convert('L')
  return image.convert('L' if image.mode in _GREY_MODES else 'RGB')
