"""Figures of observations that are not images: profiles, and a map of codes."""

from __future__ import annotations

from collections.abc import Iterator
import functools
import importlib.util
import math

import jax
from matplotlib.axes import Axes
from matplotlib.figure import Figure
import numpy as np

from experiments.pictures.sheets import (
    BLUE,
    COLOURS,
    GREEN,
    LIGHT,
    RED,
    Drawing,
    shorten,
)
from experiments.pictures.shown import choose_images, encode, infer_codes
from experiments.pictures.subject import (
    NUM_EVIDENCE,
    SEED,
    Groups,
    Subject,
    groups_of,
    in_words,
)
import mlvae_jax

_NUM_PROFILES = 8
_NUM_POINTS = 2000
# Compiled as a whole: op by op, drawing a run would compile for seconds.
_decode = jax.jit(mlvae_jax.decode, static_argnums=0)


def profiles(subject: Subject) -> Iterator[tuple[str, Drawing]]:
  """Some test rows as lines, with their reconstructions.

  None of tokens, whose numbers have no order.
  """
  rows = choose_images(subject, _NUM_PROFILES)
  model = subject.model
  x = model.likelihood.as_mean(model.prepare(subject.images.x[rows]))
  lines = [(x, GREEN, 'test row')]
  for strategy, colour, label in (
      (1, BLUE, 'strategy 1: alone'),
      (2, RED, 'strategy 2: accumulated evidence'))[:2 if model.grouped else 1]:
    codes = infer_codes(subject._replace(strategy=strategy), rows)
    lines.append((_decode(model, subject.params, codes), colour, label))
  if x.shape[1:] == model.observation_shape:
    yield 'profiles', Drawing(
        _draw_profiles(subject, rows, lines), _describe_profiles(subject))


def maps(subject: Subject) -> Iterator[tuple[str, Drawing]]:
  """The codes of test rows in two dimensions, coloured by their groups."""
  rows = np.random.default_rng(SEED).permutation(
      len(subject.images))[:_NUM_POINTS]
  if len(rows) < 3:
    return
  model, project = subject.model, _projection()
  codes = encode(subject, [rows])
  groupings = model.groupings or (subject.grouping,)
  figure = Figure(
      figsize=(0.4 + 2.3 * len(model.factors), 0.5 + 2.3 * len(groupings)),
      layout='constrained')
  axes = figure.subplots(len(groupings), len(model.factors), squeeze=False)
  for column, factor in enumerate(model.factors):
    points = project(np.asarray(codes[factor.name], np.float64))
    for row, grouping in enumerate(groupings):
      ax = axes[row, column]
      groups = groups_of(subject.images, grouping)
      _scatter(ax, points, groups._replace(ids=groups.ids[rows]))
      if column == len(model.factors) - 1:
        _name_groups(ax, grouping)
      if not row:
        ax.set_title(shorten(factor.name), parse_math=False)
  yield 'map', Drawing(figure, _describe_map(subject, len(rows)))


def pca(codes: np.ndarray) -> np.ndarray:
  """The two principal components of codes `[N, D]`, `[N, 2]`.

  Codes of one dimension have zeros for the second.
  """
  centred = codes - codes.mean(axis=0)
  _, _, directions = np.linalg.svd(centred, full_matrices=False)
  # The sign of a direction is arbitrary: the largest entry is positive.
  largest = np.abs(directions).argmax(axis=1)
  directions *= np.sign(
      directions[np.arange(len(directions)), largest])[:, None]
  found = centred @ directions[:2].T
  return np.pad(found, ((0, 0), (0, 2 - found.shape[1])))


def _projection():
  """UMAP if it is installed, otherwise PCA."""
  return _umap if _has_umap() else pca


@functools.cache
def _has_umap() -> bool:
  return importlib.util.find_spec('umap') is not None


def _umap(codes: np.ndarray) -> np.ndarray:
  import umap  # Optional, and slow to import.

  return umap.UMAP(n_components=2, random_state=SEED).fit_transform(codes)


def _draw_profiles(subject: Subject, rows: np.ndarray, lines: list) -> Figure:
  """A panel for each row, two side by side."""
  down = math.ceil(len(rows) / 2)
  figure = Figure(figsize=(7.2, 0.6 + 1.25 * down), layout='constrained')
  axes = figure.subplots(down, 2, squeeze=False).ravel()
  groups = subject.groups
  for i, (ax, row) in enumerate(zip(axes, rows)):
    for values, colour, label in lines:
      values = np.ravel(values[i])
      ax.plot(values, color=colour, label=label, linewidth=1.0, markersize=2.5,
              marker='o' if len(values) <= 40 else None)
    ax.set_title(f'{subject.grouping} {shorten(groups.name(groups.ids[row]))}',
                 fontweight='normal', parse_math=False)
    ax.tick_params(labelsize=6)
  for ax in axes[len(rows):]:
    ax.axis('off')
  handles, labels = axes[0].get_legend_handles_labels()
  figure.legend(handles, labels, loc='outside upper left', ncols=len(lines))
  return figure


def _describe_profiles(subject: Subject) -> str:
  accumulated = (
      f' and with the evidence of up to {NUM_EVIDENCE} other rows of its group '
      f'in the codes that the group shares (red, strategy 2)'
      if subject.model.grouped else '')
  scale = (', standardised as in training' if subject.data.scale is not None
           else '')
  return (
      'Profiles. Each panel shows the elements of a test row from the first to '
      f'the last (green){scale}, and its reconstruction from posterior means: '
      f'from the row alone (blue, strategy 1){accumulated}. The closer the '
      'lines, the more of the row the codes have kept.')


def _scatter(ax: Axes, points: np.ndarray, groups: Groups) -> None:
  """Points in the colours of the largest groups; those of others are grey."""
  sizes = np.bincount(groups.ids, minlength=len(groups.names))
  largest = np.argsort(-sizes, kind='stable')[:len(COLOURS)]
  largest = np.sort(largest[sizes[largest] > 0])
  rest = ~np.isin(groups.ids, largest)
  size = np.clip(4000 / len(points), 4, 16)  # Few points are larger.
  ax.scatter(*points[rest].T, s=size, color=LIGHT, linewidths=0)
  for group, colour in zip(largest, COLOURS):
    ax.scatter(*points[groups.ids == group].T, s=size, color=colour,
               linewidths=0, label=shorten(groups.name(group)))
  ax.set(xticks=[], yticks=[])
  ax.grid(False)


def _name_groups(ax: Axes, grouping: str) -> None:
  legend = ax.legend(
      title=shorten(grouping), loc='center left', bbox_to_anchor=(1, 0.5),
      handletextpad=0.2)
  for text in (legend.get_title(), *legend.get_texts()):
    text.set_parse_math(False)


def _describe_map(subject: Subject, count: int) -> str:
  groupings = subject.model.groupings or (subject.grouping,)
  how = 'UMAP' if _has_umap() else 'its two principal components'
  below = ', one below the other' if len(groupings) > 1 else ''
  return (
      f'Map of codes. Each point is one of {count:,} test rows, encoded alone, '
      f'at the posterior mean of a factor\'s code, reduced to {how}. Factors '
      f'are side by side. Colours are the (up to {len(COLOURS)}) largest '
      f'groups by {in_words(groupings)}{below}; all other groups are grey. The '
      'code of a grouped factor should have a cluster for each of its own '
      'groups; in any other code the colours should be mixed.')
