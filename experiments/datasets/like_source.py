"""Images from elsewhere, prepared as those of a run's data set were."""

from __future__ import annotations

from collections.abc import Sequence
import io
import itertools
import os
from typing import NamedTuple

import numpy as np
from PIL import Image

from experiments.config.settings import Config
from experiments.datasets import folder
from experiments.datasets.sources import detect
from experiments.datasets.sources.images import (
    BadImageError,
    Pixels,
    read_grey,
    read_image,
)
from experiments.datasets.sources.records import readable
from experiments.datasets.store.settings import StoreSettings
from mlvae_jax.data.grouped import GroupedData

_SAMPLE = 50  # Number of images examined, of a source and of a split.
_WARNING = (
    '--one_shot_runs: {reason}, so the size of the data set\'s files is '
    'unknown, and the images of the runs were not reduced to it; strokes may '
    'look different, and errors be higher; if the files were moved, give '
    '--data_dir')


class _Form(NamedTuple):
  """The form of the files of a data set.

  Attributes:
    size: width and height of most of them; None if it is not known.
    is_binary: whether all their pixels are black or white.
  """

  size: tuple[int, int] | None
  is_binary: bool


def prepare_like(images: Sequence[np.ndarray], config: Config,
                 data: GroupedData) -> tuple[np.ndarray, str]:
  """Prepares grey images as those of a data set were.

  Images are inverted if only one of the two, they or the data set, has a light
  background. Images larger than the data set's files are reduced to the size of
  these, so that strokes become equally blurred, and thresholded if these are
  black and white. Then they are resized as the packed store resizes them.

  Args:
    images: N images, `[height, width]` uint8 each.
    config: configuration of the run, whose source is examined if it exists.
    data: images of the run, `[M, S, S, C]` uint8.

  Returns:
    `[N, S, S, C]` uint8; and a warning if the data set's files are not there
    any more, otherwise ''.

  Raises:
    UserError: when these files cannot be read as they were.
  """
  form, reason = _form_of_source(config)
  sample = data.x[np.unique(np.linspace(
      0, len(data) - 1, _SAMPLE).astype(int))]
  is_inverted = has_light_background(sample) != has_light_background(images)
  _, size, _, channels = data.x.shape
  pixels = Pixels(size, config.resize)
  found = np.stack([_prepare(image, form, is_inverted, pixels)
                    for image in images])
  return (np.repeat(found, channels, axis=-1),
          _WARNING.format(reason=reason) if reason else '')


def has_light_background(images: Sequence[np.ndarray]) -> bool:
  """Whether more pixels of images are light than dark."""
  light = sum(np.count_nonzero(image > 127) for image in images)
  return 2 * light > sum(image.size for image in images)


def _prepare(image: np.ndarray, form: _Form, is_inverted: bool,
             pixels: Pixels) -> np.ndarray:
  found = Image.fromarray(255 - image if is_inverted else image)
  if form.size and all(
      side > own for side, own in zip(found.size, form.size)):
    found = found.resize(form.size, Image.Resampling.LANCZOS)
    if form.is_binary:
      found = found.point(lambda value: 255 * (value > 127))
  # As a file, which is read in the same way as those of the data set.
  file = io.BytesIO()
  found.save(file, 'PNG')
  return read_image(file.getvalue(), pixels)


def _form_of_source(config: Config) -> tuple[_Form, str]:
  """The form of the first files of a data set; why it is not known, or ''."""
  unknown = _Form(None, False)
  if config.dataset not in folder.GROUPINGS:
    return unknown, ''  # There are no files: images have the size they had.
  settings = folder.store_settings(config)
  data_dir = settings.pop('data_dir')
  del settings['store_dir']
  # Runs need only the packed store.
  if not os.path.exists(detect.absolute(data_dir)):
    return unknown, f'{readable(data_dir)} does not exist'
  source = StoreSettings(**settings).detect(data_dir)
  found = []
  for record in itertools.islice(source.records(), _SAMPLE):
    try:
      found.append(read_grey(record.image))
    except (BadImageError, TypeError):  # None, where there is no image.
      pass
  sizes = [image.shape[::-1] for image in found]
  if not sizes:
    return unknown, (
        f'the first {_SAMPLE} files of {readable(data_dir)} are not images')
  return _Form(max(set(sizes), key=sizes.count), all(
      np.all((image == 0) | (image == 255)) for image in found)), ''
