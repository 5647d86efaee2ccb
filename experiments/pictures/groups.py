"""Pictures of groups: generation (paper fig. 5a), reconstruction (6a, 6b)."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import numpy as np

from experiments.pictures.sheets import (
    BLUE,
    GREEN,
    LIGHT,
    RED,
    Drawing,
    Sheet,
    shorten,
)
from experiments.pictures.shown import (
    choose_images,
    choose_members,
    encode,
    group_codes,
)
from experiments.pictures.subject import (
    MAX_MEMBERS,
    NUM_SETS,
    SEED,
    Subject,
    variants,
)
from experiments.pictures.swaps import can_swap
import mlvae_jax
from mlvae_jax.inference.encode import Codes

_NUM_MEASURED = 512  # Images from which the spread of codes is measured.
# Compiled as a whole: op by op, drawing a run would compile for seconds.
_decode = jax.jit(mlvae_jax.decode, static_argnums=0)
_generate = jax.jit(mlvae_jax.generate, static_argnums=(0, 4))


def generations(subject: Subject) -> Iterator[tuple[str, Drawing]]:
  """Fig. 5a for every grouped factor and both strategies."""
  if not can_swap(subject.model):
    return
  rows = np.random.default_rng(SEED).permutation(len(subject.images))
  # Samples, not means: the prior should match the spread of samples.
  codes = encode(subject, [rows[:_NUM_MEASURED]], jax.random.key(SEED))
  names = [f.name for f in subject.model.grouped]
  for ending, shown in variants(subject, names):
    yield f'generation{ending}', _draw_generation(shown, codes)


def reconstructions(subject: Subject) -> Iterator[tuple[str, Drawing]]:
  """Fig. 6a for every grouping of the model's factors."""
  # Factors that share a grouping would give the same picture: the first is
  # drawn. Without a grouped factor there is one picture, of all codes.
  by_grouping = {f.grouping: f.name for f in reversed(subject.model.grouped)}
  names = [f.name for f in subject.model.grouped
           if by_grouping[f.grouping] == f.name] or [None]
  for ending, shown in variants(subject, names, strategies=(2,)):
    yield f'reconstruction{ending}', _draw_reconstruction(shown)


def samples(subject: Subject) -> Iterator[tuple[str, Drawing]]:
  """Images of codes drawn from the prior, for a model without groups."""
  if subject.factor is None:
    yield 'samples', _draw_samples(subject)


def _draw_generation(subject: Subject, codes: Codes) -> Drawing:
  """Images with a group's mean code of one factor, the rest from the prior.

  The caption says how far `codes` of test images are from the prior.
  """
  model, factor, images = subject.model, subject.factor, subject.images
  groups = subject.groups
  if subject.strategy == 1:
    members = [np.array([row]) for row in choose_images(subject, NUM_SETS)]
  else:
    members = [groups.rows(g) for g in groups.choose(NUM_SETS)]
  mean = group_codes(subject, members, subject.grouping)[factor]
  made = jax.device_get(_generate(
      model, subject.params, {factor: mean}, jax.random.key(SEED), 10))
  width = min(10, max(map(len, members)))
  sheet = Sheet(model.observation_shape, len(members), width + 10.5)
  for i, rows in enumerate(members):
    sheet.text(i + 0.5, -0.1, shorten(groups.name(groups.ids[rows[0]])),
               ha='right')
    for j, row in enumerate(rows[:width]):
      sheet.put(i, j, images.x[row], GREEN)
    for j in range(10):
      sheet.put(i, width + 0.5 + j, made[i, j], RED)
  title, caption = _describe_generation(subject)
  sheet.head(title, ('test image', None, 'generated'))
  return Drawing(sheet.figure(), caption + _describe_spread(subject, codes))


def _describe_generation(subject: Subject) -> tuple[str, str]:
  """Title and caption of a picture of generation."""
  factor, grouping, drawn = subject.factor, subject.grouping, subject.others
  evidence = (
      f'Strategy 2: the {factor} code is the mean of the posterior that '
      f'accumulates the test images of the {grouping} (at most {MAX_MEMBERS}).'
      if subject.strategy == 2 else
      f'Strategy 1: the {factor} code is the mean of the posterior of that '
      'single image.')
  left = (f'some of the test images of one {grouping}'
          if subject.strategy == 2 else 'a test image')
  return (
      f'Generation, strategy {subject.strategy}: a row keeps its {factor}, '
      f'with {drawn} from the prior', (
          f'Generation. Each row shows {left} on the left (green), and on the '
          f'right (red) images of the same {factor} whose {drawn} is drawn '
          f'from the prior N(0, I). {evidence}'))


