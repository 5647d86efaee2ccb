"""Images in the TSV files of MS-Celeb-1M."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
import os

from experiments.datasets.sources import records
from experiments.datasets.sources.records import Record, file_state, readable

_COLUMNS = (
    'MID', 'rank', 'image URL', 'page URL', 'face ID', 'face rectangle',
    'face data')
_MAX_RANK = (1 << 63) - 1  # The index of a packed store has int64.


class TsvSource:
  """Shards of MS-Celeb-1M aligned: tab-separated, without header, 7 columns.

  The columns are Freebase MID, ImageSearchRank, ImageURL, PageURL, FaceID,
  FaceRectangle and FaceData, the last two in base64; FaceData is an encoded
  image. The shards are read as a stream.
  """

  unit = 'B'
  has_ranks = True
  groupings = ()

  def __init__(self, shards: list[str]):
    self._shards = shards
    self.notes: tuple[str, ...] = ()
    self._sizes = [os.path.getsize(path) for path in shards]
    what = shards[0] if len(shards) == 1 else (
        f'{len(shards)} .tsv files in {os.path.dirname(shards[0])}')
    self.description = f'{readable(what)}, {self.total / 1e9:.3g} GB'

  @property
  def total(self) -> int:
    return sum(self._sizes)

  def fingerprint(self) -> str:
    return records.digest([
        (os.path.basename(path), *file_state(path)) for path in self._shards])

  def records(self, position: list[int] | None = None) -> Iterator[Record]:
    first, offset, number = position or (0, 0, 0)
    for shard in range(first, len(self._shards)):
      path = self._shards[shard]
      for line in records.read_lines(path, offset, number):
        fields = (('', 0, None, records.TOO_LONG, '') if line.text is None
                  else _parse(line.text))
        group, rank, image, problem, name = fields
        yield Record(
            group, f'{readable(path)}:{line.number}', rank, image, problem,
            line.size, [shard, line.end, line.number], name=name)
      offset = number = 0  # Only the shard of the position starts inside.

  def mend(self, where: str, problem: str) -> str:
    del where, problem
    return ''


def looks_like_celeb(path: str) -> bool:
  """Whether the first line of a file has the columns of MS-Celeb-1M."""
  try:
    line = next(records.read_lines(path), None)
  except OSError:
    return False
  return (line is not None and line.text is not None
          and line.text.count(b'\t') == len(_COLUMNS) - 1)


def _parse(line: bytes
           ) -> tuple[str, int, bytes | None, str | None, str]:
  """Group, rank, encoded image, problem and name of a line."""
  columns = line.rstrip(b'\r\n').split(b'\t')
  group, rank = readable(columns[0].strip()), 0

  def bad(problem: str) -> tuple[str, int, None, str, str]:
    return group, rank, None, problem, ''  # As far as they are parsed by then.

  if len(columns) != len(_COLUMNS):
    return bad(
        f'has {len(columns)} column{"s" if len(columns) > 1 else ""}, '
        f'expected {len(_COLUMNS)}: {", ".join(_COLUMNS)}')
  if not group:
    return bad(records.NO_GROUP)
  try:
    rank = int(columns[1])
    if abs(rank) > _MAX_RANK:
      raise ValueError
  except ValueError:
    rank = 0
    return bad(f'search rank {readable(columns[1][:20])!r}')
  try:
    data = base64.b64decode(columns[6], validate=True)
  except binascii.Error as error:
    return bad(f'bad base64: {error}')
  if not data:
    return bad('no image data')
  return group, rank, data, None, f'{group}/{rank}-{readable(columns[4])}'
