"""The settings that determine a packed store, and its folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from typing import Any

from experiments.cache import cache_folder
from experiments.datasets.sources import detect, folder_levels, records
from experiments.datasets.sources.images import Pixels
from experiments.datasets.sources.manifest import ManifestSource
from experiments.datasets.sources.records import Source, readable
from experiments.datasets.store import packed


@dataclasses.dataclass(frozen=True)
class StoreSettings:
  """The settings that determine a packed store, together with its source.

  Attributes:
    image_size: height and width in pixels.
    top_k: number of images with the best ranks to keep per group, if the
      source has ranks; 0 keeps all.
    sort_by: grouping to sort by, if the source has several; by default, and
      if there is none of this name, the first.
    resize, black, white: conversion of images, see `images.Pixels`.
    read_as, group_level, nested_groupings: way to read the source, see
      `sources.detect`.
  """

  image_size: int
  top_k: int = 0
  sort_by: str | None = None
  resize: str = 'squeeze'
  black: float | None = None
  white: float | None = None
  read_as: str = 'auto'
  group_level: int = 0
  nested_groupings: str = ''

  @property
  def pixels(self) -> Pixels:
    """The conversion of each image."""
    return Pixels(self.image_size, self.resize, self.black, self.white)

  def detect(self, data_dir: str | None) -> Source:
    """The source at a path, see `sources.detect`."""
    return detect.detect(
        data_dir, self.sort_by, self.read_as, self.group_level,
        self.nested_groupings)

  def to_dict(self) -> dict[str, Any]:
    """All settings but those that the source resolves to its groupings."""
    values = dataclasses.asdict(self)
    del values['sort_by'], values['nested_groupings']
    return values


def store_path(data_dir: str | None, store_dir: str | None = None,
               **settings: Any) -> str:
  """The folder of the store of a source with some settings.

  Args:
    data_dir: path of the source, which need not exist any more.
    store_dir: folder of the stores; by default the user's cache folder.
    **settings: settings of the store, see `StoreSettings`.

  Returns:
    The path.

  Raises:
    UserError: without data_dir, or when the header of a .csv cannot be used.
  """
  choices = StoreSettings(**settings)
  if not data_dir:
    detect.detect(data_dir)  # Raises.
  data_dir = detect.absolute(data_dir)
  if store_dir is None:
    store_dir = cache_folder()
  name = ''.join(c if c.isalnum() else '-' for c in readable(
      os.path.basename(data_dir)))[:40]

  def path(*more: str) -> str:
    # A hash of everything that the images depend on, so that stores of
    # different settings do not replace each other.
    key = hashlib.sha256(json.dumps(
        [data_dir, packed.FORMAT, choices.to_dict(), *more]).encode())
    return os.path.join(
        detect.absolute(store_dir),
        f'{name}-{choices.image_size}-{key.hexdigest()[:12]}')

  sort_by = choices.sort_by
  csv_path = detect.find_csv(data_dir, choices.read_as)
  if csv_path:
    return path(ManifestSource(csv_path, sort_by).groupings[0])
  # A path that does not exist any more may have been a .csv.
  if sort_by and not os.path.exists(data_dir) and os.path.isdir(path(sort_by)):
    return path(sort_by)
  # Whether the source has these groupings is found out when it is read.
  return path(*records.sorted_by(
      folder_levels.parse_groupings(choices.nested_groupings)[::-1], sort_by))
