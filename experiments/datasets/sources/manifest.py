"""Images that a CSV file names, with any number of groupings.

  path,person,light
  a/1.jpg,Ann,lamp
  a/2.jpg,Ann,
  b/1.jpg,,window

`path` is relative to the folder of the file and must stay inside it. Every
other column is a grouping with the name of the column; an image with an empty
cell is a group of its own. Quotes are those of CSV, but every row is one line,
so that a bad quote costs only one row. Spaces around a path count only where a
file has them in its name.
"""

from __future__ import annotations

import array
from collections.abc import Iterator
import functools
import itertools
import os
from typing import NamedTuple

import numpy as np

from experiments.datasets.sources import records
from experiments.datasets.sources.csv_rows import (
    PATH,
    columns_of,
    read_header,
    split,
)
from experiments.datasets.sources.records import (
    Line,
    Record,
    file_state,
    readable,
)

NAME = 'manifest.csv'


class ManifestSource:
  """A CSV file of paths and groups, read as a stream.

  The first of its `groupings` is that of a model's first factor, or the first
  column. In it, an image without a group is a group named after its path.
  """

  unit = 'image'
  has_ranks = False

  def __init__(self, path: str, sort_by: str | None = None):
    """Reads the header.

    Args:
      path: path of the file.
      sort_by: grouping to put first, if there is one of this name.

    Raises:
      UserError: when the file cannot be read, or its header cannot be used.
    """
    self._path, self._inside = path, os.path.join(os.path.dirname(path), '')
    self.notes: tuple[str, ...] = ()
    self._columns, self._start = read_header(path)
    self.groupings = names = records.sorted_by(
        [name for name in self._columns if name != PATH], sort_by)
    self._places = [self._columns.index(name) for name in (PATH, *names)]
    self.description = (
        f'images named by {readable(path)}, grouped by {", ".join(names)}')

  @property
  def total(self) -> int:
    return self._scanned.num_rows

  def fingerprint(self) -> str:
    """A hash of the size and time of the file, and of the first images."""
    rows = itertools.islice(self._rows(), records.MAX_STATED)
    return records.digest(itertools.chain(
        [self.groupings, file_state(self._path)],
        (file_state(row.path) for row in rows if row.path)))

  def records(self, position: list[int] | None = None) -> Iterator[Record]:
    # The number of paths so far says which of the repeats are still to come.
    *at, num_paths = position or (*self._start, 0)
    repeats, own_names = self._scanned.repeats, self._scanned.own_names
    next_repeat = int(np.searchsorted(repeats, num_paths))
    manifest = readable(self._path)
    for row in self._rows(*at):
      where, problem = f'{manifest}:{row.line.number}', row.problem
      if row.path:
        if problem is None:
          where = readable(row.path)
        if next_repeat < len(repeats) and repeats[next_repeat] == num_paths:
          where = f'{manifest}:{row.line.number}'
          problem = f'{self._relative(row.path)!r} is named a second time'
          next_repeat += 1
        num_paths += 1
      group, *others = row.groups or ('',)
      name = self._relative(row.path)
      if row.path and not group and hash(name) in own_names:
        where = f'{manifest}:{row.line.number}'
        problem = problem or (
            f'has no {self.groupings[0]}, and its path {name!r} is the name of '
            'another row\'s group, so rename that group')
      yield Record(
          group or name, where, 0,
          row.path if problem is None else None, problem, 1,
          [row.line.end, row.line.number, num_paths], tuple(others),
          name)

  def mend(self, where: str, problem: str) -> str:
    """Advice that names the place at which a missing image was found."""
    folder = readable(self._inside.rstrip('/'))
    if 'leads out of the folder' in problem:
      return (f'paths are relative to {folder}: move the .csv to a folder that '
              'holds all its images')
    if 'No such file' not in problem:
      return ''
    path = where.removeprefix(readable(self._inside))
    if '\\' in path:
      return (f'paths are relative to {folder}; this one has backslashes, so '
              'write / between folders and files')
    try:
      folders, _ = records.list_folder(self._inside)
    except OSError:
      folders = []
    name = os.path.basename(path)
    for other in (name, *(os.path.join(inner, tail) for inner in folders
                          for tail in (path, name))):
      if os.path.exists(os.path.join(self._inside, other)):
        return (f'paths are relative to {folder}; the file there is {other}, '
                'so correct the paths')
    return f'paths are relative to {folder}'

  @functools.cached_property
  def _scanned(self) -> _Scan:
    # Hashes of ten million paths take 80 MB, the paths would take a GB. With 64
    # bits, two paths of the same hash are practically impossible.
    hashes, num_rows = array.array('q'), 0
    own = set()  # As a rule few rows have no group.
    for row in self._rows():
      num_rows += 1
      if row.path:
        hashes.append(hash(row.path))
        if not row.groups[0]:
          own.add(hash(self._relative(row.path)))
    # Stable, so that of equal paths the first one is not a repeat.
    order = np.argsort(hashes, kind='stable')
    ordered = np.asarray(hashes)[order]
    return _Scan(
        num_rows, np.sort(order[1:][ordered[1:] == ordered[:-1]]),
        own and own.intersection(
            hash(row.groups[0]) for row in self._rows() if row.path))

  def _rows(self, offset: int | None = None, number: int = 1
            ) -> Iterator[_Row]:
    if offset is None:
      offset, number = self._start
    for line in records.read_lines(self._path, offset, number):
      yield self._parse(line)

  def _parse(self, line: Line) -> _Row:
    if line.text is None:
      return _Row(line, records.TOO_LONG)
    try:
      fields = split(line.text)
    except ValueError as error:
      return _Row(line, str(error))
    if len(fields) != len(self._columns):
      return _Row(
          line, f'{len(fields)} fields, expected {len(self._columns)}')
    path, *groups = (fields[i] for i in self._places)
    groups = tuple(map(str.strip, groups))
    if not path.strip():
      return _Row(line, 'no path', groups)
    # By the text of the path alone: folders in it may be links to elsewhere.
    full = os.path.normpath(os.path.join(self._inside, path))
    if path != path.strip() and not os.path.lexists(full):
      full = os.path.normpath(os.path.join(self._inside, path.strip()))
    if not full.startswith(self._inside):
      return _Row(
          line, f'path {path!r} leads out of the folder of '
          + readable(os.path.basename(self._path)), groups)
    return _Row(line, None, groups, full)

  def _relative(self, path: str | None) -> str:
    return readable(path[len(self._inside):]) if path else ''


class _Scan(NamedTuple):
  """What only the whole file says.

  Attributes:
    num_rows: number of rows.
    repeats: sorted numbers of the paths that are repeats.
    own_names: hashes of the paths of images without a group that are also the
      name of a group.
  """

  num_rows: int
  repeats: np.ndarray
  own_names: set[int]


class _Row(NamedTuple):
  """A row: its line, its problem, its groups, and the path of its image."""

  line: Line
  problem: str | None
  groups: tuple[str, ...] | None = None
  path: str | None = None


def names_images(path: str) -> bool:
  """Whether a .csv has a header with a column of paths."""
  try:
    line = next(records.read_lines(path), None)
    return bool(line and line.text) and PATH in columns_of(line)
  except (OSError, ValueError):
    return False
