"""The packed store: decoded images of one size in a memory-mapped file.

It is a folder of six files, and two more for every additional grouping. Rows
are sorted by group; groups are in a random order that depends only on their
names and `ORDER_SEED`, so that any split by group is a slice.

  images.npy         uint8 [N, S, S, C], mapped into memory
  offsets.npy        int64 [G + 1]; group g has rows offsets[g]:offsets[g+1]
  names.json         names of the groups
  row_names.npy      S [N], UTF-8: name of each row in its source
  labels-NAME.npy    int32 [N], group of each row in the grouping NAME, or -1
  names-NAME.json    names of the groups of that grouping
  bad_images.jsonl   images that could not be used, with the reason
  manifest.json      format, source, settings, counts, names of the groupings
                     if the source has them, SHA-256 of the other files
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import hashlib
import io
import itertools
import json
import math
import os
from typing import Any, Protocol

import numpy as np

from experiments.cli import UserError
from experiments.datasets.sources.records import digest
from mlvae_jax.data.grouped import GroupedData, Labels
from mlvae_jax.data.ids import offsets_of
from mlvae_jax.files import write_atomically

FORMAT = 2  # Stores of another format are prepared again.
ORDER_SEED = 1705
IMAGES, OFFSETS, NAMES = 'images.npy', 'offsets.npy', 'names.json'
ROW_NAMES = 'row_names.npy'
BAD_IMAGES, MANIFEST = 'bad_images.jsonl', 'manifest.json'
# Files of an additional grouping.
_LABELS, _LABEL_NAMES = 'labels-{}.npy', 'names-{}.json'
# Entries of every manifest; one that lacks any is damaged.
_ENTRIES = (('num_images', int), ('num_groups', int), ('num_bad_images', int),
            ('shape', list), ('sha256', dict))
_BLOCK_BYTES = 1 << 22  # Bytes that are copied at a time.


def group_order(names: Sequence[str], seed: int = ORDER_SEED) -> list[int]:
  """The order of groups in a store: by a hash of seed and name."""
  hashes = [hashlib.sha256(f'{seed}:{name}'.encode()).digest()
            for name in names]
  return sorted(range(len(names)), key=hashes.__getitem__)


def read_manifest(path: str) -> dict[str, Any] | None:
  """The manifest of a store; None if none can be read."""
  try:
    with open(os.path.join(path, MANIFEST), encoding='utf-8') as file:
      manifest = json.load(file)
  except (OSError, ValueError):
    return None
  is_ours = isinstance(manifest, dict) and manifest.get('format') == FORMAT
  return manifest if is_ours and all(
      isinstance(manifest.get(name), kind) for name, kind in _ENTRIES) else None


def existing_manifest(path: str) -> dict[str, Any]:
  """The manifest of a store; a UserError if none can be read."""
  manifest = read_manifest(path)
  if manifest is None:
    raise UserError(f'no packed store in {path}; prepare it again')
  return manifest


def open_store(path: str, grouping: str = 'group') -> GroupedData:
  """Opens a store; its images stay on disk, mapped into memory.

  The small files are checked against the manifest, but of the images only the
  shape, which takes no time; `verify_store` checks their content.

  Args:
    path: folder of the store.
    grouping: name of the grouping of a store that does not name it.

  Returns:
    The images.

  Raises:
    UserError: when the store is damaged.
  """
  manifest = existing_manifest(path)
  try:
    grouping, *others = manifest.get('groupings') or [grouping]
    for name in _index_files(others):
      if file_digest(os.path.join(path, name)) != manifest['sha256'][name]:
        raise ValueError(f'the checksum of {name} is wrong')
    images = np.load(os.path.join(path, IMAGES), mmap_mode='r')
    if list(images.shape) != manifest['shape'] or images.dtype != np.uint8:
      raise ValueError(f'{IMAGES} does not have the shape in the manifest')
    offsets = np.load(os.path.join(path, OFFSETS))
    row_names = np.load(os.path.join(path, ROW_NAMES), mmap_mode='r')
    names = _read_names(path, NAMES)
    others = {
        name: Labels(np.load(os.path.join(path, _LABELS.format(name))),
                     _read_names(path, _LABEL_NAMES.format(name)))
        for name in others}
    return GroupedData(images, offsets, names, grouping, others, row_names)
  except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
    raise _damaged(path, error) from error


def verify_store(path: str) -> None:
  """Reads a whole store; a UserError if a checksum is wrong."""
  open_store(path)
  manifest = read_manifest(path)
  if file_digest(os.path.join(path, IMAGES)) != manifest['sha256'][IMAGES]:
    raise _damaged(path, f'the checksum of {IMAGES} is wrong')


def file_digest(path: str) -> str:
  """SHA-256 of a file, in hexadecimal."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def content_fingerprint(manifest: Mapping[str, Any]) -> dict[str, Any]:
  """The content of a store, independent of its path and that of its source.

  Args:
    manifest: manifest of the store.

  Returns:
    num_images, num_groups, and two SHA-256: `names`, of the names and groups
    of all rows, and `pixels`, of the images.
  """
  digests = manifest['sha256']
  # Without bad_images.jsonl, which names paths of the source.
  return {
      'num_images': manifest['num_images'],
      'num_groups': manifest['num_groups'],
      'names': digest(sorted(
          item for item in digests.items()
          if item[0] not in (IMAGES, BAD_IMAGES))),
      'pixels': digests[IMAGES]}


