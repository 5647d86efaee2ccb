"""Images of which the nearest groups are asked for, and the answers."""

from __future__ import annotations

from collections.abc import Iterator
import os
from typing import NamedTuple

import jax
import numpy as np

from experiments.cli import UserError
from experiments.config.settings import Config
from experiments.datasets.sources import records
from experiments.datasets.sources.images import (
    BadImageError,
    Pixels,
    read_image,
)
from experiments.datasets.sources.records import readable
from experiments.encoding.gallery import Nearest
from experiments.evaluation.wording import shows_images
import mlvae_jax
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.model.model import Model, Params

_MAX_DRAWN = 10  # Images of a figure.


class Query(NamedTuple):
  """Images that were read.

  Attributes:
    names: paths below the folder, or the name of the file.
    x: `[Q, H, W, C]` uint8, as the model takes them.
    problems: lines on files that cannot be used.
  """

  names: list[str]
  x: np.ndarray
  problems: list[str]


def read_query(path: str, config: Config, model: Model) -> Query:
  """Reads images with the settings of a run.

  Args:
    path: path of an image, or of a folder; folders in it are read as well.
    config: configuration of the run.
    model: its model.

  Returns:
    The images.

  Raises:
    UserError: when the run is not one of images, or there is no usable one.
  """
  if not shows_images(model):
    raise UserError(
        '--query takes image files, but this run was not trained on '
        'images; encode the rows with --data_dir, and compare the codes')
  if not os.path.exists(path):
    raise UserError(f'no file or folder {readable(path)}; check --query')
  height, width, channels = model.observation_shape
  pixels = Pixels(max(height, width), config.resize, config.black,
                  config.white)
  names, images, problems = [], [], []
  for name in _files(path) if os.path.isdir(path) else ['']:
    shown = readable(name or os.path.basename(path))
    try:
      image = read_image(os.path.join(path, name) if name else path, pixels)
      if image.shape[-1] > channels:
        raise BadImageError('is in colour, but the run was trained on grey '
                            'images; convert it to grey')
    except BadImageError as error:
      problems.append(f'{shown}: {error}')
      continue
    names.append(shown)
    images.append(np.broadcast_to(image, (*image.shape[:2], channels)))
  if not names:
    raise UserError(f'no usable image in {readable(path)}'
                    + (f': {problems[0]}' if problems else ''))
  return Query(names, np.stack(images), problems)


def _files(folder: str, below: str = '') -> Iterator[str]:
  """The files in a folder and in those in it, in the order of names."""
  folders, found = records.list_folder(os.path.join(folder, below))
  yield from (os.path.join(below, name) for name in found)
  for name in folders:
    if not os.path.islink(os.path.join(folder, below, name)):
      yield from _files(folder, os.path.join(below, name))


def lines(query: Query, factor: str, names: tuple[str, ...], found: Nearest
          ) -> Iterator[str]:
  """The answers, a line per image."""
  width = max(map(len, query.names))
  for name, groups, probabilities, known in zip(query.names, *found):
    yield f'{name:{width}}  {factor}: ' + ', '.join(
        f'{names[group]} {percent(probability)}'
        for group, probability in zip(groups, probabilities)) + (
            f'; known {known:+.1f}')


def percent(probability: float) -> str:
  """A probability in words that do not claim certainty."""
  if 0.9995 <= probability:
    return '> 99.9 %'
  return f'{100 * probability:.1f} %' if probability >= 0.0005 else '< 0.1 %'


def draw(model: Model, params: Params, query: Query, codes: dict[str, Normal],
         factor: str, groups: Normal, names: tuple[str, ...], found: Nearest,
         path: str) -> None:
  """Draws the answers of the first images.

  Args:
    model: model of the run.
    params: its parameters.
    query: the images.
    codes: their posteriors by factor, Normals of `[Q, D]`.
    factor: name of the factor.
    groups: Normal of `[G, D]`, posteriors of the groups.
    names: their names.
    found: the nearest groups.
    path: path of the PNG.
  """
  import matplotlib  # Slow to import.

  from experiments.pictures import sheets

  count, k = min(_MAX_DRAWN, len(query.names)), found.groups.shape[1]
  chosen = found.groups[:count]
  made = {name: np.repeat(np.asarray(q.mean)[:count], k, axis=0)
          for name, q in codes.items()}
  made[factor] = np.asarray(groups.mean, np.float32)[chosen.ravel()]
  images = np.asarray(jax.jit(_shown, static_argnums=0)(
      model, params, made)).reshape(count, k, *model.observation_shape)
  with matplotlib.rc_context(sheets.STYLE):
    sheet = sheets.Sheet(model.observation_shape, count, 2.2 + 3.2 * k)
    for i in range(count):
      sheet.put(i, 0, query.x[i], sheets.GREEN)
      sheet.text(i + 0.5, -0.1, sheets.shorten(query.names[i]), ha='right')
      sheet.text(i + 0.5, 1.1, f'known\n{found.known[i]:+.1f}')
      for j in range(k):
        left = 2.2 + 3.2 * j
        sheet.put(i, left, images[i, j], sheets.RED)
        sheet.text(i + 0.5, left + 1.1, sheets.shorten(names[
            chosen[i, j]]) + f'\n{percent(found.probabilities[i, j])}')
    sheet.head(f'Nearest groups by {factor}', (
        'query', None, f'{factor} of the group, rest of the query'))
    sheets.save(sheets.Drawing(sheet.figure(), (
        'Images (green), and the groups that they most probably belong to. '
        'Probabilities assume that an image belongs to one of the groups of '
        'the gallery. Each group is shown by an image (red) decoded from '
        f'its {factor} and the other codes of the query. "Known" is the '
        'evidence, in nats, that the image belongs to one of these groups '
        'rather than to a new one.')), path)


def _shown(model: Model, params: Params, codes: dict[str, jax.Array]
           ) -> jax.Array:
  return model.likelihood.shown(mlvae_jax.decode(model, params, codes))
