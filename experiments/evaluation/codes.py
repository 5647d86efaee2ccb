"""The names of codes in rows, and rows as tables of codes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def untrained(code: str) -> str:
  """The name of a code from an untrained encoder."""
  return f'untrained_{code}'


def accumulated(code: str) -> str:
  """The name of an ungrouped code that is accumulated as if grouped."""
  return f'{code}_accumulated'


def by_code(rows: Iterable[Mapping[str, Any]], key: str, column: str
            ) -> dict[tuple[str, str], dict[Any, float]]:
  """One number of each row, as {(code, source): {column: number}}.

  Args:
    rows: rows of probes; if the column is 'k', rows of a single label.
    key: key of the number.
    column: key whose values are the columns, 'k' or 'label'.

  Returns:
    The numbers, in the order of the rows.
  """
  table = {}
  for row in rows:
    table.setdefault((row['code'], row['source']), {})[row[column]] = row[key]
  return table


def chance_by(rows: Iterable[Mapping[str, Any]], column: str
              ) -> dict[Any, float]:
  """Chance in [0, 1] by column; `rows` and `column` as in `by_code`."""
  # Chance depends on the images alone, so any row of a column will do.
  return {row[column]: row['chance'] for row in rows}
