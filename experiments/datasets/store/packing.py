"""Streams a source into a packed store: once, in bounded memory, resumable.

Images are decoded in parallel and appended to a partial store in the order of
the source; if only the best ranks of a group are kept, a better image takes
the slot of the worst. At the end the slots are written out sorted by group.
Every half a minute the position in the source and the index of slots are
saved; after a kill, the work since then is simply done again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent import futures
import contextlib
import errno
import os
import shutil
from typing import Any

import tqdm

from experiments.cli import UserError
from experiments.datasets.sources.images import (
    BadImageError,
    Pixels,
    read_image,
)
from experiments.datasets.sources.records import Record, Source
from experiments.datasets.store import bad_images, packed, partial_store
from experiments.datasets.store.partial_store import PartialStore
from experiments.datasets.store.settings import StoreSettings

# Maximum numbers of records, and of encoded bytes, that are read ahead to be
# decoded in parallel.
_IN_FLIGHT, _BYTES_IN_FLIGHT = 256, 256 << 20


def prepare(source: Source, path: str, choices: StoreSettings,
            on_bad_image: str = 'skip') -> None:
  """Packs a source into a store, or resumes from the last save of a try.

  Args:
    source: source of the images.
    path: folder of the store, which appears when it is complete.
    choices: settings of the store.
    on_bad_image: 'skip' or 'fail'.

  Raises:
    UserError: when the disk is full, no image can be used, or an image is bad
      and on_bad_image='fail'. The last save is kept, to resume from.
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
          images.save()  # Completes bad_images.jsonl on disk.
          found = os.path.join(partial, packed.BAD_IMAGES)
          raise UserError(
              f'no usable image in {source.description}: '
              f'{bad_images.summary(found, source.mend)}')
        print('sorting the images by group')
        images.write_store()
    partial_store.clean_up(partial)
    # Only now is the old store deleted. A kill in between leaves the complete
    # partial folder, which the next try finds and renames.
    if os.path.isdir(path):
      shutil.rmtree(path)
    os.rename(partial, path)


def _is_complete(partial: str, settings: dict[str, Any]) -> bool:
  """Whether an earlier try wrote the whole store with the same settings."""
  manifest = packed.read_manifest(partial)
  return manifest is not None and settings.items() <= manifest.items()


@contextlib.contextmanager
def _told_when_full(path: str) -> Iterator[None]:
  """Turns the error of a full disk into advice."""
  try:
    yield
  except OSError as error:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
      raise UserError(
          f'no space left for the packed store in {os.path.dirname(path)}; '
          'free some space, or choose another disk with --store_dir; the same '
          'command resumes from the last save, about half a minute ago'
      ) from error
    raise


def _read(source: Source, images: PartialStore, pixels: Pixels,
          on_bad_image: str) -> None:
  """Reads the source from the position of the partial store onwards."""
  if images.num_done:
    print(f'resuming with {images.num_rows:,} images already prepared')
  bar = tqdm.tqdm(
      total=source.total, initial=images.num_done, desc='preparing',
      unit=source.unit, unit_scale=source.unit == 'B', dynamic_ncols=True)
  with bar, futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    for record, decoded in _decode(source, images, pixels, pool):
      problem = record.problem
      # Asked again: since it was read ahead, better images may have come.
      if problem is None and images.wants(record):
        try:
          images.add(record, decoded.result())
        except BadImageError as error:
          problem = str(error)
      if problem is not None:
        if on_bad_image == 'fail':
          raise UserError(
              f'{record.where}: {problem}; repair or remove it, or skip bad '
              'images with --on_bad_image=skip')
        images.add_bad(record, problem)
      images.done(record)
      bar.update(record.size)
      bar.set_postfix_str(
          f'{images.num_rows:,} images, {images.num_bad:,} bad', refresh=False)


def _decode(source: Source, images: PartialStore, pixels: Pixels,
            pool: futures.Executor
            ) -> Iterator[tuple[Record, futures.Future | None]]:
  """The records in order, with images that are decoded ahead of time."""
  ahead: deque = deque()
  num_ahead = 0  # Bytes.
  for record in source.records(images.position):
    # Images that would not be kept need not be decoded.
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
