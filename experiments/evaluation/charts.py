"""Charts of a run's numbers: evaluation.json and metrics.jsonl."""

from __future__ import annotations

from collections.abc import Sequence
import itertools
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
import numpy as np

from experiments.evaluation.results import read_evaluation
from experiments.evaluation.tables import by_label
from experiments.pictures.sheets import BLUE, COLOURS, GREY, RED, Drawing
from experiments.runs.log import read_metrics
from mlvae_jax.model.factors import Factor
from mlvae_jax.model.model import Model

_MARKERS = 'osD^vPX'
_SOURCES = {'mean': '-', 'sample': ':'}
_CHANCE = {'color': GREY, 'linestyle': '--', 'linewidth': 0.9}
_EVIDENCE_CAPTION = (
    'What a classifier predicts from each code, against the number k of images '
    'of a label whose evidence is accumulated (strategy 2; strategy 1 where k '
    'is 1). Left: its test accuracy. Right: '
    'its test cross-entropy, an upper bound on the conditional entropy of the'
    ' label. Solid lines: posterior means; dotted lines: samples. Where a '
    'model separates its factors, those that groups share predict the label, '
    'and the others do no better than chance. Thin lines are controls.')
_CURVES_CAPTION = (
    'Training. Left: the ELBO per image, a lower bound on the log density of '
    'an image; higher is better, and a validation curve that falls while '
    'training rises means overfitting. Middle: what a code costs, once per '
    'group for a factor that groups share, else once per image; near zero, '
    'the factor is not used. Dashed lines: validation images. Right: '
    'throughput. The axes leave out the extremes of the first steps.')


def draw_evidence(workdir: str, model: Model) -> Drawing | None:
  """Fig. 6c: what probes read off each code, against k."""
  evaluation = read_evaluation(workdir)
  labels = by_label(evaluation)
  if not labels:
    return None
  looks = code_looks([row['code'] for row in evaluation['probes']], model)
  figure = Figure(figsize=(7.2, 0.3 + 2.6 * len(labels)), layout='constrained')
  axes = figure.subplots(len(labels), 2, squeeze=False)
  for (label, rows), pair in zip(labels.items(), axes):
    _draw_probes(pair, rows, looks, f' of {label}' if len(labels) > 1 else '')
  legend = figure.legend(handles=[
      *(Line2D([], [], label=code.replace('_', ' '), **look)
        for code, look in looks.items()),
      Line2D([], [], label='chance', **_CHANCE),
      *(Line2D([], [], label=f'posterior {source}', color=GREY, linestyle=line)
        for source, line in _SOURCES.items())], loc='outside right center')
  for text in legend.get_texts():
    text.set_parse_math(False)
  return Drawing(figure, _EVIDENCE_CAPTION)


def _draw_probes(axes: Sequence[Axes], rows: list[dict[str, Any]],
                 looks: dict[str, dict], of_label: str) -> None:
  """Draws accuracy and conditional entropy of one label against k."""
  for ax, key, scale in zip(axes, ('accuracy', 'conditional_entropy'),
                            (100, 1)):
    for (code, look), source in itertools.product(looks.items(), _SOURCES):
      found = sorted((row['k'], scale * row[key]) for row in rows
                     if (row['code'], row['source']) == (code, source))
      ax.plot(*zip(*found), linestyle=_SOURCES[source], **look)
    ax.set_xlabel('k, images of evidence')
    ax.xaxis.set_major_locator(MaxNLocator(10, integer=True))
  chance = dict(sorted((row['k'], 100 * row['chance']) for row in rows))
  axes[0].plot(chance.keys(), chance.values(), **_CHANCE)
  axes[0].set_title(f'Accuracy{of_label}', parse_math=False)
  axes[0].set(ylabel='test accuracy (%)', ylim=(-2, 102))
  axes[1].set_title(f'Conditional entropy{of_label}', parse_math=False)
  axes[1].set(ylabel='nats')
  axes[1].set_ylim(bottom=0)


