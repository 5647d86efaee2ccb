"""The chart of the uncertainty of codes."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter
import numpy as np

from experiments.evaluation.looks import CHANCE, as_they_are, in_words, looks
from experiments.evaluation.section import Evaluation
from experiments.evaluation.wording import worded
from experiments.pictures.sheets import GREY, Drawing
from mlvae_jax.model.model import Model

_LINES = ('-', ':', '--')  # By number of shots, the most first.
_VARIANCE_CAPTION = (
    'the variance of the code that a group shares, averaged over dimensions, '
    'against the number k of its images whose evidence is accumulated; bars '
    'are standard errors over sets of images. Dashed: the variance at k = 1 '
    'divided by k, as for images with equal amounts of evidence.')
_RELIABILITY_CAPTION = (
    'reliability. A few images of each of some groups are given (the shots), '
    'and other images are assigned to the most probable of these groups. The '
    'curves show how often the group is right, against its probability, in ten '
    'bins; larger markers stand for more images. On the dashed line the '
    'probabilities are right; below it they are too high.')


def draw_uncertainty(evaluation: Evaluation, model: Model) -> Drawing | None:
  """Draws variance by evidence on the left, reliability on the right.

  Args:
    evaluation: content of evaluation.json.
    model: model whose factors have the colours of other charts.

  Returns:
    The chart of those of the two that were measured; None for neither.
  """
  variance, bins = (
      evaluation.get(name) or [] for name in ('variance', 'reliability'))
  if not variance and not bins:
    return None
  codes = list(dict.fromkeys(row['code'] for row in [*variance, *bins]))
  styles = looks(codes, model)
  count = bool(variance) + bool(bins)
  figure = Figure(figsize=(3.4 * count, 2.9), layout='constrained')
  axes, captions = figure.subplots(1, count, squeeze=False)[0], []
  handles = [Line2D([], [], label=in_words(code, 22), **styles[code])
             for code in codes]
  if variance:
    _draw_variance(axes[0], variance, styles)
    axes[0].set_xlabel(worded(model, 'k, images of evidence'))
    captions.append(_VARIANCE_CAPTION)
  if bins:
    handles += _draw_reliability(axes[-1], bins, styles)
    captions.append(_RELIABILITY_CAPTION)
  handles.append(Line2D([], [], label='reference', **CHANCE))
  as_they_are(figure.legend(
      handles=handles, loc='outside lower center', ncols=4))
  return Drawing(figure, ' '.join(['How certain codes are.', *(
      f'{side}: {caption}' if count > 1 else
      caption[0].upper() + caption[1:]
      for side, caption in zip(('Left', 'Right'), captions))]))


def _draw_variance(ax: Axes, rows: list[dict[str, Any]],
                   styles: dict[str, dict]) -> None:
  """Draws the variance of each code against k, on logarithmic axes."""
  ks = sorted({row['k'] for row in rows})
  for code, look in styles.items():
    found = sorted((row for row in rows if row['code'] == code),
                   key=lambda row: row['k'])
    if not found:
      continue
    k, variance = (np.array([row[key] for row in found], float)
                   for key in ('k', 'variance'))
    ax.plot(k, variance[0] * k[0] / k, **CHANCE)
    ax.errorbar(k, variance, [row['standard_error'] or 0 for row in found],
                elinewidth=0.8, **look)
  ax.set(title='Variance', ylabel='mean variance of the code', xscale='log',
         yscale='log')
  ax.set_xticks(ks, map(str, ks))
  ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
  ax.yaxis.set_major_formatter(StrMethodFormatter('{x:g}'))
  for axis in (ax.xaxis, ax.yaxis):
    axis.set_minor_locator(NullLocator())


def _draw_reliability(ax: Axes, rows: list[dict[str, Any]],
                      styles: dict[str, dict]) -> list[Line2D]:
  """Draws accuracy against confidence; returns handles of the shots."""
  ax.plot([0, 100], [0, 100], **CHANCE)
  shots = sorted({row['shots'] for row in rows}, reverse=True)
  lines = dict(zip(shots, _LINES))
  for code, look in styles.items():
    for number, line in lines.items():
      found = [row for row in rows
               if (row['code'], row['shots']) == (code, number)]
      if not found:
        continue
      confidence, accuracy, count = (
          np.array([row[key] for row in found], float)
          for key in ('confidence', 'accuracy', 'count'))
      ax.plot(100 * confidence, 100 * accuracy, color=look['color'],
              linestyle=line, linewidth=1.2)
      ax.scatter(100 * confidence, 100 * accuracy, linewidths=0, zorder=3,
                 s=4 + 60 * count / count.sum(), color=look['color'])
  ax.set(title='Reliability', xlabel='probability of the group (%)',
         ylabel='how often it is right (%)', xlim=(-2, 102), ylim=(-2, 102))
  return [Line2D([], [], color=GREY, linestyle=line,
                 label='1 shot' if number == 1 else f'{number} shots')
          for number, line in lines.items()]
