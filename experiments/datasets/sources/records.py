"""Sources of grouped images, as streams of records.

A source is a stream of `Record`s, which can resume at the position of any
record. The problem of a bad record is stored in it, and never raised.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
import hashlib
import json
import os
from typing import Any, NamedTuple, Protocol

NO_GROUP = 'empty identity'
# Maximum number of files whose size and time are part of a fingerprint.
MAX_STATED = 50_000
_MAX_LINE = 1 << 26  # Bytes; larger than any encoded face.
# Maximum length of a row's name in a packed store, and the length of the start
# that is kept of a longer name.
MAX_NAME_BYTES, _NAME_START_BYTES = 200, 150
# Files that systems and programs leave among those of the user, in lower case.
_LITTER = frozenset({
    '$recycle.bin', '#recycle', '#snapshot', '@eadir', '@recycle',
    '@recently-snapshot', '@tmp', '__macosx', 'desktop.ini', 'ehthumbs.db',
    'found.000', 'icon\r', 'lost+found', 'picasa.ini', 'recycler',
    'system volume information', 'thumbs.db'})
TOO_LONG = f'more than {_MAX_LINE >> 20} MB in a line'


class Record(NamedTuple):
  """One image of a source.

  Attributes:
    group: name of its group.
    where: file, or file and line, for messages.
    rank: rank among the images of its group; lower is better.
    image: path or encoded bytes; None if there is no usable image.
    problem: reason why there is no image, otherwise None.
    size: share of the record in the `total` of the source.
    position: position in the source at which the next record starts.
    others: names of its groups in additional groupings; '' is unknown.
    name: name of the image in the source, independent of the source's path.
  """

  group: str
  where: str
  rank: int
  image: str | bytes | None
  problem: str | None
  size: int
  position: Any
  others: tuple[str, ...] = ()
  name: str = ''


class Source(Protocol):
  """A stream of images.

  Attributes:
    description: description of the source, for the user.
    notes: lines on what else was found there and is not read.
    unit: unit of `total`: 'image' or 'B' (bytes).
    has_ranks: whether ranks have a meaning.
    groupings: names of the groupings of `Record.group` and `Record.others`;
      empty if the source has a single grouping without a name.
  """

  description: str
  notes: tuple[str, ...]
  unit: str
  has_ranks: bool
  groupings: tuple[str, ...]

  @property
  def total(self) -> int:
    """Size of the source, in units."""

  def fingerprint(self) -> str:
    """A hash that changes with the source, as far as names and times show."""

  def records(self, position: Any = None) -> Iterator[Record]:
    """The records from a position onwards; None is the start."""

  def mend(self, where: str, problem: str) -> str:
    """Advice on the problem of a record; '' if there is none."""


class Line(NamedTuple):
  """A line of a file.

  Attributes:
    text: content of the line with its end; None if it is too long.
    number: number of the line, counted from 1.
    size: size in bytes.
    end: byte at which the next line starts.
  """

  text: bytes | None
  number: int
  size: int
  end: int


def read_lines(path: str, offset: int = 0, number: int = 0) -> Iterator[Line]:
  """Streams the lines of a file in bounded memory; blank lines are left out.

  Args:
    path: path of the file.
    offset: byte at which to start.
    number: number of the line before.

  Yields:
    The lines.
  """
  with open(path, 'rb') as file:
    file.seek(offset)
    while text := file.readline(_MAX_LINE):
      number += 1
      size = len(text)
      # The rest of such a line is read and dropped, so that the next line is
      # found.
      is_too_long = size == _MAX_LINE and not text.endswith(b'\n')
      while is_too_long and (rest := file.readline(_MAX_LINE)):
        size += len(rest)
        if rest.endswith(b'\n'):
          break
      offset += size
      if is_too_long or text.strip():
        yield Line(None if is_too_long else text, number, size, offset)


def sorted_by(groupings: Sequence[str], first: str | None
              ) -> tuple[str, ...]:
  """Groupings in their order, with one of them first if it is there."""
  return tuple(sorted(groupings, key=lambda name: name != first))


def place(ranks: Sequence[int], rank: int, top_k: int) -> int | None:
  """The place of an image among those of its group that are kept.

  The `top_k` lowest ranks are kept, and among equal ranks the first images.

  Args:
    ranks: ranks of the images kept so far, in their order of arrival.
    rank: rank of the image.
    top_k: maximum number of images to keep; 0 keeps all.

  Returns:
    The number of the image that it replaces; `len(ranks)` if it replaces none;
    None if it is not kept.
  """
  if not top_k or len(ranks) < top_k:
    return len(ranks)
  worst = max(range(len(ranks)), key=lambda i: (ranks[i], i))
  return worst if rank < ranks[worst] else None


def is_litter(name: str) -> bool:
  """Whether a file or folder is hidden, or left by the system."""
  return name.startswith('.') or name.lower() in _LITTER


def is_folder(entry: os.DirEntry) -> bool:
  """Whether an entry is a folder, or a link to one."""
  try:
    return entry.is_dir()
  except OSError:  # A loop of links.
    return False


def list_folder(folder: str) -> tuple[list[str], list[str]]:
  """The sorted names of the folders and of the other files in a folder.

  Litter is left out. Raises an OSError if the folder cannot be listed.
  """
  folders, files = [], []
  with os.scandir(folder) as entries:
    for entry in entries:
      if not is_litter(entry.name):
        (folders if is_folder(entry) else files).append(entry.name)
  return sorted(folders), sorted(files)


def readable(name: str | bytes) -> str:
  """A name as text that can be encoded, whatever bytes it consists of."""
  if isinstance(name, str):
    name = os.fsencode(name)
  return name.decode('utf-8', 'backslashreplace')


def row_name(name: str) -> bytes:
  """The name of a record in a packed store: UTF-8 without NULs.

  Of a name that is too long, the start is kept, followed by a hash that
  distinguishes it from others.
  """
  # NumPy pads its strings with NULs, and drops them at the end.
  text = readable(name).replace('\0', r'\x00').encode()
  if len(text) <= MAX_NAME_BYTES:
    return text
  start = text[:_NAME_START_BYTES].decode(errors='ignore').encode()
  return start + b'~' + hashlib.sha256(text).hexdigest()[:32].encode()


def file_state(path: str) -> list[int]:
  """Size in bytes and time in ns of a file, or of a dangling link itself.

  Empty if there is no such file.
  """
  for stat in (os.stat, os.lstat):
    try:
      found = stat(path)
      return [found.st_size, found.st_mtime_ns]
    except (OSError, ValueError):  # A path with a NUL is a ValueError.
      pass
  return []


def digest(values: Iterable[Any]) -> str:
  """SHA-256 of plain values as one JSON list, in hexadecimal."""
  found = hashlib.sha256(b'[')
  for i, value in enumerate(values):
    found.update((', ' * (i > 0) + json.dumps(value)).encode())
  found.update(b']')
  return found.hexdigest()
