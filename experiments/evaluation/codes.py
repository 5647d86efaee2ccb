"""What codes are called in rows, and rows as tables of codes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def untrained(code: str) -> str:
  """The name of a code where the encoder is untrained."""
  return f'untrained_{code}'


def accumulated(code: str) -> str:
  """The name of an ungrouped code that is accumulated as if grouped."""
  return f'{code}_accumulated'


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
