"""A picture of how certain codes are: by evidence, and by image."""

from __future__ import annotations

from collections.abc import Iterator

import jax
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter
import numpy as np

from experiments.pictures.sheets import BLUE, GREY, RED, Drawing, shorten
from experiments.pictures.subject import (
    EVIDENCE_SIZES,
    NUM_SETS,
    SEED,
    Subject,
    variants,
)
import mlvae_jax

_NUM_MEASURED = 1000
_BLOCK = 256
_ACROSS, _DOWN = 6, 2  # Images of either kind.
# Compiled as a whole: op by op, drawing a run would compile for seconds.
_encode_group = jax.jit(
    mlvae_jax.encode_group, static_argnums=(0, 4), static_argnames='factor')


def ambiguities(subject: Subject) -> Iterator[tuple[str, Drawing]]:
  """Variance by evidence, and the most and the least ambiguous test images.

  One for every grouped factor; none if there is only one test image.
  """
  names = [f.name for f in subject.model.grouped]
  for ending, shown in variants(subject, names, strategies=(2,)):
    if shown.factor is not None and len(shown.images) > 1:
      yield f'ambiguity{ending}', _draw_ambiguity(shown)


def _draw_ambiguity(subject: Subject) -> Drawing:
  """Curves on the left, images in the order of their variance on the right."""
  rows = np.sort(np.random.default_rng(SEED).permutation(
      len(subject.images))[:_NUM_MEASURED])
  variance = _variance_alone(subject, rows)
  order = np.argsort(variance, kind='stable')
  count = min(_ACROSS * _DOWN, len(rows) // 2)
  down = -(-count // _ACROSS)
  figure = Figure(figsize=(7.2, 1.0 + 1.3 * down), layout='constrained')
  left, right = figure.subfigures(1, 2, width_ratios=(1, 1.5))
  ax = left.subplots()
  _draw_curves(ax, subject)
  above, below = right.subfigures(2, 1)
  for part, chosen, colour, title in (
      (above, order[:count], BLUE, 'smallest variance'),
      (below, order[:-count - 1:-1], RED, 'largest variance')):
    part.suptitle(f'{title.capitalize()}, one image', fontsize=8,
                  fontweight='bold', x=0.02, ha='left')
    places = part.subplots(down, _ACROSS).ravel()
    for place, i in zip(places, chosen):
      _put(place, subject, rows[i], variance[i], colour)
    for place in places[count:]:
      place.axis('off')
    ax.plot(np.ones(count), variance[chosen], linestyle='', marker='o',
            markersize=3, color=colour, alpha=0.6, label=title)
  ax.legend(loc='lower left')
  return Drawing(figure, _describe(subject, len(rows)))


def _variance_alone(subject: Subject, rows: np.ndarray) -> np.ndarray:
  """The mean variance of the factor's code of each row alone, `[N]`."""
  found = []
  for start in range(0, len(rows), _BLOCK):
    block = rows[start:start + _BLOCK]
    # One size, to compile once.
    found.append(_variance(
        subject, np.resize(block, _BLOCK), np.arange(_BLOCK), _BLOCK
    )[:len(block)])
  return np.concatenate(found)


def _variance(subject: Subject, rows: np.ndarray, ids: np.ndarray,
              num_sets: int) -> np.ndarray:
  """The mean variance of the factor's code of sets of rows, `[num_sets]`."""
  q = jax.device_get(_encode_group(
      subject.model, subject.params, subject.images.x[rows], ids, num_sets,
      factor=subject.factor))
  return np.exp(q.logvar.astype(float)).mean(axis=1)


def _draw_curves(ax: Axes, subject: Subject) -> None:
  """Draws the variance of the code of some groups against their evidence."""
  members = [subject.groups.rows(g) for g in subject.groups.choose(NUM_SETS)]
  sets = [(i, k, rows[:k]) for i, rows in enumerate(members)
          for k in EVIDENCE_SIZES if k <= len(rows)]
  ids = np.full(NUM_SETS * sum(EVIDENCE_SIZES), len(EVIDENCE_SIZES) * NUM_SETS)
  rows = np.concatenate([rows for *_, rows in sets])
  ids[:len(rows)] = np.repeat(
      np.arange(len(sets)), [len(rows) for *_, rows in sets])
  # The rest is padding, one more set.
  variance = _variance(subject, np.resize(rows, len(ids)), ids,
                       len(EVIDENCE_SIZES) * NUM_SETS + 1)
  by_group = {}
  for (i, k, _), value in zip(sets, variance):
    by_group.setdefault(i, {})[k] = value
  for found in by_group.values():
    ax.plot(list(found), list(found.values()), color=GREY, linewidth=0.6,
            alpha=0.6)
  # Only groups with all of the evidence, so that every k is of the same ones.
  ks = max(by_group.values(), key=len)
  mean = {k: np.mean([found[k] for found in by_group.values()
                      if len(found) == len(ks)]) for k in ks}
  ax.plot(list(mean), list(mean.values()), color='black', marker='o',
          markersize=3, label='mean')
  ax.set(xscale='log', yscale='log', xlabel='images of evidence',
         ylabel=f'mean variance of {shorten(subject.factor)}')
  ax.set_title('More evidence')
  ax.set_xticks(EVIDENCE_SIZES, map(str, EVIDENCE_SIZES))
  ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
  ax.yaxis.set_major_formatter(StrMethodFormatter('{x:g}'))
  for axis in (ax.xaxis, ax.yaxis):
    axis.set_minor_locator(NullLocator())


def _put(ax: Axes, subject: Subject, row: int, variance: float, colour: str
         ) -> None:
  """Shows an image with its group and variance, in a coloured frame."""
  image = np.asarray(subject.images.x[row])
  image = image / 255.0 if image.dtype == np.uint8 else np.clip(image, 0, 1)
  ax.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap='gray',
            vmin=0, vmax=1)
  groups = subject.groups
  ax.set_title(f'{shorten(groups.name(groups.ids[row]))}\n{variance:.2g}',
               fontsize=5, fontweight='normal', loc='center', pad=2,
               parse_math=False)
  ax.set(xticks=[], yticks=[])
  ax.grid(False)
  for spine in ax.spines.values():
    spine.set(visible=True, color=colour, linewidth=1.2)


def _describe(subject: Subject, count: int) -> str:
  factor, grouping = subject.factor, subject.grouping
  return (
      f'Ambiguity. Left: the variance of {factor}, averaged over its '
      f'dimensions, against the number of images of one {grouping} whose '
      'evidence is accumulated (strategy 2). Each thin line is one '
      f'{grouping}, and the black line their mean; they should fall. Right: of '
      f'{count:,} test images, each encoded alone (strategy 1), those whose '
      f'{factor} has the smallest variance (blue) and the largest (red); above '
      f'each image its {grouping} and that variance, which the dots on the '
      'left show too. If variances are a good measure of doubt, images that '
      f'could be of another {grouping} are among the red ones.')