def _describe_spread(subject: Subject, codes: Codes) -> str:
  """The spread of the images' own codes, of factors drawn from the prior."""
  # `cov` of one dimension is a scalar, and of few images meaningless.
  drawn = {f.name: np.atleast_2d(np.cov(codes[f.name], rowvar=False))
           for f in subject.model.factors
           if f.name != subject.factor and len(codes[f.name]) > 2}
  spreads = []
  for name, covariance in drawn.items():
    std = np.sqrt(np.maximum(np.diag(covariance), 1e-12))
    between = np.abs(np.triu(covariance / np.outer(std, std), 1)).max()
    spreads.append(
        f'{name} has standard deviations of {std.min():.1f} to '
        f'{std.max():.1f} and correlations of up to {between:.1f} between its '
        'dimensions')
  if not spreads:
    return ''
  return (f' In single test images, {"; ".join(spreads)}. In the prior these '
          'are 1 and 0: the larger the difference, the less codes drawn from '
          'the prior resemble those of images, and the more they change a '
          'picture.')


def _draw_reconstruction(subject: Subject) -> Drawing:
  """Four images of a group, alone and with accumulated evidence."""
  model, images, groups = subject.model, subject.images, subject.groups
  chosen = groups.choose(NUM_SETS)
  shown = choose_members(subject, chosen)
  columns = [images.x[np.concatenate(shown)]]
  for grouping in (None, subject.grouping)[:2 if model.grouped else 1]:
    codes = encode(subject, shown, grouping=grouping)
    columns.append(jax.device_get(_decode(model, subject.params, codes)))
  # Up to five groups side by side; the fractions are gaps between them.
  across = min(5, len(chosen))
  height, width = max(map(len, shown)) + 0.7, len(columns) + 0.6
  sheet = Sheet(
      model.observation_shape, height * -(-len(chosen) // across) - 0.7,
      across * width - 0.6)
  members = iter(zip(*columns))
  for i, (group, rows) in enumerate(zip(chosen, shown)):
    top, left = i // across * height, i % across * width
    sheet.text(top - 0.1, left, shorten(groups.name(group)), va='bottom')
    for r in range(len(rows)):
      for c, (image, colour) in enumerate(
          zip(next(members), (GREEN, BLUE, RED))):
        sheet.put(top + r, left + c, image, colour)
  title, frames, caption = _describe_reconstruction(subject)
  sheet.head(title, frames, space=0.5)
  return Drawing(sheet.figure(), caption)


def _describe_reconstruction(subject: Subject
                             ) -> tuple[str, tuple[str, ...], str]:
  """Title, labels of the frames, and caption of a picture of reconstruction."""
  factor, grouping = subject.factor, subject.grouping
  if factor is None:
    return 'Reconstruction', ('test image', 'reconstruction'), (
        'Reconstruction: test images (green) next to their reconstructions '
        f'from posterior means (blue), by {grouping}.')
  shared = ' and one '.join(
      f.name for f in subject.model.grouped if f.grouping == grouping)
  rest = (', all other codes from each image alone'
          if len(subject.model.groupings) > 1 else '')
  return (
      f'Reconstruction, strategies 1 and 2: {factor} from each image alone, '
      f'or from all images shown of its {grouping}',
      ('test image', 'strategy 1: alone', 'strategy 2: accumulated evidence'),
      f'Accumulating evidence. For each {grouping}: test images (green), their '
      'reconstructions when each is encoded alone (blue, strategy 1), and '
      f'when the images shown of one {grouping} accumulate their evidence into '
      f'one {shared} (red, strategy 2{rest}); all from posterior means. The '
      'images are chosen to show the benefit: first the two whose own mean '
      f'{factor} is furthest from that of their {grouping} (among up to '
      f'{MAX_MEMBERS} test images), then the two nearest to it.')


def _draw_samples(subject: Subject) -> Drawing:
  """A square of images of codes drawn from the prior."""
  model, size = subject.model, 10
  made = jax.device_get(_generate(
      model, subject.params, {}, jax.random.key(SEED), size * size))[0]
  sheet = Sheet(model.observation_shape, size, size)
  for i, image in enumerate(made):
    sheet.put(i // size, i % size, image, LIGHT)
  sheet.head('Samples from the prior')
  return Drawing(sheet.figure(), (
      'Samples: expected images for codes that are drawn from the prior.'))
