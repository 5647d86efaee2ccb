"""Numbers and values as text, for the tables."""

from __future__ import annotations

from typing import Any


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


def plain(value: Any) -> str:
  """A JSON value as text."""
  if value is None or value == '':
    return '–'
  if isinstance(value, bool):
    return 'yes' if value else 'no'
  if isinstance(value, list):
    return ', '.join(map(plain, value))
  return f'{value:.5g}' if isinstance(value, float) else str(value)
