"""Pictures of exchanged codes: swapping (paper fig. 4), interpolation (5b)."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import numpy as np

from experiments.pictures.sheets import BLUE, GREEN, LIGHT, RED, Drawing, Sheet
from experiments.pictures.shown import choose_images, infer_codes
from experiments.pictures.subject import NUM_SETS, SEED, Subject, variants
import mlvae_jax
from mlvae_jax.model.model import Model

# Compiled as a whole: op by op, drawing a run would compile for seconds.
_decode = jax.jit(mlvae_jax.decode, static_argnums=0)
_swap = jax.jit(mlvae_jax.swap, static_argnums=0, static_argnames='factor')
_interpolate = jax.jit(
    mlvae_jax.interpolate, static_argnums=(0, 4), static_argnames='factor')
_HOW = 'One sample of each code per image.'


def swaps(subject: Subject) -> Iterator[tuple[str, Drawing]]:
  """Fig. 4 for every factor that can be swapped, and both strategies.

  With two factors, swapping the ungrouped one would show the same pictures.
  """
  names = [f.name for f in subject.model.grouped]
  if len(subject.model.factors) > 2:
    names += [
        f.name for f in subject.model.factors if f.grouping is None]
  if can_swap(subject.model):
    for ending, shown in variants(subject, names):
      yield f'swap{ending}', _draw_swap(shown)


def interpolations(subject: Subject) -> Iterator[tuple[str, Drawing]]:
  """Fig. 5b for every grouped factor and both strategies."""
  if len(subject.images) < 2:
    return
  names = [f.name for f in subject.model.grouped]
  draw = _draw_grids
  if not can_swap(subject.model):
    names, draw = [subject.factor], _draw_lines
  for ending, shown in variants(subject, names):
    yield f'interpolation{ending}', draw(shown)


def can_swap(model: Model) -> bool:
  """Whether a model has a grouped factor, and another one to swap it with."""
  return bool(model.grouped) and len(model.factors) > 1


def _draw_swap(subject: Subject) -> Drawing:
  """The factor's code of every image, with the other codes of every image."""
  model, params, factor = subject.model, subject.params, subject.factor
  rows = choose_images(subject, NUM_SETS)
  codes = infer_codes(subject, rows, jax.random.key(SEED))
  originals = subject.images.x[rows]
  decoded, swapped = jax.device_get((
      _decode(model, params, codes),
      _swap(model, params, codes, codes, factor=factor)))
  # Behind the two lanes of originals and reconstructions, and a gap.
  place = np.arange(len(rows)) + 2.15
  sheet = Sheet(model.observation_shape, place[-1] + 1, place[-1] + 1)
  for i, row in enumerate(place):
    for lane, images, colour in (
        (0, originals, GREEN), (1, decoded, BLUE)):
      sheet.put(lane, row, images[i], colour)
      sheet.put(row, lane, images[i], colour)
    for j, column in enumerate(place):
      sheet.put(row, column, swapped[i, j], RED)
  sheet.text(0.5, 2.0, f'{factor}\nfrom →', ha='right')
  # Three names are too long for a corner; the caption has them.
  others = subject.others if len(model.factors) < 4 else 'all else'
  sheet.text(2.0, 0.05, f'{others}\nfrom ↓', va='bottom')
  sheet.head(
      f'Swapping, strategy {subject.strategy}: a column keeps its {factor}, '
      f'a row {"" if others == "all else" else "its "}{others}',
      ('test image', 'reconstruction', 'swapped'))
  return Drawing(sheet.figure(), (
      f'Swapping. Each red picture takes its {factor} from the test image at '
      f'the top of its column and its {subject.others} from the test image '
      'at the left of its row (green); next to these are their '
      'reconstructions (blue). The better the model separates them, the more '
      'the pictures of a column share their '
      f'{model.factor(factor).grouping or factor}, and those of a row their '
      f'{subject.others}. {_HOW} {subject.strategy_words}'
      f'{subject.given_words}'))


def _draw_grids(subject: Subject) -> Drawing:
  """Grids in which one factor changes to the right, and all others downwards.
  """
  model, factor, size = subject.model, subject.factor, 7
  rows = choose_images(subject, 4)
  half = len(rows) // 2
  codes = infer_codes(subject, rows, jax.random.key(SEED))
  sheet = Sheet(model.observation_shape, size + 2.2, half * (size + 1) - 1)
  for i in range(half):
    start, stop = (
        {name: code[k] for name, code in codes.items()} for k in (i, i + half))
    grid = jax.device_get(_interpolate(
        model, subject.params, start, stop, size, factor=factor))
    left, right = i * (size + 1), i * (size + 1) + size - 1
    corners = {(0, 0): BLUE, (0, size - 1): RED,
               (size - 1, 0): RED, (size - 1, size - 1): BLUE}
    for r, c in np.ndindex(size, size):
      sheet.put(r + 1.1, left + c, grid[r, c], corners.get((r, c), LIGHT))
    images = subject.images.x[rows[[i, i + half]]]
    sheet.put(0, left, images[0], GREEN)
    sheet.put(size + 1.2, right, images[1], GREEN)
    sheet.text(0.9, left + 1.2, f'{factor} changes →', va='bottom')
    sheet.text(size + 1.3, left, f'{subject.others} changes ↓', va='top')
  sheet.head(
      f'Interpolation, strategy {subject.strategy}: {factor} from left to '
      f'right, {subject.others} from top to bottom',
      ('test image', 'reconstruction', 'swapped'))
  return Drawing(sheet.figure(), (
      'Interpolation between two test images (green), whose reconstructions '
      f'are the top left and bottom right corners (blue). Within a row only '
      f'{factor} changes, within a column only {subject.others}; the other '
      f'two corners (red) are the swapped pair. {_HOW} '
      f'{subject.strategy_words}{subject.given_words}'))


def _draw_lines(subject: Subject) -> Drawing:
  """Interpolation of all codes at once, for a model with nothing to swap."""
  model, size = subject.model, 10
  rows = choose_images(subject, NUM_SETS)
  half = len(rows) // 2
  codes = infer_codes(subject, rows, jax.random.key(SEED))
  sheet = Sheet(model.observation_shape, half, size + 2.4)
  for i in range(half):
    start, stop = (
        {name: code[k] for name, code in codes.items()} for k in (i, i + half))
    # On the diagonal of the grid all factors move together.
    grid = jax.device_get(_interpolate(
        model, subject.params, start, stop, size,
        factor=model.factors[0].name))
    for c in range(size):
      sheet.put(i, c + 1.2, grid[c, c],
                BLUE if c in (0, size - 1) else LIGHT)
    sheet.put(i, 0, subject.images.x[rows[i]], GREEN)
    sheet.put(i, size + 1.4, subject.images.x[rows[i + half]], GREEN)
  strategy = f', strategy {subject.strategy}' if model.grouped else ''
  sheet.head(
      f'Interpolation{strategy}: between the codes of two test images',
      ('test image', 'reconstruction'))
  return Drawing(sheet.figure(), (
      'Interpolation. Each row goes in equal steps from the code of the test '
      'image on the left to that of the one on the right (green); next to '
      f'them are their reconstructions (blue). {_HOW} '
      f'{subject.strategy_words}').rstrip())
