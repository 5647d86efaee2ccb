"""Streams a source into a packed store: once, in bounded memory, resumable.

Images are decoded in parallel and appended to a spill file in the order of
the source; where only the best ranks of a group are kept, a better image takes
the slot of the worst. At the end the slots are written out sorted by group.
Every half a minute the position in the source and the index of slots are
saved; what was spilled after that is simply done again after a kill.
"""

from __future__ import annotations

import array
from collections import deque
from collections.abc import Iterator
from concurrent import futures
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import time
from typing import Any, BinaryIO
import zipfile

import numpy as np
import tqdm

from experiments.cli import UserError
from experiments.datasets import packed, sources
from experiments.datasets.images import BadImageError, read_image
from experiments.datasets.sources import Record, Source
from mlvae_jax.store import GroupedImages

_SAVE_SECONDS = 30.0
# Records read ahead, to be decoded in parallel, and the bytes of a TSV's.
_IN_FLIGHT, _BYTES_IN_FLIGHT = 256, 256 << 20
_SPILL, _STATE = 'spill.bin', 'state.npz'


def open_or_prepare(
    data_dir: str | None, *, image_size: int, top_k: int = 0,
    store_dir: str | None = None, on_bad_image: str = 'skip',
) -> GroupedImages:
  """The packed store of a source; prepares it where there is none.

  Args:
    data_dir: what `sources.detect` takes.
    image_size: pixels of a side.
    top_k: of each group keep the images of the best ranks, where the source
      has ranks; 0 keeps all.
    store_dir: holds the stores; by default the user's cache folder.
    on_bad_image: 'skip' passes over them, 'fail' stops at the first.

  Returns:
    The images, mapped into memory.

  Raises:
    UserError: when the source or the store cannot be used.
  """
  path = store_path(data_dir, image_size, top_k, store_dir)
  manifest = packed.read_manifest(path)
  if manifest is not None and not os.path.exists(_absolute(data_dir)):
    print(f'{sources.readable(data_dir)} is not there; using its packed store')
  else:
    source = sources.detect(data_dir)
    print(f'data: {source.description}')
    manifest = _up_to_date(source, path, image_size, top_k, on_bad_image)
  print(describe(path, manifest))
  if manifest['num_bad_images'] and on_bad_image == 'fail':
    raise UserError(
        f'{manifest["num_bad_images"]} bad images, the first is '
        f'{_first_bad(path)}; mend or remove it and delete {path}, or pass '
        'over bad images with --on_bad_image=skip')
  return packed.open_store(path)


def _up_to_date(source: Source, path: str, image_size: int, top_k: int,
                on_bad_image: str) -> dict[str, Any]:
  """The manifest of a source's store, made where there is none of it."""
  fingerprint = source.fingerprint()
  manifest = packed.read_manifest(path)
  if manifest is not None and manifest.get('fingerprint') == fingerprint:
    return manifest
  with _only_one(path):
    manifest = packed.read_manifest(path)  # Another process may have come.
    if manifest is None or manifest.get('fingerprint') != fingerprint:
      prepare(source, path, image_size=image_size, top_k=top_k,
              on_bad_image=on_bad_image)
  return packed.read_manifest(path)


def store_path(data_dir: str | None, image_size: int, top_k: int = 0,
               store_dir: str | None = None) -> str:
  """Folder of the store of a source and settings."""
  if not data_dir:
    sources.detect(data_dir)  # Raises.
  data_dir = _absolute(data_dir)
  key = hashlib.sha256(json.dumps(
      [data_dir, image_size, top_k, packed.FORMAT]).encode()).hexdigest()[:12]
  name = ''.join(c if c.isalnum() else '-' for c in sources.readable(
      os.path.basename(data_dir)))[:40]
  if store_dir is None:
    store_dir = os.path.join(
        os.environ.get('XDG_CACHE_HOME') or os.path.join('~', '.cache'),
        'mlvae_jax')
  return os.path.join(_absolute(store_dir), f'{name}-{image_size}-{key}')


