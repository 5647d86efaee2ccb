"""The figures of a study: one column against another, a point per setting."""

from __future__ import annotations

from collections.abc import Sequence
import itertools
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
import numpy as np

from experiments.evaluation.looks import CHANCE, as_they_are
from experiments.pictures.sheets import (
    COLOURS,
    GREY,
    Drawing,
    drawable,
    shortened,
)
from experiments.studies.definition import Choice, Column, Scatter
from experiments.studies.table import Numbers

_MARKERS = 'osD^vPX'
_AREAS = (14.0, 160.0)  # Of the smallest and the largest point, in points².
_AREA = 40.0  # Of all points, without a column for their size.


def draw(numbers: Numbers, scatter: Scatter) -> Drawing | None:
  """Draws a figure of a study.

  Args:
    numbers: numbers of the study.
    scatter: columns to draw.

  Returns:
    A panel for each data set, with the mean over the seeds of each setting,
    error bars of a standard deviation and a dot for each seed; None without
    numbers.
  """
  study = numbers.study
  named = {column.name: column for column in study.columns}
  x, y, size = (named.get(name)
                for name in (scatter.x, scatter.y, scatter.size))
  panels = [data for data in study.data
            if any(_point(numbers, data, s, x, y) for s in study.settings)]
  if not panels:
    return None
  columns = min(len(panels), 3)
  rows = -(-len(panels) // columns)
  # The legend, of one line per setting, must fit as well, below the title.
  height = max(0.3 + 2.6 * rows, 1.6 + 0.22 * len(study.settings))
  figure = Figure(figsize=(2 + 3 * columns, height), layout='constrained')
  axes = figure.subplots(rows, columns, squeeze=False).ravel()
  area = _Area(numbers, size)
  for ax in axes[len(panels):]:
    ax.axis('off')
  for ax, data in zip(axes, panels):
    _panel(ax, numbers, data, (x, y), area)
    ax.set_title(drawable(data.label), parse_math=False)
  figure.suptitle(drawable(scatter.title), x=0.01, ha='left', fontsize=8.5,
                  fontweight='bold', parse_math=False)
  handles = _handles(axes[0], numbers, panels, (x, y))
  handles += area.handles(axes[0])
  as_they_are(figure.legend(
      handles=handles, loc='outside right center', labelspacing=0.9))
  return Drawing(figure, _caption(scatter, x, y, size))


class _Area:
  """The area of a point, which grows linearly with a column's number."""

  def __init__(self, numbers: Numbers, column: Column | None):
    self._numbers, self._column = numbers, column
    means = [] if column is None else [
        mean for data in numbers.study.data
        for setting in numbers.study.settings
        if (mean := numbers.cell(data, setting, column).mean) is not None
        and np.isfinite(mean)]
    # From zero, so that small differences look small.
    self._low = min([0.0, *means])
    self._high = max([self._low, *means])

  def of(self, data: Choice, setting: Choice) -> float:
    """The area in points²; the smallest where the number is absent."""
    if self._column is None:
      return _AREA
    return self._at(self._numbers.cell(data, setting, self._column).mean)

  def handles(self, ax: Axes) -> list[Any]:
    """Entries of a legend that show what three areas mean."""
    if self._column is None or self._high == self._low:
      return []
    extent = self._high - self._low
    shown = [float(f'{self._low + share * extent:.2g}')
             for share in (0.25, 0.5, 1)]
    heading = ax.scatter(
        [], [], s=0, label=f'area: {drawable(self._column.heading)}')
    return [heading, *(
        ax.scatter([], [], s=self._at(value), color='white', edgecolor=GREY,
                   label=f'{value:,g}') for value in shown)]

  def _at(self, value: float | None) -> float:
    if value is None or not np.isfinite(value):
      return _AREAS[0]
    share = (value - self._low) / ((self._high - self._low) or 1.0)
    return _AREAS[0] + share * (_AREAS[1] - _AREAS[0])


def _panel(ax: Axes, numbers: Numbers, data: Choice,
           axes: tuple[Column, Column], area: _Area) -> None:
  """Draws the points of a data set."""
  for look, setting in zip(_looks(), numbers.study.settings):
    point = _point(numbers, data, setting, *axes)
    if point is None:
      continue
    x, y = point
    # Pale, since error bars and seeds may be smaller than the point.
    ax.scatter(x.mean, y.mean, s=area.of(data, setting), alpha=0.45, zorder=2,
               linewidth=0, **look)
    ax.errorbar(x.mean, y.mean, xerr=x.std, yerr=y.std, color=look['color'],
                linewidth=1, zorder=3)
    seeds = _of_seeds(numbers, data, setting, *axes)
    ax.scatter(*zip(*seeds), s=4, color=look['color'], linewidth=0, zorder=4)
  for column, line in zip(axes, (ax.axvline, ax.axhline)):
    if (chance := numbers.chance(data, column)) is not None:
      line(chance, zorder=1, **CHANCE)
  x, y = axes
  ax.set_xlabel(drawable(x.heading), parse_math=False)
  ax.set_ylabel(drawable(y.heading), parse_math=False)
  ax.grid(visible=True, axis='both')
  ax.margins(0.12)


def _point(numbers: Numbers, data: Choice, setting: Choice, x: Column,
           y: Column) -> tuple | None:
  """The cells of a setting; None if one of them has no finite mean."""
  cells = tuple(numbers.cell(data, setting, column) for column in (x, y))
  there = all(c.mean is not None and np.isfinite(c.mean) for c in cells)
  return cells if there else None


def _of_seeds(numbers: Numbers, data: Choice, setting: Choice, x: Column,
              y: Column) -> list[tuple[float, float]]:
  """The two numbers of each seed that has both."""
  pairs = [tuple(numbers.value(run, column).value for column in (x, y))
           for run in numbers.runs
           if run.data == data and run.setting == setting]
  # Without any, one pair of NaN, because `zip` needs two lists.
  return [pair for pair in pairs if None not in pair] or [(np.nan, np.nan)]


def _looks():
  """Colours and markers: 49 pairs before the first is repeated."""
  for number in itertools.count():
    yield {'color': COLOURS[number % len(COLOURS)],
           'marker': _MARKERS[(number + number // len(COLOURS))
                              % len(_MARKERS)]}


def _handles(ax: Axes, numbers: Numbers, panels: Sequence[Choice],
             axes: tuple[Column, Column]) -> list[Any]:
  """Entries of a legend for the settings that are drawn, and for chance."""
  handles = [
      ax.scatter([], [], s=22, label=shortened(drawable(setting.label), 36),
                 **look)
      for look, setting in zip(_looks(), numbers.study.settings)
      if any(_point(numbers, data, setting, *axes) for data in panels)]
  if any(numbers.chance(data, column) is not None
         for data in panels for column in axes):
    handles += ax.plot([], [], label='chance', **CHANCE)
  return handles


def _caption(scatter: Scatter, x: Column, y: Column, size: Column | None
             ) -> str:
  sized = '' if size is None else (
      f' The area of a large point shows {size.heading}.')
  own = f' {scatter.caption}' if scatter.caption else ''
  return (
      f'{scatter.title}: {y.heading} against {x.heading}. A large point is the '
      f'mean of a setting over its seeds, with bars of one standard deviation '
      f'on each side; a small dot is one seed.{sized}{own}')
