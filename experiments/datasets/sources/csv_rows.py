"""Rows of a CSV file, each of one line, and the header that names columns."""

from __future__ import annotations

import csv

from experiments.cli import UserError
from experiments.datasets.sources import records
from experiments.datasets.sources.records import Line

PATH = 'path'  # The column of paths; all others are groupings.
# The packed store names files after groupings, and file systems have limits.
_MAX_NAME_BYTES = 200


def columns_of(line: Line) -> list[str]:
  """The columns that a first line names; a ValueError if it is not CSV."""
  if line.text is None:
    raise ValueError(records.TOO_LONG)
  # Spreadsheets put a byte order mark before the first name.
  return [name.strip()
          for name in split(line.text.removeprefix(b'\xef\xbb\xbf'))]


def split(text: bytes) -> list[str]:
  """The fields of a line; a ValueError if it is not a row of CSV."""
  text = text.rstrip(b'\r\n')
  try:
    return next(csv.reader([text.decode()], strict=True))
  except UnicodeDecodeError:
    raise ValueError('is not UTF-8') from None
  except csv.Error as error:
    why = str(error)
    if b'\r' in text:
      why = ('lines end in a bare carriage return, so convert them, as in: '
             r"tr '\r' '\n' < OLD.csv > NEW.csv")
    elif 'unexpected end' in why:
      why = 'a quoted field does not end in its line'
    raise ValueError(f'is not a row of CSV: {why}') from None


def read_header(path: str) -> tuple[list[str], tuple[int, int]]:
  """The columns, and the start of the rows: byte, and number of the line."""
  try:
    line = next(records.read_lines(path), None)
  except OSError as error:
    raise UserError(f'cannot read {path}: {error.strerror}') from error
  if line is None:
    raise UserError(f'{path} is empty; expected a header: path,GROUPING,...')
  try:
    columns = columns_of(line)
  except ValueError as error:
    raise UserError(
        f'the header of {path}: {error}; save it as CSV in UTF-8, with a '
        'line for each row') from error
  _check_header(path, columns)
  return columns, (line.end, line.number)


def _check_header(path: str, columns: list[str]) -> None:
  found = f'found {", ".join(columns)[:200]!r}'
  if PATH not in columns:
    raise UserError(
        f'{path} has no column {PATH}; its first line names the columns: '
        f'path,GROUPING,..., separated by commas; {found}')
  # Groupings become names of files, and some file systems ignore case.
  lower = [name.casefold() for name in columns]
  for name in columns:
    if not name.isidentifier() or len(name.encode()) > _MAX_NAME_BYTES:
      raise UserError(
          f'{path} has a column {name[:100]!r}; expected a name of letters, '
          'digits and underscores that does not start with a digit')
    if lower.count(name.casefold()) > 1:
      raise UserError(
          f'{path} has two columns {name!r}; rename or remove one')
  if len(columns) == 1:
    raise UserError(
        f'{path} has no column but {PATH}; add one for every grouping, with '
        'the name of each image\'s group')