def describe(path: str, manifest: dict[str, Any]) -> str:
  """One line on a store."""
  bad = manifest['num_bad_images']
  return (
      f'packed store: {manifest["num_images"]:,} images of '
      f'{manifest["num_groups"]:,} groups in {path}'
      + (f'; {bad:,} bad images passed over, see '
         f'{os.path.join(path, packed.BAD_IMAGES)}' if bad else ''))


def prepare(source: Source, path: str, *, image_size: int, top_k: int = 0,
            on_bad_image: str = 'skip') -> None:
  """Packs a source into a store, or goes on where an earlier try stopped.

  Args:
    source: of the images.
    path: folder of the store; appears when it is complete.
    image_size: pixels of a side.
    top_k: images kept of a group, those of the best ranks; 0 for all.
    on_bad_image: 'skip' or 'fail'.

  Raises:
    UserError: when the disk is full, no image can be used, or one is bad and
      on_bad_image='fail'. What was done is kept, to go on from.
  """
  partial = f'{path}.partial'
  settings = {
      'source': source.description, 'fingerprint': source.fingerprint(),
      'image_size': image_size, 'top_k': top_k if source.has_ranks else 0}
  with _told_when_full(path):
    if not _is_complete(partial, settings):
      with _Spill(partial, settings) as spill:
        _read(source, spill, on_bad_image)
        if not spill.num_rows:
          raise UserError(
              f'no usable image in {source.description}; see '
              f'{os.path.join(partial, packed.BAD_IMAGES)}')
        print('sorting the images by group')
        spill.write_store()
    _remove(partial, _SPILL, _STATE)
    if os.path.isdir(path):
      shutil.rmtree(path)
    os.rename(partial, path)


def _is_complete(partial: str, settings: dict[str, Any]) -> bool:
  """Whether an earlier try wrote the whole store, and only that."""
  manifest = packed.read_manifest(partial)
  return manifest is not None and settings.items() <= manifest.items()


@contextlib.contextmanager
def _told_when_full(path: str) -> Iterator[None]:
  """Says what to do where a store has no place."""
  try:
    yield
  except OSError as error:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
      raise UserError(
          f'no space left for the packed store in {os.path.dirname(path)}; '
          'free some, or choose another disk with --store_dir; what is '
          'prepared so far is kept, and the same command goes on'
      ) from error
    raise


