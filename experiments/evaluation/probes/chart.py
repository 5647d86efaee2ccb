"""The chart of the probes of each code (fig. 6c)."""

from __future__ import annotations

from collections.abc import Sequence
import itertools
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from experiments.evaluation.codes import chance_by
from experiments.evaluation.looks import CHANCE, as_they_are, in_words, looks
from experiments.evaluation.probes.rows import by_label
from experiments.evaluation.section import Evaluation
from experiments.evaluation.wording import worded
from experiments.pictures.sheets import GREY, Drawing
from mlvae_jax.model.model import Model

_SOURCES = {'mean': '-', 'sample': ':'}
_EVIDENCE_CAPTION = (
    'Prediction of the label from each code, against the number k of images of '
    'a label whose evidence is accumulated (strategy 2; for k = 1 strategy 1). '
    'Left: test accuracy of a classifier. Right: its test cross-entropy, an '
    'upper bound on the conditional entropy of the label. Solid lines: '
    'posterior means; dotted lines: samples. If a model separates its factors, '
    'those that groups share predict the label, and the others do no better '
    'than chance. Thin lines are controls.')


def draw_evidence(evaluation: Evaluation, model: Model) -> Drawing | None:
  """Fig. 6c: scores of the probes of each code, against k.

  Args:
    evaluation: content of evaluation.json.
    model: model whose factors are drawn thick.

  Returns:
    The chart of "probes"; None if there are no rows.
  """
  labels = by_label(evaluation)
  if not labels:
    return None
  styles = looks([row['code'] for row in evaluation['probes']], model)
  figure = Figure(figsize=(7.2, 0.3 + 2.6 * len(labels)), layout='constrained')
  axes = figure.subplots(len(labels), 2, squeeze=False)
  for (label, rows), pair in zip(labels.items(), axes):
    _draw_probes(pair, rows, styles, f' of {label}' if len(labels) > 1 else '')
    for ax in pair:
      ax.set_xlabel(worded(model, 'k, images of evidence'))
  # One legend for all axes. Its lines are empty: an axis may lack a code.
  legend = figure.legend(handles=[
      *(Line2D([], [], label=in_words(code), **look)
        for code, look in styles.items()),
      Line2D([], [], label='chance', **CHANCE),
      *(Line2D([], [], label=f'posterior {source}', color=GREY, linestyle=line)
        for source, line in _SOURCES.items())], loc='outside right center')
  as_they_are(legend)
  return Drawing(figure, _EVIDENCE_CAPTION)


def _draw_probes(axes: Sequence[Axes], rows: list[dict[str, Any]],
                 styles: dict[str, dict], of_label: str) -> None:
  """Draws accuracy and conditional entropy of one label against k."""
  for ax, key, scale in zip(axes, ('accuracy', 'conditional_entropy'),
                            (100, 1)):
    for (code, look), source in itertools.product(styles.items(), _SOURCES):
      found = sorted((row['k'], scale * row[key]) for row in rows
                     if (row['code'], row['source']) == (code, source))
      ax.plot(*zip(*found), linestyle=_SOURCES[source], **look)
    ax.xaxis.set_major_locator(MaxNLocator(10, integer=True))
  chance = sorted(chance_by(rows, 'k').items())
  axes[0].plot(*zip(*((k, 100 * value) for k, value in chance)), **CHANCE)
  axes[0].set_title(f'Accuracy{of_label}', parse_math=False)
  axes[0].set(ylabel='test accuracy (%)', ylim=(-2, 102))
  axes[1].set_title(f'Conditional entropy{of_label}', parse_math=False)
  axes[1].set(ylabel='nats')
  axes[1].set_ylim(bottom=0)
