"""Streams a source into a packed store: once, in bounded memory, resumable.

Images are decoded in parallel and appended to a spill file in the order of
the source; where only the best ranks of a group are kept, a better image takes
the slot of the worst. At the end the slots are written out sorted by group.
Every half a minute the position in the source and the index of slots are
saved; what was spilled after that is simply done again after a kill.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent import futures
import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import shutil
from typing import Any

import tqdm

from experiments.cli import UserError
from experiments.datasets.sources import detect, unknown
from experiments.datasets.sources.images import (
  BadImageError,
  Pixels,
  read_image,
)
from experiments.datasets.sources.manifest import ManifestSource
from experiments.datasets.sources.records import Record, Source, readable
from experiments.datasets.store import bad_images, packed, partial_store
from experiments.datasets.store.partial_store import PartialStore
from mlvae_jax.data.grouped import GroupedImages

# Records read ahead, to be decoded in parallel, and the bytes of a TSV's.
_IN_FLIGHT, _BYTES_IN_FLIGHT = 256, 256 << 20


@dataclasses.dataclass(frozen=True)
class StoreSettings:
  """What determines a packed store, besides its source.

  Attributes:
    image_size: pixels of a side.
    top_k: of each group keep the images of the best ranks, where the source
      has ranks; 0 keeps all.
    sort_by: grouping to sort by where the source has several; by default,
      and where there is none so called, its first.
    resize, black, white: see `images.Pixels`.
    read_as, group_level: see `sources.detect`.
  """

  image_size: int
  top_k: int = 0
  sort_by: str | None = None
  resize: str = 'squeeze'
  black: float | None = None
  white: float | None = None
  read_as: str = 'auto'
  group_level: int = 0

  @property
  def pixels(self) -> Pixels:
    """What becomes of each image."""
    return Pixels(self.image_size, self.resize, self.black, self.white)

  def detect(self, data_dir: str | None) -> Source:
    """The source at a path, as `sources.detect` gives it."""
    return detect.detect(
        data_dir, self.sort_by, self.read_as, self.group_level)

  def to_dict(self) -> dict[str, Any]:
    """All but `sort_by`: the source says which grouping that is."""
    values = dataclasses.asdict(self)
    del values['sort_by']
    return values


def open_or_prepare(
    data_dir: str | None, *, store_dir: str | None = None,
    on_bad_image: str = 'skip', grouping: str = 'group',
    show_notes: bool = True, **settings: Any,
) -> GroupedImages:
  """The packed store of a source; prepares it where there is none.

  Args:
    data_dir: what `sources.detect` takes.
    store_dir: holds the stores; by default the user's cache folder.
    on_bad_image: 'skip' passes over them, 'fail' stops at the first.
    grouping: what the groups are of a source that does not say it.
    show_notes: whether to print what else is there, and the flags that read
      it.
    **settings: see `StoreSettings`.

  Returns:
    The images, mapped into memory.

  Raises:
    UserError: when the source or the store cannot be used.
  """
  choices = StoreSettings(**settings)
  source = None
  if not data_dir or os.path.exists(detect.absolute(data_dir)):
    source = choices.detect(data_dir)
  path = store_path(data_dir, store_dir, **settings)
  manifest = packed.read_manifest(path)
  if source is None and manifest is not None:
    print(f'{readable(data_dir)} is not there; using its packed store')
  else:
    source = source or choices.detect(data_dir)  # Raises where it is gone.
    print(f'data: {source.description}')
    for note in source.notes if show_notes else ():
      print(f'note: {note}')
    manifest = _up_to_date(source, path, choices, on_bad_image)
  print(describe(path, manifest))
  if manifest['num_bad_images'] and on_bad_image == 'fail':
    raise UserError(
        f'{manifest["num_bad_images"]} bad images, the first is '
        f'{_first_bad(path)}; mend or remove it and delete {path}, or pass '
        'over bad images with --on_bad_image=skip')
  data = packed.open_store(path, grouping)
  if manifest.get('groupings'):  # Groups of a table, not names of folders.
    for warning in unknown.warnings(data):
      print(f'warning: {warning}')
  return data


def _up_to_date(source: Source, path: str, choices: StoreSettings,
                on_bad_image: str) -> dict[str, Any]:
  """The manifest of a source's store, made where there is none of it."""
  fingerprint = source.fingerprint()
  manifest = packed.read_manifest(path)
  if manifest is not None and manifest.get('fingerprint') == fingerprint:
    return manifest
  with _only_one(path):
    manifest = packed.read_manifest(path)  # Another process may have come.
    if manifest is None or manifest.get('fingerprint') != fingerprint:
      prepare(source, path, choices, on_bad_image)
  return packed.read_manifest(path)


