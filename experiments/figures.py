"""Draws the pictures of a trained run into WORKDIR/figures.

  python -m experiments.figures --workdir=runs/mnist5k-mlvae

Drawn from test images: swap.png (paper fig. 4), generation.png (5a),
interpolation.png (5b) and reconstruction.png (6a); of a VAE samples.png in
place of the first two. Drawn from the run's files, where they are there:
evidence.png (6c) and recognition.png (both from evaluation.json) and
curves.png (from metrics.jsonl).
Each PNG holds its caption as the text chunk "Description".
"""

from __future__ import annotations

import os

from absl import flags
import jax
import matplotlib
import numpy as np

from experiments import charts, cli, recognition_chart, runs
from experiments.cli import UserError
from experiments.datasets.splits import Splits
from experiments.sheets import (
    BLUE,
    GREEN,
    RED,
    STYLE,
    Drawing,
    Sheet,
    save,
    shorten,
)
from experiments.subjects import (
    MAX_MEMBERS,
    NUM_EVIDENCE,
    NUM_SETS,
    SEED,
    Subject,
    choose_groups,
    choose_images,
    choose_members,
    encode,
    first_of_each,
    sample_with_evidence,
)
import mlvae_jax

# Compiled whole: op by op, drawing a run would compile for seconds.
_decode = jax.jit(mlvae_jax.decode, static_argnums=0)
_swap = jax.jit(mlvae_jax.swap, static_argnums=0, static_argnames='factor')
_interpolate = jax.jit(
    mlvae_jax.interpolate, static_argnums=(0, 4), static_argnames='factor')
_generate = jax.jit(mlvae_jax.generate, static_argnums=(0, 4))


def main() -> None:
  """Reads the flags and draws a run."""
  values = flags.FLAGS.flag_values_dict()
  workdir = runs.require_workdir(values['workdir'])
  for path in draw_all(workdir, runs.load_data(
      workdir, data_dir=values['data_dir'], store_dir=values['store_dir'])):
    print(path)


def draw_all(workdir: str, data: Splits, factor: str | None = None
             ) -> list[str]:
  """Draws every figure that the model and the files of a run allow.

  Args:
    workdir: of the run.
    data: the run's data set.
    factor: which grouped factor to swap; by default the first.

  Returns:
    The paths of the figures.

  Raises:
    UserError: when the images do not fit the model.
    ValueError: when the model has no such grouped factor.
  """
  model, params = runs.load_model(workdir)
  shape = data.test.images.shape[1:]
  if shape != model.image_shape:
    raise UserError(
        f'the model of {workdir} is for images of {model.image_shape}, but '
        f'the data are of {shape}; check --data_dir')
  grouped = [f.name for f in model.grouped]
  factor = factor or (grouped[0] if grouped else None)
  if factor not in (*grouped, None):
    raise ValueError(f'expected a grouped factor of {grouped}, got {factor!r}')
  subject = Subject(model, params, data.test, data.grouping, factor)
  folder = os.path.join(workdir, 'figures')
  os.makedirs(folder, exist_ok=True)
  paths = []
  with matplotlib.rc_context(STYLE):
    for name, drawing in {
        **_draw_images(subject),
        'evidence': charts.draw_evidence(workdir, model),
        'recognition': recognition_chart.draw_recognition(workdir, model),
        'curves': charts.draw_curves(workdir, model)}.items():
      if drawing is not None:
        paths.append(os.path.join(folder, f'{name}.png'))
        save(drawing, paths[-1])
  return paths


def _draw_images(subject: Subject) -> dict[str, Drawing]:
  """The figures of test images that make sense for the model."""
  if not len(subject.images):
    return {}
  drawings = {}
  if subject.factor is None:
    drawings['samples'] = _draw_samples(subject)
  elif len(subject.model.factors) > 1:
    drawings['swap'] = _draw_swap(subject)
    drawings['generation'] = _draw_generation(subject)
  if len(subject.images) > 1:
    drawings['interpolation'] = (
        _draw_grids(subject) if 'swap' in drawings else _draw_lines(subject))
  drawings['reconstruction'] = _draw_reconstruction(subject)
  return drawings


# Figures of images.


