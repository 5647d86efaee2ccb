"""The chart of the course of training, from metrics.jsonl."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
import numpy as np

from experiments.evaluation.looks import CHANCE
from experiments.evaluation.wording import worded
from experiments.pictures.sheets import BLUE, COLOURS, GREY, RED, Drawing
from mlvae_jax.model.factors import Factor
from mlvae_jax.model.model import Model

_CURVES_CAPTION = (
    'Training. Left: the ELBO per image, a lower bound on the log density of '
    'an image; higher is better, and a validation curve that falls while the '
    'training curve rises means overfitting. Middle: the cost of a code, paid '
    'once per group for a factor that groups share, and otherwise once per '
    'image; a factor whose cost is near zero is not used. Dashed lines: '
    'validation images. Right: throughput. The axes leave out the extremes of '
    'the first steps.')

Records = list[dict[str, Any]]


def draw_curves(records: Records, model: Model) -> Drawing | None:
  """ELBO, KL and speed over the steps of training.

  Args:
    records: records of metrics.jsonl.
    model: model whose factors' KL is drawn.

  Returns:
    The chart; None without records.
  """
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
  # An empty line, for the legend: colours stand for factors there.
  kl.plot([], [], color=GREY, linestyle='--', label='validation')
  fast = [r for r in records if 'images_per_second' in r]
  rates = [r['images_per_second'] for r in fast]
  _plot(speed, fast, rates, color=BLUE)
  if rates:
    median = float(np.median(rates))
    speed.axhline(median, label=f'median {median:,.0f}', **CHANCE)
  elbo.set(title='ELBO', ylabel=worded(model, 'nats per image'))
  kl.set(title='KL divergence', ylabel='nats per code')
  speed.set(title='Speed', ylabel=worded(model, 'images per second'))
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
  return Drawing(figure, worded(model, _CURVES_CAPTION))


def _kl_per_code(record: dict[str, Any], factor: Factor) -> float:
  """The KL of one code of a factor; the log has it per group."""
  kl = record['kl'][factor.name]
  if factor.grouping is not None or not record['elbo']:
    return kl
  # The ratio of the two ELBOs is the number of groups per image.
  return kl * record['elbo_per_image'] / record['elbo']


def _plot(ax: Axes, records: Records, values: list[float],
          **look: Any) -> None:
  """Plots values against steps; few values get markers as well."""
  ax.plot([r['step'] for r in records], values, markersize=3,
          marker='o' if len(records) < 5 else None,
          markerfacecolor='white' if look.get('linestyle') == '--' else None,
          **look)


def _limit(ax: Axes, *, from_zero: bool) -> None:
  """Fits the y axis to the curves, without their first tenth and outliers."""
  tails = []
  for line in ax.get_lines():
    values = np.asarray(line.get_ydata(), float)
    tails.append(values[len(values) // 10:])
  values = np.concatenate(tails)
  values = values[np.isfinite(values)]
  if not values.size:
    return
  low, high = np.percentile(values, [1, 99])
  # Never 0, which would make an axis without extent.
  pad = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
  ax.set_ylim(0 if from_zero else low - pad, high + pad)