class Rows(Protocol):
  """Rows like those of an array, `[M, ...]`, read by their numbers."""

  shape: tuple[int, ...]
  dtype: np.dtype

  def __getitem__(self, rows: np.ndarray) -> np.ndarray:
    """The rows with these numbers."""


def write_store(
    path: str,
    rows: Rows,
    row_names: Rows,
    labels: np.ndarray,
    ranks: np.ndarray,
    names: Sequence[str],
    manifest: dict[str, Any],
    others: Sequence[Labels] = (),
) -> None:
  """Writes the files of a store, the manifest last.

  Args:
    path: existing folder, which already holds bad_images.jsonl.
    rows: images, uint8 `[M, S, S, C]`, in any order.
    row_names: `[M]` UTF-8 bytes, name of each row in its source.
    labels: `[M]` ints, group of each row.
    ranks: `[M]` ints, by which the rows of a group are sorted.
    names: names of the groups; groups without rows are left out.
    manifest: entries on source and settings; with additional groupings, also
      the names of all groupings, as 'groupings'.
    others: labels of the rows in the additional groupings.
  """
  count = np.bincount(labels, minlength=len(names))
  order = [g for g in group_order(names) if count[g]]
  place = np.zeros(len(names), np.int64)
  place[order] = np.arange(len(order))
  source_row = np.lexsort((ranks, place[labels]))
  sha256 = {
      name: _write_rows(os.path.join(path, name), values, source_row)
      for name, values in ((IMAGES, rows), (ROW_NAMES, row_names))}
  offsets = offsets_of(count[order])
  np.save(os.path.join(path, OFFSETS), offsets)
  _write_names(path, NAMES, [names[g] for g in order])
  other_names = manifest.get('groupings', [''])[1:]
  for name, labels_of in zip(other_names, others):
    np.save(os.path.join(path, _LABELS.format(name)),
            labels_of.ids[source_row].astype(np.int32))
    _write_names(path, _LABEL_NAMES.format(name), labels_of.names)
  # Last: a folder without a manifest is not a store.
  manifest = {
      'format': FORMAT, 'order_seed': ORDER_SEED,
      'shape': list(rows.shape), 'num_images': len(labels),
      'num_groups': len(order), 'num_bad_images': 0, **manifest,
      'sha256': sha256 | {
          name: file_digest(os.path.join(path, name))
          for name in _index_files(other_names) if name not in sha256}}
  write_atomically(
      os.path.join(path, MANIFEST), json.dumps(manifest, indent=1))


def _write_rows(path: str, rows: Rows, order: np.ndarray) -> str:
  """Writes rows in an order as .npy; returns the SHA-256 of the file."""
  # Not through a memory map, where a full disk would kill the process.
  digest = hashlib.sha256()
  header = io.BytesIO()
  np.lib.format.write_array_header_1_0(header, {
      'descr': rows.dtype.str, 'fortran_order': False, 'shape': rows.shape})
  row_bytes = rows.dtype.itemsize * math.prod(rows.shape[1:])
  step = max(1, _BLOCK_BYTES // row_bytes)
  with open(path, 'wb') as file:
    for block in itertools.chain([header.getvalue()], (
        rows[order[i:i + step]].tobytes()
        for i in range(0, len(order), step))):
      digest.update(block)
      file.write(block)
    file.flush()
    os.fsync(file.fileno())
  return digest.hexdigest()


def _index_files(others: Sequence[str]) -> list[str]:
  """The small files of a store with these additional groupings."""
  return [OFFSETS, NAMES, ROW_NAMES, BAD_IMAGES] + [
      kind.format(name) for name in others for kind in (_LABELS, _LABEL_NAMES)]


def _read_names(path: str, name: str) -> tuple[str, ...]:
  with open(os.path.join(path, name), encoding='utf-8') as file:
    return tuple(json.load(file))


def _write_names(path: str, name: str, names: Sequence[str]) -> None:
  with open(os.path.join(path, name), 'w', encoding='utf-8') as file:
    json.dump(list(names), file)


def _damaged(path: str, error: Exception | str) -> UserError:
  return UserError(
      f'the packed store {path} is damaged ({error}); delete this folder, and '
      'the store will be prepared again')