class _Spill:
  """The images so far, and the index that says whose they are."""

  def __init__(self, folder: str, settings: dict[str, Any]):
    self._folder, self._settings = folder, settings
    self._top_k = settings['top_k']
    self.image_size = settings['image_size']
    self._shape = (self.image_size, self.image_size, 3)
    self._row_bytes = int(np.prod(self._shape))
    os.makedirs(folder, exist_ok=True)
    self.position = None
    self.num_done = self.num_bad = self._num_bad_bytes = 0
    self._names: list[str] = []
    # Of each slot: its group, and its image's rank, age and want of colour.
    self._labels, self._ranks = array.array('q'), array.array('q')
    self._ages, self._grey = array.array('q'), array.array('b')
    self._restore()
    self._group_of = {name: i for i, name in enumerate(self._names)}
    # Slots of each group, where they are limited.
    self._slots: list[list[int]] = [[] for _ in self._names]
    for slot, label in enumerate(self._labels if self._top_k else ()):
      self._slots[label].append(slot)
    self._file = open(os.path.join(folder, _SPILL), 'r+b')
    self._bad_file = open(os.path.join(folder, packed.BAD_IMAGES), 'r+b')
    # What came after the last save is done again.
    self._file.truncate(self.num_rows * self._row_bytes)
    self._bad_file.truncate(self._num_bad_bytes)
    self._bad_file.seek(self._num_bad_bytes)
    self._saved, self._pause = time.monotonic(), _SAVE_SECONDS

  def __enter__(self) -> _Spill:
    return self

  def __exit__(self, *_) -> None:
    with self._file, self._bad_file:  # Closes both, whatever fails.
      pass

  @property
  def num_rows(self) -> int:
    return len(self._labels)

  def wants(self, record: Record) -> bool:
    """Whether an image of this rank would be kept."""
    if not self._top_k or record.group not in self._group_of:
      return True
    slots = self._slots[self._group_of[record.group]]
    return len(slots) < self._top_k or (
        record.rank < max(self._ranks[slot] for slot in slots))

  def add(self, record: Record, image: np.ndarray) -> None:
    """Keeps an image, in place of its group's worst where that is full."""
    if record.group not in self._group_of:
      self._group_of[record.group] = len(self._names)
      self._names.append(record.group)
      self._slots.append([])
    label = self._group_of[record.group]
    slots = self._slots[label]
    if self._top_k and len(slots) == self._top_k:
      # Of equal ranks the later one goes.
      slot = max(slots, key=lambda s: (self._ranks[s], self._ages[s]))
    else:
      slot = self.num_rows
      if self._top_k:
        slots.append(slot)
      self._labels.append(label)
      for values in (self._ranks, self._ages, self._grey):
        values.append(0)
    self._ranks[slot], self._ages[slot] = record.rank, self.num_done
    self._grey[slot] = image.shape[-1] == 1
    self._file.seek(slot * self._row_bytes)
    self._file.write(np.broadcast_to(image, self._shape).tobytes())

  def add_bad(self, record: Record, problem: str) -> None:
    """Names an image that cannot be used."""
    self.num_bad += 1
    self._bad_file.write(json.dumps({
        'where': record.where, 'group': record.group, 'problem': problem
    }).encode() + b'\n')

  def done(self, record: Record) -> None:
    """Goes past a record."""
    self.position = record.position
    self.num_done += record.size
    if time.monotonic() - self._saved > self._pause:
      self.save()

  def save(self) -> None:
    """Makes everything up to here survive a kill."""
    start = time.monotonic()
    for file in (self._file, self._bad_file):
      file.flush()
      os.fsync(file.fileno())
    state = {
        'settings': self._settings, 'position': self.position,
        'num_done': self.num_done, 'num_bad': self.num_bad,
        'num_bad_bytes': self._bad_file.tell(), 'names': self._names}
    path = os.path.join(self._folder, _STATE)
    with open(f'{path}.new', 'wb') as file:
      np.savez(
          file, state=np.frombuffer(json.dumps(state).encode(), np.uint8),
          labels=self._labels, ranks=self._ranks, ages=self._ages,
          grey=self._grey)
      file.flush()
      os.fsync(file.fileno())
    os.replace(f'{path}.new', path)
    self._saved = time.monotonic()
    # A long index is saved less often.
    self._pause = max(_SAVE_SECONDS, 20 * (self._saved - start))

  def write_store(self) -> None:
    """Writes the store, from the spill."""
    self.save()
    rows = _SpilledRows(self._file, (self.num_rows, *self._shape),
                        1 if all(self._grey) else 3)
    place = np.empty(self.num_rows, np.int64)
    place[np.lexsort((self._ages, self._ranks))] = np.arange(self.num_rows)
    packed.write_store(
        self._folder, rows, np.asarray(self._labels), place, self._names,
        {**self._settings, 'num_bad_images': self.num_bad})

  def _restore(self) -> None:
    """Reads what an earlier try saved; of other settings nothing is kept."""
    try:
      with np.load(os.path.join(self._folder, _STATE)) as saved:
        state = json.loads(saved['state'].tobytes())
        slots = [saved[name] for name in ('labels', 'ranks', 'ages', 'grey')]
      num_bytes = os.path.getsize(os.path.join(self._folder, _SPILL))
      is_ours = (state['settings'] == self._settings
                 and 0 < len(slots[0]) * self._row_bytes <= num_bytes)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
      is_ours = False
    if not is_ours:
      for name in (_SPILL, packed.BAD_IMAGES):
        open(os.path.join(self._folder, name), 'wb').close()
      _remove(self._folder, packed.MANIFEST)
      return
    self.position, self.num_done = state['position'], state['num_done']
    self.num_bad, self._num_bad_bytes = state['num_bad'], state['num_bad_bytes']
    self._names = state['names']
    for values, saved in zip(
        (self._labels, self._ranks, self._ages, self._grey), slots):
      values.frombytes(saved.tobytes())