def code_looks(codes: Sequence[str], model: Model) -> dict[str, dict]:
  """How to plot each code: controls thin, in the colour of their factor.

  Args:
    codes: in an order that settles markers and the controls' own colours.
    model: its factors are drawn thick.

  Returns:
    Keywords of `Axes.plot` by code.
  """
  names = [f.name for f in model.factors]
  colours = dict(zip(names, COLOURS))
  spare = itertools.cycle(COLOURS[len(names):] or COLOURS)
  looks = {}
  for code, marker in zip(dict.fromkeys(codes), itertools.cycle(_MARKERS)):
    factor = next((n for n in names if n in code.split('_')), None)
    own = code in names
    looks[code] = {
        'color': colours[factor] if factor else next(spare),
        'marker': marker, 'markersize': 3, 'linewidth': 1.6 if own else 0.8,
        'markerfacecolor': None if own else 'white', 'markeredgewidth': 0.8,
        'zorder': 3 if own else 2}
  return looks


def draw_curves(workdir: str, model: Model) -> Drawing | None:
  """ELBO, KL and speed over the steps of training."""
  records = read_metrics(workdir)
  if not records:
    return None
  figure = Figure(figsize=(7.2, 2.3), layout='constrained')
  elbo, kl, speed = figure.subplots(1, 3)
  for split, colour, dashes in (
      ('train', BLUE, '-'), ('validation', RED, '--')):
    found = [r for r in records if r['split'] == split]
    _plot(elbo, found, [r['elbo_per_image'] for r in found], label=split,
          color=colour, linestyle=dashes)
    for factor, look in zip(model.factors, COLOURS):
      _plot(kl, found, [_kl_per_code(r, factor) for r in found], color=look,
            linestyle=dashes, label=factor.name if split == 'train' else None)
  kl.plot([], [], color=GREY, linestyle='--', label='validation')
  fast = [r for r in records if 'images_per_second' in r]
  rates = [r['images_per_second'] for r in fast]
  _plot(speed, fast, rates, color=BLUE)
  if rates:
    median = float(np.median(rates))
    speed.axhline(median, label=f'median {median:,.0f}', **_CHANCE)
  elbo.set(title='ELBO', ylabel='nats per image')
  kl.set(title='KL divergence', ylabel='nats per code')
  speed.set(title='Speed', ylabel='images per second')
  for ax in (elbo, kl, speed):
    _limit(ax, from_zero=ax is not elbo)
    ax.set_xlabel('step')
    ax.xaxis.set_major_locator(
        MaxNLocator(4, steps=[1, 2, 5, 10], integer=True))
    ax.xaxis.set_major_formatter(StrMethodFormatter('{x:,.0f}'))
    ax.yaxis.set_major_formatter(StrMethodFormatter('{x:,.6g}'))
    ax.legend()
  # Room above the curves for the names of many factors.
  kl.set_ylim(top=1.4 * kl.get_ylim()[1])
  kl.legend(loc='upper center', ncols=2, columnspacing=1)
  return Drawing(figure, _CURVES_CAPTION)


def _kl_per_code(record: dict[str, Any], factor: Factor) -> float:
  """The KL of one code of a factor; the log has it per group."""
  kl = record['kl'][factor.name]
  if factor.grouping is not None or not record['elbo']:
    return kl
  return kl * record['elbo_per_image'] / record['elbo']


def _plot(ax: Axes, records: list[dict[str, Any]], values: list[float],
          **look: Any) -> None:
  """Plots values against the records' steps, a few of them as points."""
  ax.plot([r['step'] for r in records], values, markersize=3,
          marker='o' if len(records) < 5 else None,
          markerfacecolor='white' if look.get('linestyle') == '--' else None,
          **look)


def _limit(ax: Axes, *, from_zero: bool) -> None:
  """Fits the y axis to the curves without their first tenth and outliers."""
  tails = []
  for line in ax.get_lines():
    values = np.asarray(line.get_ydata(), float)
    tails.append(values[len(values) // 10:])
  values = np.concatenate(tails)
  values = values[np.isfinite(values)]
  if not values.size:
    return
  low, high = np.percentile(values, [1, 99])
  pad = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
  ax.set_ylim(0 if from_zero else low - pad, high + pad)
