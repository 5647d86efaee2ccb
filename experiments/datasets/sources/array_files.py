"""Arrays with labels in one file: .npz, .npy with a .csv next to it, .h5ad.

  FILE.npz    x [N, ...], and labels [N] in every other array; vocabulary [K],
              if it is there, has the names of tokens
  FILE.npy    x [N, ...], mapped into memory; FILE.csv has the labels, a column
              for each grouping and a line for each row
  FILE.h5ad   AnnData: X, dense or CSR, and the categorical columns of obs

Labels called `row_names` are not a grouping, but name the rows; in .h5ad these
are the names of the observations. Nothing is unpickled.
"""

from __future__ import annotations

import csv
import os
from typing import NamedTuple
import zipfile

import numpy as np

from experiments.cli import UserError

X, ROW_NAMES, VOCABULARY = 'x', 'row_names', 'vocabulary'
ENDINGS = ('.npz', '.npy', '.h5ad')


class Table(NamedTuple):
  """Observations, and what is known of each.

  Attributes:
    x: `[N, ...]` numbers; may be a file mapped into memory.
    labels: `[N]` strings, integers or booleans by grouping; '' and -1 are
      unknown.
    row_names: `[N]` UTF-8 bytes, or None.
    vocabulary: names of the tokens 0, 1, ..., or None.
  """

  x: np.ndarray
  labels: dict[str, np.ndarray]
  row_names: np.ndarray | None
  vocabulary: tuple[str, ...] | None = None


def read(path: str) -> Table:
  """Reads a file, and checks that it makes a table.

  Args:
    path: path of a file with one of the `ENDINGS`.

  Returns:
    The table, with at least one grouping.

  Raises:
    UserError: when the file is missing or broken, or its arrays do not fit
      each other.
  """
  if not os.path.isfile(path):
    raise UserError(
        f'{path} is not a file; point --data_dir at one that ends in '
        + ', '.join(ENDINGS))
  ending = os.path.splitext(path)[1].lower()
  vocabulary = None
  if ending == '.npz':
    x, labels = _read_npz(path)
    vocabulary = labels.pop(VOCABULARY, None)
  elif ending == '.npy':
    x, labels = _read_npy(path)
  elif ending == '.h5ad':
    from experiments.datasets.sources import h5ad  # Needs h5py.
    x, labels, names = h5ad.read(path)
    labels[ROW_NAMES] = names
  else:
    raise UserError(f'{path} does not end in {", ".join(ENDINGS)}')
  _check_x(path, x)
  if vocabulary is not None:
    _check_vocabulary(path, vocabulary, x)
    vocabulary = tuple(map(str, vocabulary.tolist()))
  for name, values in labels.items():
    _check_labels(path, name, values, len(x))
  row_names = labels.pop(ROW_NAMES, None)
  if not labels:
    raise UserError(
        f'{path} has no labels; add an array of {len(x)} labels, one per row '
        'of x (in .csv a column), with the name of a grouping')
  return Table(x, labels, None if row_names is None else np.array(
      [str(name).encode('utf-8', 'replace') for name in row_names], 'S'),
               vocabulary)


def _read_npz(path: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  try:
    with np.load(path, allow_pickle=False) as file:
      arrays = {name: _member(path, file, name) for name in file.files}
  except (zipfile.BadZipFile, ValueError, EOFError, KeyError) as error:
    raise UserError(f'{path} is not a readable .npz: {error}') from error
  if X not in arrays:
    raise UserError(
        f'{path} has no array {X!r} of observations, only '
        f'{", ".join(arrays) or "nothing"}; save it as '
        'numpy.savez(FILE, x=..., label=...)')
  return arrays.pop(X), arrays


def _member(path: str, file: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
  """An array of an .npz; a UserError where it would have to be unpickled."""
  try:
    return file[name]
  except ValueError as error:
    if 'allow_pickle' not in str(error):
      raise
    raise UserError(
        f'{path}: the array {name!r} is of Python objects, which are not '
        'loaded because that could run code; save labels as '
        'numpy.array(labels, str), and observations as numbers') from error


def _read_npy(path: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  labels = os.path.splitext(path)[0] + '.csv'
  if not os.path.isfile(labels):
    raise UserError(
        f'{path} has no labels; write them to {labels}, with the names of the '
        'groupings in the first line, and a line for each row')
  try:
    x = np.load(path, mmap_mode='r', allow_pickle=False)
  except (ValueError, EOFError) as error:
    raise UserError(f'{path} is not a readable .npy: {error}') from error
  return x, _read_csv(labels)


def _read_csv(path: str) -> dict[str, np.ndarray]:
  """The columns of a .csv by the names in its first line."""
  try:
    with open(path, encoding='utf-8-sig', newline='') as file:
      reader = csv.reader(file, strict=True)
      names = [name.strip() for name in next(reader, [])]
      if '' in names or len(set(names)) < len(names) or not names:
        raise UserError(
            f'{path}: expected a different name for each column in the first '
            f'line, got {",".join(names)!r}; with pandas, write it by '
            'to_csv(..., index=False)')
      rows = []
      for row in reader:
        if len(row) != len(names) and row:
          raise UserError(
              f'{path}, line {reader.line_num}: expected {len(names)} cells, '
              f'got {len(row)}')
        # A line of nothing is an empty cell if there is a single column.
        if row or len(names) == 1:
          rows.append([cell.strip() for cell in row or ['']])
  except (UnicodeDecodeError, csv.Error) as error:
    raise UserError(f'{path} is not CSV in UTF-8: {error}') from error
  columns = np.array(rows, str).reshape(len(rows), len(names)).T
  return dict(zip(names, columns))


def _check_x(path: str, x: np.ndarray) -> None:
  if x.ndim < 2 or x.dtype.kind not in 'biuf' or not x.size:
    raise UserError(
        f'{path}: expected observations of [N, ...] numbers, got {x.dtype} of '
        f'{list(x.shape)}')


def _check_vocabulary(path: str, names: np.ndarray, x: np.ndarray) -> None:
  if names.ndim != 1 or names.dtype.kind != 'U':
    raise UserError(
        f'{path}: expected {VOCABULARY!r} as a list of strings, got '
        f'{names.dtype} of {list(names.shape)}')
  if x.dtype.kind not in 'iu' or x.max() >= len(names):
    raise UserError(
        f'{path}: {VOCABULARY!r} names {len(names)} tokens, so x should be '
        f'integers below {len(names)}, got {x.dtype} up to {x.max()}')


def _check_labels(path: str, name: str, values: np.ndarray, num_rows: int
                  ) -> None:
  if values.shape != (num_rows,):
    raise UserError(
        f'{path}: expected {num_rows} labels in {name!r}, one per row of x, '
        f'got {list(values.shape)}; leave out arrays that are not labels')
  if values.dtype.kind not in 'iubUS':
    raise UserError(
        f'{path}: labels are integers or strings, but {name!r} has the type '
        f'{values.dtype}; convert it, or leave it out')