def store_path(data_dir: str | None, store_dir: str | None = None,
               **settings: Any) -> str:
  """Folder of the store of a source and settings.

  Args:
    data_dir: what `sources.detect` takes; need not be there any more.
    store_dir: holds the stores; by default the user's cache folder.
    **settings: see `StoreSettings`.

  Returns:
    The path.

  Raises:
    UserError: without data_dir, or where it has a header of no use.
  """
  choices = StoreSettings(**settings)
  if not data_dir:
    detect.detect(data_dir)  # Raises.
  data_dir = detect.absolute(data_dir)
  if store_dir is None:
    store_dir = os.path.join(
        os.environ.get('XDG_CACHE_HOME') or os.path.join('~', '.cache'),
        'mlvae_jax')
  name = ''.join(c if c.isalnum() else '-' for c in readable(
      os.path.basename(data_dir)))[:40]

  def path(*more: str) -> str:
    key = hashlib.sha256(json.dumps(
        [data_dir, packed.FORMAT, choices.to_dict(), *more]).encode())
    return os.path.join(
        detect.absolute(store_dir),
        f'{name}-{choices.image_size}-{key.hexdigest()[:12]}')

  sort_by = choices.sort_by
  csv_path = detect.find_csv(data_dir, choices.read_as)
  if csv_path:
    return path(ManifestSource(csv_path, sort_by).groupings[0])
  # What is gone may have been a .csv.
  if sort_by and not os.path.exists(data_dir) and os.path.isdir(path(sort_by)):
    return path(sort_by)
  return path()


def describe(path: str, manifest: dict[str, Any]) -> str:
  """One line on a store."""
  bad = manifest['num_bad_images']
  return (
      f'packed store: {manifest["num_images"]:,} images of '
      f'{manifest["num_groups"]:,} groups in {path}'
      + (f'; {bad:,} bad images passed over, see '
         f'{os.path.join(path, packed.BAD_IMAGES)}' if bad else ''))


def prepare(source: Source, path: str, choices: StoreSettings,
            on_bad_image: str = 'skip') -> None:
  """Packs a source into a store, or resumes where an earlier try stopped.

  Args:
    source: of the images.
    path: folder of the store; appears when it is complete.
    choices: of the store.
    on_bad_image: 'skip' or 'fail'.

  Raises:
    UserError: when the disk is full, no image can be used, or one is bad and
      on_bad_image='fail'. What was saved last is kept, to resume from.
  """
  partial = f'{path}.partial'
  settings = {
      'source': source.description, 'fingerprint': source.fingerprint(),
      **choices.to_dict(), 'top_k': choices.top_k if source.has_ranks else 0}
  if source.groupings:
    settings['groupings'] = list(source.groupings)
  with _told_when_full(path):
    if not _is_complete(partial, settings):
      with PartialStore(partial, settings) as images:
        _read(source, images, choices.pixels, on_bad_image)
        if not images.num_rows:
          images.save()  # For bad_images.jsonl to be complete.
          found = os.path.join(partial, packed.BAD_IMAGES)
          raise UserError(
              f'no usable image in {source.description}: '
              f'{bad_images.summary(found, source.mend)}')
        print('sorting the images by group')
        images.write_store()
    partial_store.clean_up(partial)
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
          'free some, or choose another disk with --store_dir; the same '
          'command resumes from the last save, about half a minute ago'
      ) from error
    raise


def _read(source: Source, images: PartialStore, pixels: Pixels,
          on_bad_image: str) -> None:
  """Reads the source from where the spill is to its end."""
  if images.num_done:
    print(f'resuming with {images.num_rows:,} images already prepared')
  bar = tqdm.tqdm(
      total=source.total, initial=images.num_done, desc='preparing',
      unit=source.unit, unit_scale=source.unit == 'B', dynamic_ncols=True)
  with bar, futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    for record, decoded in _decode(source, images, pixels, pool):
      problem = record.problem
      if problem is None and images.wants(record):
        try:
          images.add(record, decoded.result())
        except BadImageError as error:
          problem = str(error)
      if problem is not None:
        if on_bad_image == 'fail':
          raise UserError(
              f'{record.where}: {problem}; mend or remove it, or pass over '
              'bad images with --on_bad_image=skip')
        images.add_bad(record, problem)
      images.done(record)
      bar.update(record.size)
      bar.set_postfix_str(
          f'{images.num_rows:,} images, {images.num_bad:,} bad', refresh=False)


def _decode(source: Source, images: PartialStore, pixels: Pixels,
            pool: futures.Executor
            ) -> Iterator[tuple[Record, futures.Future | None]]:
  """The records in order, with images that are decoded ahead."""
  ahead: deque = deque()
  num_ahead = 0  # Bytes.
  for record in source.records(images.position):
    # Images that would not be kept need no decoding.
    decoded = None
    if record.problem is None and images.wants(record):
      decoded = pool.submit(read_image, record.image, pixels)
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
