"""The chart of the recognition of groups never seen in training."""

from __future__ import annotations

import math
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MultipleLocator, NullLocator

from experiments.evaluation.looks import CHANCE, as_they_are, in_words, looks
from experiments.evaluation.recognition.galleries import (
    FUSED,
    NEAREST,
    POSTERIOR,
    USUAL,
    Gallery,
    of_size,
    ways_of,
)
from experiments.evaluation.recognition.rows import by_score
from experiments.evaluation.section import Evaluation
from experiments.evaluation.wording import worded
from experiments.pictures.sheets import GREY, Drawing
from mlvae_jax.model.model import Model

_WIDTH = 22  # Characters of a code's name.
_LINES = {FUSED: '-', NEAREST: ':', POSTERIOR: '-.'}
_LABELS = {FUSED: 'shots fused', NEAREST: 'single shots',
           POSTERIOR: 'by posterior'}
_COSINE = {'markersize': 3.5}
# A ring, which stays visible around the other marker if both coincide.
_EVIDENCE = {'markersize': 7, 'markerfacecolor': 'none'}
_FEW_SHOT_CAPTION = (
    'few-shot recognition. A few images of each of {ways} groups are given '
    '(the shots), and other images are assigned to the group with the most '
    'similar code; the curves show how many are assigned correctly. Solid '
    'lines, strategy 2: the shots of a group are fused into one code; dotted '
    'lines, strategy 1: the nearest single shot decides{posterior}.')
_BY_POSTERIOR = (
    '; dash-dotted lines: an image is assigned to the group under whose '
    'posterior, given its shots, it is most likely')
_VERIFICATION_CAPTION = (
    'verification, whether two images, each encoded alone (strategy 1), show '
    'the same group. The area under the ROC curve (AUC) is the frequency with '
    'which a pair from one group is scored above a pair from two groups; 1 is '
    'perfect. Filled markers: the score is the cosine of the means; hollow '
    'markers: the ratio of the evidence for one shared code to that for two.')
_CLOSING = (
    'Dashed lines: chance. If a model separates its factors, those that groups '
    'share are high, above the controls, and the others are near chance. Thin '
    'lines are controls.')


def draw_recognition(evaluation: Evaluation, model: Model) -> Drawing | None:
  """Draws few-shot recognition on the left, verification on the right.

  Args:
    evaluation: content of evaluation.json.
    model: model whose factors look as in the chart of probes.

  Returns:
    The chart of those of the two that were measured; None for neither.
  """
  few, pairs = (
      evaluation.get(name) or [] for name in ('few_shot', 'verification'))
  if not few and not pairs:
    return None
  codes = dict.fromkeys(row['code'] for row in [*pairs, *few])
  styles = looks(  # The codes of probes come first: they determine colours.
      [row['code'] for row in evaluation.get('probes') or []] + list(codes),
      model)
  styles = {code: styles[code] for code in codes}
  count = bool(few) + bool(pairs)
  figure = Figure(figsize=(3.6 * count, 3.2), layout='constrained')
  figure.get_layout_engine().set(wspace=0.06)
  axes, captions = figure.subplots(1, count, squeeze=False)[0], []
  if few:
    captions.append(_draw_few_shot(axes[0], few, styles))
    axes[0].set_xlabel(worded(model, 'shots, images given of each group'))
  if pairs:
    captions.append(_draw_verification(axes[-1], pairs, styles))
  methods = {method for _, method in of_size(few, USUAL)}
  _add_legend(figure, styles, methods, pairs=bool(pairs))
  return Drawing(figure, ' '.join([
      'Recognition of groups never seen in training.',
      *(f'{side}: {caption}' if count > 1 else
        caption[0].upper() + caption[1:]
        for side, caption in zip(('Left', 'Right'), captions)), _CLOSING]))


def _draw_few_shot(ax: Axes, rows: list[dict[str, Any]],
                   styles: dict[str, dict]) -> str:
  """Draws accuracy against shots for the fewest groups; returns the caption."""
  table = of_size(rows, USUAL)
  for (code, method), found in table.items():
    _plot(ax, found, 'accuracy', linestyle=_LINES[method], **styles[code])
  # The same for all codes; some code has every number of shots.
  chance = {row['shots']: row for found in table.values()
            for row in found.values()}
  _plot(ax, chance, 'chance', **CHANCE)
  ways, shots = ways_of(*table.values()), sorted(chance)
  ax.set(title=f'Few-shot: one of {ways} groups', xscale='log',
         ylabel='accuracy (%)', ylim=(-2, 102))
  ax.set_xticks(shots, map(str, shots))
  ax.xaxis.set_minor_locator(NullLocator())
  return _FEW_SHOT_CAPTION.format(
      ways=ways, posterior=_BY_POSTERIOR if any(
          method == POSTERIOR for _, method in table) else '')


def _plot(ax: Axes, found: Gallery, key: str, **look: Any) -> None:
  """Plots a number in % against shots; None and NaN leave gaps."""
  shots = sorted(found)
  values = [found[n][key] for n in shots]
  ax.plot(shots, [math.nan if v is None else 100 * v for v in values], **look)


def _draw_verification(ax: Axes, rows: list[dict[str, Any]],
                       styles: dict[str, dict]) -> str:
  """Draws the AUC of each code on a line of its own; returns the caption."""
  values = by_score(rows, 'auc')
  codes = list(dict.fromkeys(row['code'] for row in rows))
  ax.axvline(0.5, **CHANCE)
  for place, code in enumerate(codes):
    look = styles[code]
    cosine = values.get((code, 'cosine'), math.nan)
    ax.plot([0.5, cosine], [place] * 2, color=look['color'],
            linewidth=look['linewidth'])
    ax.plot(cosine, place, **look | _COSINE | {
        'markerfacecolor': look['color']})
    ax.plot(values.get((code, 'evidence_ratio'), math.nan), place,
            **look | _EVIDENCE)
  ax.set(title='Verification', xlabel='area under the ROC curve',
         xlim=(min([0.45, *(v - 0.03 for v in values.values())]), 1.02),
         ylim=(len(codes) - 0.5, -0.5))
  ax.set_yticks(range(len(codes)),
                [in_words(code, _WIDTH) for code in codes], parse_math=False)
  ax.xaxis.set_major_locator(MultipleLocator(0.1))
  ax.grid(axis='x')
  ax.grid(False, axis='y')
  return _VERIFICATION_CAPTION


def _add_legend(figure: Figure, styles: dict[str, dict], methods: set[str], *,
                pairs: bool) -> None:
  """Adds a legend of colours, lines and markers below the axes."""
  handles = [Line2D([], [], label=in_words(code, _WIDTH), **look)
             for code, look in styles.items()]
  rows = max(2, math.ceil(len(handles) / (3 if methods and pairs else 2)))
  # Legends fill column by column: blanks make the next entries start a new one.
  while len(handles) % rows:
    handles.append(Line2D([], [], label=' ', linestyle=''))
  handles += [
      Line2D([], [], label=_LABELS[method], color=GREY,
             linestyle=_LINES[method])
      for method in (FUSED, NEAREST, POSTERIOR) if method in methods]
  if pairs:
    handles += [
        Line2D([], [], label=label, color=GREY, linestyle='', marker='o',
               **look) for label, look in (
                   ('cosine', _COSINE), ('evidence ratio', _EVIDENCE))]
  handles.append(Line2D([], [], label='chance', **CHANCE))
  legend = figure.legend(handles=handles, loc='outside lower center',
                         ncols=math.ceil(len(handles) / rows))
  as_they_are(legend)
