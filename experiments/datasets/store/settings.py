"""What determines a packed store, and in which folder it lies."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from typing import Any

from experiments.datasets.sources import detect
from experiments.datasets.sources.images import Pixels
from experiments.datasets.sources.manifest import ManifestSource
from experiments.datasets.sources.records import Source, readable
from experiments.datasets.store import packed


@dataclasses.dataclass(frozen=True)
class StoreSettings:
  """What determines a packed store, besides its source.

  Attributes:
    image_size: height and width in pixels.
    top_k: number of images to keep per group, those of the best ranks, where
      the source has ranks; 0 keeps all.
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
    UserError: without data_dir, or where its header cannot be used.
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
