"""What codes are called in rows, and how tables and charts show them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import itertools
from typing import Any

from matplotlib.legend import Legend

from experiments.pictures.sheets import COLOURS, GREY, shortened
from mlvae_jax.model.model import Model

CHANCE = {'color': GREY, 'linestyle': '--', 'linewidth': 0.9}
_MARKERS = 'osD^vPX'


def untrained(code: str) -> str:
  """The name of a code where the encoder is untrained."""
  return f'untrained_{code}'


def accumulated(code: str) -> str:
  """The name of an ungrouped code that is accumulated as if grouped."""
  return f'{code}_accumulated'


def in_words(code: str, width: int | None = None) -> str:
  """A code's name as text, shortened to fit `width` characters."""
  name = code.replace('_', ' ')
  return name if width is None else shortened(name, width)


def by_code(rows: Iterable[Mapping[str, Any]], key: str, column: str
            ) -> dict[tuple[str, str], dict[Any, float]]:
  """A number of a section's rows: {(code, source): {column: number}}.

  Args:
    rows: rows of probes; those of one label where the column is 'k'.
    key: key of the number.
    column: the key whose values are the columns, 'k' or 'label'.

  Returns:
    The numbers, in the order of the rows.
  """
  table = {}
  for row in rows:
    table.setdefault((row['code'], row['source']), {})[row[column]] = row[key]
  return table


def chance_by(rows: Iterable[Mapping[str, Any]], column: str
              ) -> dict[Any, float]:
  """Chance in each column, in [0, 1]; as `by_code`."""
  return {row[column]: row['chance'] for row in rows}


def looks(codes: Sequence[str], model: Model) -> dict[str, dict[str, Any]]:
  """How to plot each code: controls thin, in the colour of their factor.

  Args:
    codes: names of the codes, in an order that settles
      markers and the controls' own colours.
    model: its factors are drawn thick.

  Returns:
    Keywords of `Axes.plot` by code.
  """
  names = [f.name for f in model.factors]
  colours = dict(zip(names, COLOURS))
  spare = itertools.cycle(COLOURS[len(names):] or COLOURS)
  found = {}
  for code, marker in zip(dict.fromkeys(codes), itertools.cycle(_MARKERS)):
    factor = next((n for n in names if n in code.split('_')), None)
    own = code in names
    found[code] = {
        'color': colours[factor] if factor else next(spare),
        'marker': marker, 'markersize': 3, 'linewidth': 1.6 if own else 0.8,
        'markerfacecolor': None if own else 'white', 'markeredgewidth': 0.8,
        'zorder': 3 if own else 2}
  return found


def as_they_are(legend: Legend) -> None:
  """Shows the names in a legend without reading them as TeX."""
  for text in legend.get_texts():
    text.set_parse_math(False)
