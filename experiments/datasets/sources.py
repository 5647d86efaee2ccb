"""Where grouped images come from: a folder per group, TSV shards, TFDS.

A source is a stream of `Record`s that can be entered again at any record's
position. Whatever is wrong with a record is said in it, never raised.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
import functools
import hashlib
import json
import os
from typing import Any, NamedTuple, Protocol

from experiments.cli import UserError
from experiments.datasets.images import EXTENSIONS

_TSV_COLUMNS = 7
_TFDS_INFO = 'dataset_info.json'
_MAX_DATA_SETS = 1000  # A folder of more folders is one of groups.
_TFDS_SUBSETS = ('small1', 'small2')  # Omniglot's repeat images of train.
_NO_GROUP = 'empty identity'
_MAX_RANK = (1 << 63) - 1
_MAX_LINE = 1 << 26  # Bytes; more than any face, encoded.


class Record(NamedTuple):
  """One image of a source.

  Attributes:
    group: name of its group.
    where: file, or file and line, for messages.
    rank: its place among its group's images; lower is better.
    image: path or encoded bytes; None where there is none.
    problem: why there is none, else None.
    size: what it adds to the source's `total`.
    position: where the record after it starts.
  """

  group: str
  where: str
  rank: int
  image: str | bytes | None
  problem: str | None
  size: int
  position: Any


class Source(Protocol):
  """A stream of images.

  Attributes:
    description: what was found, to be said.
    unit: of `total`: 'image' or 'B' (bytes).
    has_ranks: whether ranks mean anything.
  """

  description: str
  unit: str
  has_ranks: bool

  @property
  def total(self) -> int:
    """How much there is, in units."""

  def fingerprint(self) -> str:
    """Changes when the source does, as far as can be seen without reading."""

  def records(self, position: Any = None) -> Iterator[Record]:
    """The records from a position on; None is the start."""


def detect(data_dir: str | None) -> Source:
  """Finds out what a path holds.

  Args:
    data_dir: a folder per group; a .tsv file, or a folder of them; a data
      set that TFDS has prepared.

  Returns:
    The source.

  Raises:
    UserError: when it holds none of them.
  """
  if not data_dir:
    raise UserError(
        'this data set needs --data_dir: a folder with a folder of images per '
        'group, or TSV files')
  data_dir = os.path.abspath(os.path.expanduser(data_dir))
  if os.path.isfile(data_dir) and data_dir.lower().endswith('.tsv'):
    return TsvSource([data_dir])
  if not os.path.isdir(data_dir):
    raise UserError(f'no folder {data_dir}; check --data_dir')
  prepared = _find_prepared(data_dir)
  if prepared:
    return TfdsSource(prepared)
  shards = sorted(
      os.path.join(data_dir, name) for name in os.listdir(data_dir)
      if name.lower().endswith('.tsv') and not name.startswith('.')
      and not os.path.isdir(os.path.join(data_dir, name)))
  if shards:
    return TsvSource(shards)
  return FolderSource(data_dir)


class FolderSource:
  """`DATA_DIR/GROUP/IMAGE`, of any size and format that PIL reads.

  Hidden files, and whatever has no image's extension, are passed over.
  """

  unit = 'image'
  has_ranks = False

  def __init__(self, data_dir: str):
    self._data_dir = data_dir
    self._groups = sorted(
        entry.name for entry in os.scandir(data_dir)
        if not entry.name.startswith('.')
        and (_is_folder(entry) or _leads_nowhere(entry)))
    if not self._groups:
      raise UserError(
          f'{data_dir} holds no folders and no .tsv; expected one folder per '
          'group, with images')
    self.description = (
        f'a folder per group, {len(self._groups):,} of them, in '
        f'{readable(data_dir)}')

  @functools.cached_property
  def _files(self) -> list[tuple[str, list[str]]]:
    found = []
    for group in self._groups:
      problem = 'holds no images'
      try:
        names = sorted(
            entry.name
            for entry in os.scandir(os.path.join(self._data_dir, group))
            if not entry.name.startswith('.')
            and entry.name.lower().endswith(EXTENSIONS))
      except OSError as error:
        names, problem = [], f'cannot be listed: {error.strerror}'
      found.append((group, names, None if names else problem))
    return found

  @property
  def total(self) -> int:
    return sum(max(1, len(names)) for _, names, _ in self._files)

  def fingerprint(self) -> str:
    return _digest([
        (group, _modified(os.path.join(self._data_dir, group)))
        for group in self._groups])

  def records(self, position: int | None = None) -> Iterator[Record]:
    number = 0
    for group, names, problem in self._files:
      folder = os.path.join(self._data_dir, group)
      if problem:
        number += 1
        if number > (position or 0):
          yield Record(readable(group), readable(folder), 0, None, problem, 1,
                       number)
      for rank, name in enumerate(names):
        number += 1
        if number > (position or 0):
          path = os.path.join(folder, name)
          yield Record(readable(group), readable(path), rank, path, None, 1,
                       number)


class TsvSource:
  """Shards of MS-Celeb-1M aligned: tab-separated, no header, 7 columns.

  Freebase MID, ImageSearchRank, ImageURL, PageURL, FaceID, FaceRectangle and
  FaceData, the last two in base64; FaceData is an encoded image. Read as a
  stream.
  """

  unit = 'B'
  has_ranks = True

  def __init__(self, shards: list[str]):
    self._shards = shards
    self._sizes = [os.path.getsize(path) for path in shards]
    what = shards[0] if len(shards) == 1 else (
        f'{len(shards)} .tsv files in {os.path.dirname(shards[0])}')
    self.description = f'{readable(what)}, {self.total / 1e9:.3g} GB'

  @property
  def total(self) -> int:
    return sum(self._sizes)

  def fingerprint(self) -> str:
    return _digest([
        (os.path.basename(path), os.stat(path).st_size,
         os.stat(path).st_mtime_ns) for path in self._shards])

  def records(self, position: list[int] | None = None) -> Iterator[Record]:
    first, offset, line_number = position or (0, 0, 0)
    for shard in range(first, len(self._shards)):
      path = self._shards[shard]
      with open(path, 'rb') as file:
        file.seek(offset)
        while line := file.readline(_MAX_LINE):
          line_number += 1
          start, size = offset, len(line)
          is_too_long = len(line) == _MAX_LINE and not line.endswith(b'\n')
          while is_too_long and (rest := file.readline(_MAX_LINE)):
            size += len(rest)
            if rest.endswith(b'\n'):
              break
          offset = start + size
          if not line.strip():
            continue
          where = f'{readable(path)}:{line_number}'
          fields = (('', 0, None, f'more than {_MAX_LINE >> 20} MB in a line')
                    if is_too_long else _parse_line(line))
          group, rank, image, problem = fields
          yield Record(group, where, rank, image, problem, size,
                       [shard, offset, line_number])
      offset = line_number = 0


class TfdsSource:
  """A data set prepared by TFDS with random access, read without TensorFlow.

  All its splits, one after the other, but for those that repeat images of
  others. The group is the feature 'identity', 'identity/Identity_No' (CelebA)
  or 'label' (Omniglot, MNIST).
  """

  unit = 'image'
  has_ranks = False

  def __init__(self, folder: str):
    import tensorflow_datasets as tfds  # Slow to import: only where needed.

    self._folder = folder
    try:
      builder = tfds.builder_from_directory(folder)
      features = builder.info.features
      self._label = _group_feature(features)
      decoders = {'image': tfds.decode.SkipDecoding()}
      self._splits = [
          (name, builder.as_data_source(split=name, decoders=decoders))
          for name in sorted(builder.info.splits)
          if name not in _TFDS_SUBSETS]
    except Exception as error:  # TFDS raises whatever its readers raise.
      raise UserError(
          f'cannot read the data set that TFDS prepared in {folder}: {error}'
      ) from error
    if self._label is None or 'image' not in features:
      raise UserError(
          f'{folder} has the features {sorted(features)}; expected image, and '
          'identity or label')
    self.description = (
        f'a data set that TFDS prepared, {self.total:,} images, in {folder}')

  @property
  def total(self) -> int:
    return sum(len(source) for _, source in self._splits)

  def fingerprint(self) -> str:
    path = os.path.join(self._folder, 'dataset_info.json')
    return _digest([self.total, os.stat(path).st_mtime_ns])

  def records(self, position: list[int] | None = None) -> Iterator[Record]:
    first, start = position or (0, 0)
    for number in range(first, len(self._splits)):
      name, source = self._splits[number]
      for i in range(start, len(source)):
        where = f'{self._folder} {name}[{i}]'
        group, image, problem = '', None, None
        try:
          record = source[i]
          group = functools.reduce(lambda v, k: v[k], self._label, record)
          group = (readable(group) if isinstance(group, bytes)
                   else str(group))
          image = record['image']
          problem = None if group else _NO_GROUP
        except Exception as error:
          problem = f'cannot be read: {error}'
        yield Record(group, where, i, image, problem, 1, [number, i + 1])
      start = 0


def _find_prepared(data_dir: str) -> str | None:
  """The newest version of the only data set that TFDS prepared there."""
  folders = [data_dir]
  for depth in range(3):
    found = [path for path in folders
             if os.path.isfile(os.path.join(path, _TFDS_INFO))]
    names = {os.path.dirname(path) for path in found}
    if len(names) > 1:
      raise UserError(
          f'{data_dir} holds several data sets prepared by TFDS; point '
          '--data_dir at one of ' + ', '.join(sorted(names)))
    if found:
      return max(found, key=lambda path: _modified(
          os.path.join(path, _TFDS_INFO)))
    if len(folders) > _MAX_DATA_SETS or depth == 2:
      break
    folders = [path for folder in folders for path in _subfolders(folder)]
  return None


def _group_feature(features: Any) -> tuple[str, ...] | None:
  if 'identity' in features:
    inner = features['identity']
    return ('identity', 'Identity_No') if hasattr(inner, 'keys') else (
        'identity',)
  return ('label',) if 'label' in features else None


def _parse_line(line: bytes) -> tuple[str, int, bytes | None, str | None]:
  """Group, rank, encoded image and problem of a line."""
  columns = line.rstrip(b'\r\n').split(b'\t')
  group = readable(columns[0].strip())
  if len(columns) != _TSV_COLUMNS:
    return group, 0, None, (
        f'{len(columns)} columns, expected {_TSV_COLUMNS}')
  if not group:
    return group, 0, None, _NO_GROUP
  try:
    rank = int(columns[1])
    if abs(rank) > _MAX_RANK:
      raise ValueError
  except ValueError:
    return group, 0, None, f'search rank {readable(columns[1][:20])!r}'
  try:
    data = base64.b64decode(columns[6], validate=True)
  except binascii.Error as error:
    return group, rank, None, f'bad base64: {error}'
  return group, rank, data, None if data else 'no image data'


def readable(name: str | bytes) -> str:
  """A name as text that can be encoded, whatever bytes it has."""
  if isinstance(name, str):
    name = os.fsencode(name)
  return name.decode('utf-8', 'backslashreplace')


def _is_folder(entry: os.DirEntry) -> bool:
  try:
    return entry.is_dir()
  except OSError:  # A loop of links.
    return False


def _leads_nowhere(entry: os.DirEntry) -> bool:
  return entry.is_symlink() and not os.path.exists(entry.path)


def _subfolders(folder: str) -> list[str]:
  try:
    return [entry.path for entry in os.scandir(folder)
            if not entry.name.startswith('.') and _is_folder(entry)]
  except OSError:
    return []


def _modified(path: str) -> int:
  try:
    return os.stat(path).st_mtime_ns
  except OSError:  # A link to what cannot be found.
    return os.lstat(path).st_mtime_ns


def _digest(value: Any) -> str:
  return hashlib.sha256(json.dumps(value).encode()).hexdigest()