def _draw_swap(subject: Subject) -> Drawing:
  """Fig. 4: every style with every content, of 10 images."""
  model, params, factor = subject.model, subject.params, subject.factor
  rows = choose_images(subject, NUM_SETS)
  codes = sample_with_evidence(subject, rows, jax.random.key(SEED))
  originals = subject.images.images[rows]
  decoded, swapped = jax.device_get((
      _decode(model, params, codes),
      _swap(model, params, codes, codes, factor=factor)))
  place = np.arange(len(rows)) + 2.15
  sheet = Sheet(model.image_shape, place[-1] + 1, place[-1] + 1)
  for i, row in enumerate(place):
    for lane, images, colour in (
        (0, originals, GREEN), (1, decoded, BLUE)):
      sheet.put(lane, row, images[i], colour)
      sheet.put(row, lane, images[i], colour)
    for j, column in enumerate(place):
      sheet.put(row, column, swapped[i, j], RED)
  sheet.text(0.5, 2.0, f'{factor}\nfrom →', ha='right')
  sheet.text(2.0, 0.05, f'{subject.others}\nfrom ↓', va='bottom')
  sheet.head(
      f'Swapping: a column keeps its {factor}, a row its {subject.others}',
      ('test image', 'reconstruction', 'swapped'))
  return Drawing(sheet.figure(), (
      f'Swapping. Each red picture takes its {factor} from the test image at '
      f'the top of its column and its {subject.others} from the test image '
      'at the left of its row (green); beside these stand their '
      f'reconstructions (blue). The better the model separates the two, the '
      f'more a column shows one and the same {subject.grouping}, and a row '
      f'one and the same {subject.others}. One sample of the codes per image; '
      f'{factor} has the evidence of the image and of up to {NUM_EVIDENCE} '
      f'others of its {subject.grouping}.'))


def _draw_generation(subject: Subject) -> Drawing:
  """Fig. 5a: a group's mean content in styles drawn from the prior."""
  model, images = subject.model, subject.images
  groups = choose_groups(images, NUM_SETS)
  members = [subject.rows(g) for g in groups]
  means = first_of_each(encode(subject, members), members)
  # Were every factor grouped, keeping all would leave nothing to draw.
  keep = [f.name for f in model.grouped]
  keep = keep if len(keep) < len(model.factors) else [subject.factor]
  made = jax.device_get(_generate(
      model, subject.params, {name: means[name] for name in keep},
      jax.random.key(SEED), 10))
  width = min(10, max(map(len, members)))
  sheet = Sheet(model.image_shape, len(groups), width + 10.5)
  for i, (group, rows) in enumerate(zip(groups, members)):
    sheet.text(i + 0.5, -0.1, shorten(images.names[group]), ha='right')
    for j, row in enumerate(rows[:width]):
      sheet.put(i, j, images.images[row], GREEN)
    for j in range(10):
      sheet.put(i, width + 0.5 + j, made[i, j], RED)
  drawn = ' and '.join(f.name for f in model.factors if f.name not in keep)
  kept = ' and '.join(keep)
  sheet.head(
      f'Generation: the {kept} of one {subject.grouping}, {drawn} from the '
      'prior', ('test image', None, 'generated'))
  return Drawing(sheet.figure(), (
      f'Generation. Each row is one {subject.grouping}: left (green) some of '
      f'its test images, right (red) images of the same {kept} whose {drawn} '
      f'is drawn from the prior. The {kept} code is the mean of the posterior '
      f'that accumulates all test images of the {subject.grouping} (at most '
      f'{MAX_MEMBERS}).'))


def _draw_grids(subject: Subject) -> Drawing:
  """Fig. 5b: content changes from left to right, style downwards."""
  model, factor, size = subject.model, subject.factor, 7
  rows = choose_images(subject, 4)
  half = len(rows) // 2
  codes = sample_with_evidence(subject, rows, jax.random.key(SEED))
  sheet = Sheet(model.image_shape, size + 2.2, half * (size + 1) - 1)
  for i in range(half):
    start, stop = (
        {name: code[k] for name, code in codes.items()} for k in (i, i + half))
    grid = jax.device_get(_interpolate(
        model, subject.params, start, stop, size, factor=factor))
    left, right = i * (size + 1), i * (size + 1) + size - 1
    corners = {(0, 0): BLUE, (0, size - 1): RED,
               (size - 1, 0): RED, (size - 1, size - 1): BLUE}
    for r, c in np.ndindex(size, size):
      sheet.put(r + 1.1, left + c, grid[r, c], corners.get((r, c)))
    images = subject.images.images[rows[[i, i + half]]]
    sheet.put(0, left, images[0], GREEN)
    sheet.put(size + 1.2, right, images[1], GREEN)
    sheet.text(0.9, left + 1.2, f'{factor} changes →', va='bottom')
    sheet.text(size + 1.3, left, f'{subject.others} changes ↓', va='top')
  sheet.head(
      f'Interpolation: {factor} from left to right, {subject.others} from '
      'top to bottom', ('test image', 'reconstruction', 'swapped'))
  return Drawing(sheet.figure(), (
      'Interpolation between two test images (green), whose reconstructions '
      f'are the top left and bottom right corners (blue). Within a row only '
      f'{factor} changes, within a column only {subject.others}; the other '
      'two corners (red) are the swapped pair. One sample of the codes per '
      f'image; {factor} has the evidence of the image and of up to '
      f'{NUM_EVIDENCE} others of its {subject.grouping}.'))