class _SpilledRows:
  """The rows of a spill, read one by one.

  Mapped into memory, all that was ever read would count as the process's.
  """

  def __init__(self, file: BinaryIO, shape: tuple[int, ...],
               num_channels: int):
    self._file, self._row_shape = file, shape[1:]
    self.shape = (*shape[:-1], num_channels)

  def __getitem__(self, rows: np.ndarray) -> np.ndarray:
    images = np.empty((len(rows), *self._row_shape), np.uint8)
    for image, row in zip(images, rows):
      self._file.seek(int(row) * image.nbytes)
      self._file.readinto(image)
    return images[..., :self.shape[-1]]


def _read(source: Source, spill: _Spill, on_bad_image: str) -> None:
  """Reads the source from where the spill is to its end."""
  if spill.num_done:
    print(f'going on with {spill.num_rows:,} images that are prepared')
  bar = tqdm.tqdm(
      total=source.total, initial=spill.num_done, desc='preparing',
      unit=source.unit, unit_scale=source.unit == 'B', dynamic_ncols=True)
  with bar, futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    for record, decoded in _decode(source, spill, pool):
      problem = record.problem
      if problem is None and spill.wants(record):
        try:
          spill.add(record, decoded.result())
        except BadImageError as error:
          problem = str(error)
      if problem is not None:
        if on_bad_image == 'fail':
          raise UserError(
              f'{record.where}: {problem}; mend or remove it, or pass over '
              'bad images with --on_bad_image=skip')
        spill.add_bad(record, problem)
      spill.done(record)
      bar.update(record.size)
      bar.set_postfix_str(
          f'{spill.num_rows:,} images, {spill.num_bad:,} bad', refresh=False)


def _decode(source: Source, spill: _Spill, pool: futures.Executor
            ) -> Iterator[tuple[Record, futures.Future | None]]:
  """The records in order, with images that are decoded ahead."""
  ahead: deque = deque()
  num_ahead = 0  # Bytes.
  for record in source.records(spill.position):
    # Images that would not be kept need no decoding.
    decoded = None
    if record.problem is None and spill.wants(record):
      decoded = pool.submit(read_image, record.image, spill.image_size)
    num_bytes = len(record.image) if isinstance(record.image, bytes) else 0
    ahead.append((record._replace(image=None), decoded, num_bytes))
    num_ahead += num_bytes
    while len(ahead) >= _IN_FLIGHT or num_ahead > _BYTES_IN_FLIGHT:
      *ready, num_bytes = ahead.popleft()
      num_ahead -= num_bytes
      yield tuple(ready)
  while ahead:
    yield ahead.popleft()[:2]


def _first_bad(path: str) -> str:
  with open(os.path.join(path, packed.BAD_IMAGES), encoding='utf-8') as file:
    first = json.loads(file.readline())
  return f'{first["where"]}: {first["problem"]}'


def _absolute(path: str) -> str:
  return os.path.abspath(os.path.expanduser(path))


def _remove(folder: str, *names: str) -> None:
  for name in names:
    with contextlib.suppress(FileNotFoundError):
      os.remove(os.path.join(folder, name))


@contextlib.contextmanager
def _only_one(path: str) -> Iterator[None]:
  """Lets one process at a time prepare a store."""
  try:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    file = open(f'{path}.lock', 'w')
  except OSError as error:
    raise UserError(
        f'cannot write to {os.path.dirname(path)}: {error.strerror}; choose '
        'another folder with --store_dir') from error
  with file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      print('another process prepares this data set; waiting for it')
      fcntl.flock(file, fcntl.LOCK_EX)
    yield
