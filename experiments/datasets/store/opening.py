"""Opens the packed store of a source, and prepares it if there is none."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import fcntl
import json
import os
from typing import Any

from experiments.cli import UserError
from experiments.datasets.sources import detect, unknown
from experiments.datasets.sources.records import Source, readable
from experiments.datasets.store import packed, packing
from experiments.datasets.store.settings import StoreSettings, store_path
from mlvae_jax.data.grouped import GroupedData


def open_or_prepare(
    data_dir: str | None, *, store_dir: str | None = None,
    on_bad_image: str = 'skip', grouping: str = 'group',
    show_notes: bool = True, **settings: Any,
) -> GroupedData:
  """The packed store of a source; prepares it if there is none.

  Args:
    data_dir: path of the source, see `sources.detect`.
    store_dir: folder of the stores; by default the user's cache folder.
    on_bad_image: 'skip' continues without bad images, 'fail' stops at the
      first.
    grouping: name of the grouping of a source that does not name it.
    show_notes: whether to print what else is there, and the flags that read
      it.
    **settings: settings of the store, see `StoreSettings`.

  Returns:
    The images, mapped into memory.

  Raises:
    UserError: when the source or the store cannot be used.
  """
  choices = StoreSettings(**settings)
  source = None
  # A store can be used on its own, after its source has been deleted.
  if not data_dir or os.path.exists(detect.absolute(data_dir)):
    source = choices.detect(data_dir)
  path = store_path(data_dir, store_dir, **settings)
  manifest = packed.read_manifest(path)
  if source is None and manifest is not None:
    print(f'{readable(data_dir)} does not exist; using its packed store')
  else:
    source = source or choices.detect(data_dir)  # Raises if it is gone.
    print(f'data: {source.description}')
    for note in source.notes if show_notes else ():
      print(f'note: {note}')
    manifest = _up_to_date(source, path, choices, on_bad_image)
  print(describe(path, manifest))
  if manifest['num_bad_images'] and on_bad_image == 'fail':
    raise UserError(
        f'{manifest["num_bad_images"]} bad images, the first is '
        f'{_first_bad(path)}; repair or remove it and delete {path}, or skip '
        'bad images with --on_bad_image=skip')
  data = packed.open_store(path, grouping)
  if manifest.get('groupings'):  # Groups are from a table, not from folders.
    for warning in unknown.warnings(data):
      print(f'warning: {warning}')
  return data


def _up_to_date(source: Source, path: str, choices: StoreSettings,
                on_bad_image: str) -> dict[str, Any]:
  """The manifest of a source's store, which is prepared if need be."""
  fingerprint = source.fingerprint()
  manifest = packed.read_manifest(path)
  if manifest is not None and manifest.get('fingerprint') == fingerprint:
    return manifest
  with _only_one(path):
    # Another process may have prepared it while this one waited for the lock.
    manifest = packed.read_manifest(path)
    if manifest is None or manifest.get('fingerprint') != fingerprint:
      packing.prepare(source, path, choices, on_bad_image)
  return packed.read_manifest(path)


def describe(path: str, manifest: dict[str, Any]) -> str:
  """A line that describes a store."""
  bad = manifest['num_bad_images']
  return (
      f'packed store: {manifest["num_images"]:,} images of '
      f'{manifest["num_groups"]:,} groups in {path}'
      + (f'; {bad:,} bad image{"s" if bad > 1 else ""} skipped, see '
         f'{os.path.join(path, packed.BAD_IMAGES)}' if bad else ''))


def _first_bad(path: str) -> str:
  with open(os.path.join(path, packed.BAD_IMAGES), encoding='utf-8') as file:
    first = json.loads(file.readline())
  return f'{first["where"]}: {first["problem"]}'


@contextlib.contextmanager
def _only_one(path: str) -> Iterator[None]:
  """Lets one process at a time prepare a store."""
  # The lock is next to the store, whose folder is replaced as a whole.
  try:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    file = open(f'{path}.lock', 'w')
  except OSError as error:
    raise UserError(
        f'cannot write {path}.lock: {error.strerror}; choose another folder '
        'with --store_dir') from error
  for folder in (path, f'{path}.partial'):
    if os.path.lexists(folder) and not os.path.isdir(folder):
      file.close()
      raise UserError(
          f'{folder} is not a folder; move it away, or choose another folder '
          'with --store_dir')
  with file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      print('another process is preparing this data set; waiting for it')
      fcntl.flock(file, fcntl.LOCK_EX)
    yield
