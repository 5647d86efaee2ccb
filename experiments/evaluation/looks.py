"""The look of codes and of chance in every chart."""

from __future__ import annotations

from collections.abc import Sequence
import itertools
from typing import Any

from matplotlib.legend import Legend

from experiments.pictures.sheets import COLOURS, GREY, shortened
from mlvae_jax.model.model import Model

CHANCE = {'color': GREY, 'linestyle': '--', 'linewidth': 0.9}
_MARKERS = 'osD^vPX'


def in_words(code: str, width: int | None = None) -> str:
  """The name of a code as text, shortened to fit `width` characters."""
  name = code.replace('_', ' ')
  return name if width is None else shortened(name, width)


def looks(codes: Sequence[str], model: Model) -> dict[str, dict[str, Any]]:
  """The style of each code: controls are thin, in the colour of their factor.

  Args:
    codes: names of the codes. Their order determines markers, and the colours
      of controls that belong to no factor.
    model: model whose factors are drawn thick.

  Returns:
    Keyword arguments of `Axes.plot` by code.
  """
  names = [f.name for f in model.factors]
  colours = dict(zip(names, COLOURS))
  spare = itertools.cycle(COLOURS[len(names):] or COLOURS)
  found = {}
  for code, marker in zip(dict.fromkeys(codes), itertools.cycle(_MARKERS)):
    # Controls are named after their factor: untrained_style.
    factor = next((n for n in names if n in code.split('_')), None)
    own = code in names
    found[code] = {
        'color': colours[factor] if factor else next(spare),
        'marker': marker, 'markersize': 3, 'linewidth': 1.6 if own else 0.8,
        'markerfacecolor': None if own else 'white', 'markeredgewidth': 0.8,
        'zorder': 3 if own else 2}
  return found


def as_they_are(legend: Legend) -> None:
  """Shows the names in a legend literally, not as TeX."""
  for text in legend.get_texts():
    text.set_parse_math(False)
