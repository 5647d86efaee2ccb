"""What every source of grouped images is: a stream of records.

A source is a stream of `Record`s that can be entered again at any record's
position. Whatever is wrong with a record is said in it, never raised.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
import hashlib
import json
import os
from typing import Any, NamedTuple, Protocol

NO_GROUP = 'empty identity'
# Files whose size and time a fingerprint looks at; of more, the first.
MAX_STATED = 50_000
_MAX_LINE = 1 << 26  # Bytes; more than any face, encoded.
# Of a row's name in a packed store, and what is kept of a longer one.
MAX_NAME_BYTES, _NAME_START_BYTES = 200, 150
# What systems and programs leave among the user's files, in lower case.
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
    rank: its place among its group's images; lower is better.
    image: path or encoded bytes; None where there is none.
    problem: why there is none, else None.
    size: what it adds to the source's `total`.
    position: position in the source at which the next record starts.
    others: names of its groups in the further groupings; '' is not known.
    name: what the image is called at its source, wherever that lies.
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
    description: what was found, to be printed.
    notes: what else was found there and is not read, a line each.
    unit: unit of `total`: 'image' or 'B' (bytes).
    has_ranks: whether ranks mean anything.
    groupings: names of the groupings of `Record.group` and `Record.others`;
      empty where the source does not say what its only grouping is.
  """

  description: str
  notes: tuple[str, ...]
  unit: str
  has_ranks: bool
  groupings: tuple[str, ...]

  @property
  def total(self) -> int:
    """How much there is, in units."""

  def fingerprint(self) -> str:
    """Changes when the source does, as far as can be seen without reading."""

  def records(self, position: Any = None) -> Iterator[Record]:
    """The records from a position on; None is the start."""

  def mend(self, where: str, problem: str) -> str:
    """What to do about a problem of a record; '' where it is not known."""


class Line(NamedTuple):
  """A line of a file.

  Attributes:
    text: the line, with its end; None where it is too long.
    number: number of the line, counted from 1.
    size: its bytes.
    end: byte at which the next line starts.
  """

  text: bytes | None
  number: int
  size: int
  end: int


def read_lines(path: str, offset: int = 0, number: int = 0) -> Iterator[Line]:
  """Streams the lines of a file in bounded memory; blank ones are left out.

  Args:
    path: path of the file.
    offset: byte to start at.
    number: number of the line before.

  Yields:
    The lines.
  """
  with open(path, 'rb') as file:
    file.seek(offset)
    while text := file.readline(_MAX_LINE):
      number += 1
      size = len(text)
      is_too_long = size == _MAX_LINE and not text.endswith(b'\n')
      while is_too_long and (rest := file.readline(_MAX_LINE)):
        size += len(rest)
        if rest.endswith(b'\n'):
          break
      offset += size
      if is_too_long or text.strip():
        yield Line(None if is_too_long else text, number, size, offset)


def place(ranks: Sequence[int], rank: int, top_k: int) -> int | None:
  """Where an image goes among those of its group that are kept.

  The `top_k` lowest ranks are kept, of equal ranks the images that came first.

  Args:
    ranks: ranks of the images kept so far, in the order they came.
    rank: rank of the image.
    top_k: how many are kept; 0 for all.

  Returns:
    The number of the image that it replaces; `len(ranks)` where none has to
    go; None where it is not kept.
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
  """The names of the folders and of the other files in a folder, sorted.

  Litter is left out. An OSError where it cannot be listed.
  """
  folders, files = [], []
  with os.scandir(folder) as entries:
    for entry in entries:
      if not is_litter(entry.name):
        (folders if is_folder(entry) else files).append(entry.name)
  return sorted(folders), sorted(files)


def readable(name: str | bytes) -> str:
  """A name as text that can be encoded, whatever bytes it has."""
  if isinstance(name, str):
    name = os.fsencode(name)
  return name.decode('utf-8', 'backslashreplace')


def row_name(name: str) -> bytes:
  """A record's name as a packed store keeps it: UTF-8 without NULs.

  Of a name that is too long the start is kept, and a hash distinguishes it
  from others.
  """
  text = readable(name).replace('\0', r'\x00').encode()
  if len(text) <= MAX_NAME_BYTES:
    return text
  start = text[:_NAME_START_BYTES].decode(errors='ignore').encode()
  return start + b'~' + hashlib.sha256(text).hexdigest()[:32].encode()


def file_state(path: str) -> list[int]:
  """Size in bytes and time in ns of a file; of a link that leads nowhere, its.

  Empty where there is no such file.
  """
  for stat in (os.stat, os.lstat):
    try:
      found = stat(path)
      return [found.st_size, found.st_mtime_ns]
    except (OSError, ValueError):  # A ValueError where it holds a NUL.
      pass
  return []


def digest(values: Iterable[Any]) -> str:
  """SHA-256 of plain values as one JSON list, in hexadecimal."""
  found = hashlib.sha256(b'[')
  for i, value in enumerate(values):
    found.update((', ' * (i > 0) + json.dumps(value)).encode())
  found.update(b']')
  return found.hexdigest()