def _draw_lines(subject: Subject) -> Drawing:
  """Interpolation of a model with nothing to swap: all codes at once."""
  model, size = subject.model, 10
  rows = choose_images(subject, NUM_SETS)
  half = len(rows) // 2
  codes = sample_with_evidence(subject, rows, jax.random.key(SEED))
  sheet = Sheet(model.image_shape, half, size + 2.4)
  for i in range(half):
    start, stop = (
        {name: code[k] for name, code in codes.items()} for k in (i, i + half))
    # On the diagonal of the grid all factors move together.
    grid = jax.device_get(_interpolate(
        model, subject.params, start, stop, size,
        factor=model.factors[0].name))
    for c in range(size):
      sheet.put(i, c + 1.2, grid[c, c],
                BLUE if c in (0, size - 1) else None)
    sheet.put(i, 0, subject.images.images[rows[i]], GREEN)
    sheet.put(i, size + 1.4, subject.images.images[rows[i + half]], GREEN)
  sheet.head('Interpolation between the codes of two test images',
             ('test image', 'reconstruction'))
  return Drawing(sheet.figure(), (
      'Interpolation. Each row goes in equal steps from the code of the test '
      'image on the left to that of the one on the right (green); next to '
      'them are their reconstructions (blue). One sample of the code per '
      'image.'))


def _draw_reconstruction(subject: Subject) -> Drawing:
  """Fig. 6a: four images of a group, alone and with accumulated evidence."""
  model, images = subject.model, subject.images
  groups = choose_groups(images, NUM_SETS)
  shown = [choose_members(subject, g) for g in groups]
  columns = [images.images[np.concatenate(shown)]]
  for together in (False, True)[:1 if subject.factor is None else 2]:
    codes = encode(subject, shown, together=together)
    columns.append(jax.device_get(_decode(model, subject.params, codes)))
  across = min(5, len(groups))
  height, width = max(map(len, shown)) + 0.7, len(columns) + 0.6
  sheet = Sheet(model.image_shape, height * -(-len(groups) // across) - 0.7,
                 across * width - 0.6)
  members = iter(zip(*columns))
  for i, (group, rows) in enumerate(zip(groups, shown)):
    top, left = i // across * height, i % across * width
    sheet.text(top - 0.1, left, shorten(images.names[group]), va='bottom')
    for r in range(len(rows)):
      for c, (image, colour) in enumerate(
          zip(next(members), (GREEN, BLUE, RED))):
        sheet.put(top + r, left + c, image, colour)
  title, frames, caption = _describe_reconstruction(subject)
  sheet.head(title, frames, space=0.5)
  return Drawing(sheet.figure(), caption)


def _describe_reconstruction(subject: Subject
                             ) -> tuple[str, tuple[str, ...], str]:
  """Its title, what its frames hold, and its caption."""
  factor, grouping = subject.factor, subject.grouping
  if factor is None:
    return 'Reconstruction', ('test image', 'reconstruction'), (
        'Reconstruction: test images (green) beside their reconstructions '
        f'from posterior means (blue), by {grouping}.')
  return (
      f'Reconstruction: {factor} from each image alone, or from all shown of '
      f'its {grouping}',
      ('test image', 'encoded alone', 'with accumulated evidence'),
      f'Accumulating evidence. Of each {grouping}: test images (green), their '
      'reconstructions when each is encoded alone (blue, strategy 1), and '
      f'when the images shown of one {grouping} accumulate their evidence into '
      f'one {factor} (red, strategy 2), all from posterior means. The images '
      'are chosen to show the benefit: first the two whose own mean '
      f'{factor} is furthest from that of their {grouping} (of up to '
      f'{MAX_MEMBERS} test images), then the two nearest to it.')


def _draw_samples(subject: Subject) -> Drawing:
  """Images of codes from the prior."""
  model, size = subject.model, 10
  made = jax.device_get(_generate(
      model, subject.params, {}, jax.random.key(SEED), size * size))[0]
  sheet = Sheet(model.image_shape, size, size)
  for i, image in enumerate(made):
    sheet.put(i // size, i % size, image)
  sheet.head('Samples from the prior')
  return Drawing(sheet.figure(), (
      'Samples: the expected images of codes that are drawn from the prior.'))


if __name__ == '__main__':
  runs.define_workdir_flags()
  cli.run(main)
