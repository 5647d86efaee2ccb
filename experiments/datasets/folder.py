"""Any folder of folders: `DATA_DIR/GROUP/IMAGE`."""

from __future__ import annotations

from concurrent import futures
import os

import numpy as np
from PIL import Image, ImageOps
import tqdm

from experiments.cli import UserError
from experiments.datasets import splits
from experiments.presets import Config

_EXTENSIONS = (
    '.bmp', '.gif', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff',
    '.webp')
_MAX_PIXELS = 100_000_000
Image.MAX_IMAGE_PIXELS = None  # PIL would warn; `read_image` raises.
_GREY_MODES = ('1', 'L', 'LA', 'I', 'I;16', 'F')


def load(config: Config) -> splits.Splits:
  """Reads a folder per group.

  Images of any size are resized with antialiasing to a square of
  `image_size`; they are grey if all are grey, else RGB. Hidden files and
  files without an image's extension are passed over.

  Args:
    config: data_dir, image_size and split_by are read.

  Returns:
    The splits: the images of each group are divided 80/10/10, or with
    split_by='group' the groups 50/25/25 (the paper's proportions for faces).

  Raises:
    UserError: on a missing folder, a group without images, a broken image.
  """
  names, paths, labels = find_images(config.data_dir)
  with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    decoded = list(tqdm.tqdm(
        pool.map(lambda path: read_image(path, config.image_size), paths),
        total=len(paths), desc='reading images', unit='image', leave=False))
  channels = max(image.shape[-1] for image in decoded)
  images = np.stack(
      [np.broadcast_to(image, (*image.shape[:2], channels))
       for image in decoded])
  labels = np.array(labels)
  if config.split_by == 'group':
    if len(names) < 3:
      raise UserError(
          f'{config.data_dir} has {len(names)} groups; --split_by=group needs '
          'at least 3, use --split_by=image')
    return splits.split_groups(images, labels, names, 'group')
  found = splits.split_images(images, labels, names, 'group')
  if not (len(found.validation) and len(found.test)):
    raise UserError(
        f'no group of {config.data_dir} has the 10 images that a split of its '
        'images needs; use --split_by=group')
  return found


def find_images(data_dir: str | None
                ) -> tuple[list[str], list[str], list[int]]:
  """Lists `DATA_DIR/GROUP/IMAGE` in sorted order.

  Args:
    data_dir: the folder.

  Returns:
    Names of the groups; path of each image; group of each image.

  Raises:
    UserError: on a missing folder, or a group without images.
  """
  if not data_dir:
    raise UserError('this data set needs --data_dir, a folder of folders')
  if not os.path.isdir(data_dir):
    raise UserError(f'no folder {data_dir}; check --data_dir')
  names = sorted(
      entry.name for entry in os.scandir(data_dir)
      if entry.is_dir() and not entry.name.startswith('.'))
  if not names:
    raise UserError(
        f'{data_dir} holds no folders; expected one per group, with images')
  paths, labels = [], []
  for label, name in enumerate(names):
    files = sorted(
        entry.path for entry in os.scandir(os.path.join(data_dir, name))
        if entry.is_file() and not entry.name.startswith('.')
        and entry.name.lower().endswith(_EXTENSIONS))
    if not files:
      raise UserError(
          f'group folder {os.path.join(data_dir, name)} holds no images; add '
          'some, or remove it')
    paths += files
    labels += [label] * len(files)
  return names, paths, labels


def read_image(path: str, size: int) -> np.ndarray:
  """Reads one image as `[size, size, C]` uint8, C = 1 if grey, else 3.

  Args:
    path: of the file.
    size: pixels of a side; other proportions are squeezed.

  Returns:
    The pixels.

  Raises:
    UserError: when it is no image, damaged or too large.
  """
  try:
    with Image.open(path) as image:
      if image.width * image.height > _MAX_PIXELS:
        raise UserError(
            f'{path} has {image.width}x{image.height} pixels, more than '
            f'{_MAX_PIXELS // 10**6} million; shrink or remove it')
      pixels = _to_grey_or_rgb(ImageOps.exif_transpose(image))
      pixels = pixels.resize((size, size), Image.Resampling.LANCZOS)
  except (OSError, ValueError, SyntaxError) as error:
    raise UserError(
        f'cannot read image {path}; replace or remove it ({error})'
    ) from error
  array = np.asarray(pixels, np.uint8)
  return array[..., None] if array.ndim == 2 else array


def _to_grey_or_rgb(image: Image.Image) -> Image.Image:
  """Mode L or RGB; transparent parts become black."""
  if image.mode in ('I', 'I;16', 'F'):  # PIL would clip these at 255.
    values = np.asarray(image, np.float64)
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
