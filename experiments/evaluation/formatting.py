"""Numbers, their errors and values as text, for the tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np


def number(value: float | None, digits: int, scale: float = 1,
           missing: str = '–') -> str:
  """A number as text.

  Args:
    value: number to show; None if it is missing.
    digits: number of decimals.
    scale: factor by which the number is multiplied, 100 for %.
    missing: text for None.

  Returns:
    The text, for example '1,234.5'.
  """
  return missing if value is None else f'{scale * value:,.{digits}f}'


def with_error(value: float | None, error: float | None, digits: int,
               scale: float = 1) -> str:
  """A number and its error, '1.2 ± 0.1', as `number` shows them.

  Args:
    value: number to show; None if it is missing.
    error: its standard error or margin; None if it is not known.
    digits: number of decimals of both.
    scale: factor by which both are multiplied.

  Returns:
    The text; without an error just the number.
  """
  text = number(value, digits, scale)
  return text if error is None else f'{text} ± {number(error, digits, scale)}'


def standard_error(values: np.ndarray | list[float]) -> float | None:
  """The standard error of the mean of values `[N]`; None if N < 2."""
  if len(values) < 2:
    return None
  return float(np.std(values, ddof=1) / np.sqrt(len(values)))


def terminal_row(name: str, cells: Iterable[str], width: int, column: int
                 ) -> str:
  """A line of a table in the terminal: a name, and cells to the right of it.

  Args:
    name: name of the row, which is cut to fit.
    cells: text of the cells.
    width: maximum length of a code's name; 7 characters more are for its
      source.
    column: width of each cell.

  Returns:
    The line.
  """
  return name[:width + 7].ljust(width + 7) + ''.join(
      f'{cell:>{column}}' for cell in cells)


def plain(value: Any) -> str:
  """A JSON value as text."""
  if value is None or value == '':
    return '–'
  if isinstance(value, bool):
    return 'yes' if value else 'no'
  if isinstance(value, list):
    return ', '.join(map(plain, value))
  return f'{value:.5g}' if isinstance(value, float) else str(value)
