"""The images that a TFDS data set of faces keeps: those of the packed store.

A first pass over the source finds them; it keeps an index of their positions
in memory, without pixels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent import futures
import itertools
import json
import os
import re
from typing import NamedTuple, TextIO

import numpy as np
import tqdm

from experiments.cli import UserError
from experiments.config.presets import PRESETS
from experiments.datasets import splits
from experiments.datasets.sources import records
from experiments.datasets.sources.images import (
    BadImageError,
    Pixels,
    read_image,
)
from experiments.datasets.sources.records import Record, Source
from experiments.datasets.store import packed
from mlvae_jax.data.grouped import GroupedData

# Fractions for validation and test, as in the preset of these faces.
FRACTIONS = PRESETS['celeb'].split_fractions
_IN_FLIGHT = 256  # Records read ahead, to be decoded in parallel.


class Row(NamedTuple):
  """An image that is kept.

  Attributes:
    identity: name of its group.
    rank: rank of the image in the group.
    at: path of the image; or, as JSON in bytes, the position in the source at
      which its record starts.
  """

  identity: str
  rank: int
  at: str | bytes


class Index:
  """The images to keep, the same as in a packed store of the source."""

  def __init__(self, top_k: int):
    self._top_k = top_k
    self._rows: dict[str, list[Row]] = {}
    self.num_bad = self._num_added = self._num_bytes = 0

  @property
  def mean_bytes(self) -> float:
    """Mean size of an encoded image."""
    return self._num_bytes / max(1, self._num_added)

  def wants(self, record: Record) -> bool:
    """Whether an image of this rank would be kept."""
    return self._place(record.group, record.rank) is not None

  def add(self, row: Row, num_bytes: int) -> None:
    """Adds an image that is wanted; in a full group it replaces the worst."""
    self._num_added += 1
    self._num_bytes += num_bytes
    rows = self._rows.setdefault(row.identity, [])
    if self._top_k:
      number = self._place(row.identity, row.rank)
      del rows[number:number + 1]  # Rows stay in the source's order.
    rows.append(row)

  def _place(self, identity: str, rank: int) -> int | None:
    rows = self._rows.get(identity, ()) if self._top_k else ()
    return records.place([row.rank for row in rows], rank, self._top_k)

  def in_order(self) -> tuple[list[str], list[list[Row]]]:
    """The identities in their order, and the images of each by rank."""
    names = list(self._rows)
    names = [names[i] for i in packed.group_order(names)]
    return names, [
        sorted(self._rows[name], key=lambda row: row.rank) for name in names]


def fill(index: Index, source: Source, bad_file: TextIO, pixels: Pixels
         ) -> None:
  """Finds the images to keep, and lists those that cannot be used.

  Args:
    index: empty index to fill.
    source: source of the images, read once.
    bad_file: file that gets a line of JSON for every image that cannot be
      used.
    pixels: size to which images are decoded to check whether they can be used.
  """
  bar = tqdm.tqdm(
      total=source.total, desc='checking', unit=source.unit,
      unit_scale=source.unit == 'B', dynamic_ncols=True)
  with bar, futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    for record, at, checked in _check_ahead(
        index, source, pixels, pool):
      problem = record.problem
      # Asked again: better images may have come since it was read ahead. One
      # that is wanted now was wanted then, so there is a check.
      if problem is None and index.wants(record):
        problem, num_bytes = checked.result()
        if problem is None:
          index.add(Row(record.group, record.rank, at), num_bytes)
      if problem is not None:
        index.num_bad += 1
        bad_file.write(json.dumps({
            'where': os.path.basename(record.where), 'group': record.group,
            'problem': problem}) + '\n')
      bar.update(record.size)


def _check_ahead(
    index: Index, source: Source, pixels: Pixels, pool: futures.Executor
) -> Iterator[tuple[Record, str | bytes, futures.Future | None]]:
  """The records in order, their positions, and checks that are under way."""
  ahead: deque = deque()
  position = None
  for record in source.records():
    checked = None
    if record.problem is None and index.wants(record):
      checked = pool.submit(_check, record.image, pixels)
    at = (record.image if isinstance(record.image, str)
          else json.dumps(position).encode())
    position = record.position
    # Without the bytes: only the executor needs them, until it is done.
    ahead.append((record._replace(image=None), at, checked))
    if len(ahead) > _IN_FLIGHT:
      yield ahead.popleft()
  while ahead:
    yield ahead.popleft()


def _check(image: str | bytes, pixels: Pixels) -> tuple[str | None, int]:
  """The problem of an image, or None; and its size in bytes."""
  try:
    read_image(image, pixels)
    return None, (os.path.getsize(image) if isinstance(image, str)
                  else len(image))
  except (BadImageError, OSError) as error:
    problem = str(error)
  # PIL's messages contain a path of this machine, or an address in memory,
  # neither of which should be in a published data set.
  if isinstance(image, str):
    problem = problem.replace(repr(image), repr(os.path.basename(image)))
  return re.sub(r' ?<_io\.BytesIO[^>]*>', '', problem), 0


def split(index: Index, source: Source) -> dict[str, list[Row]]:
  """The images of each split, in the order of the packed store.

  Args:
    index: images to keep.
    source: source of the images, for errors.

  Returns:
    Rows by name of the split.

  Raises:
    UserError: when a split has no identity.
  """
  names, groups = index.in_order()
  rows = [row for group in groups for row in group]
  offsets = np.cumsum([0, *map(len, groups)])
  # With one pixel per image, the function that splits a packed store gives the
  # same splits here.
  found = splits.split_groups(GroupedData(
      np.zeros((len(rows), 1, 1, 1), np.uint8), offsets, names), FRACTIONS)
  for name in ('train', 'validation', 'test'):
    if not len(getattr(found, name)):  # TFDS cannot read an empty split.
      raise UserError(
          f'none of the {len(names)} identities of {source.description} falls '
          f'into the {name} split, which follows from a hash of their names; '
          'a TFDS data set needs more identities')
  rest = iter(rows)  # The splits are slices, in this order.
  return {
      name: list(itertools.islice(rest, len(getattr(found, name))))
      for name in ('train', 'validation', 'test')}
