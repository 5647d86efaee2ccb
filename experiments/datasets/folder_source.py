"""Images in a folder of folders: a folder per group."""

from __future__ import annotations

from collections.abc import Iterator
import functools
import os
from typing import Any

from experiments.cli import UserError
from experiments.datasets import records
from experiments.datasets.images import EXTENSIONS
from experiments.datasets.records import Record, file_state, readable


class FolderSource:
  """`DATA_DIR/GROUP/IMAGE`, of any size and format that PIL reads.

  Hidden files, and whatever has no image's extension, are passed over.
  """

  unit = 'image'
  has_ranks = False
  groupings = ()

  def __init__(self, data_dir: str):
    self._data_dir = data_dir
    self._groups = sorted(
        entry.name for entry in os.scandir(data_dir)
        if not entry.name.startswith('.')
        and (is_folder(entry) or _leads_nowhere(entry)))
    if not self._groups:
      raise UserError(
          f'{data_dir} holds no folders, no .tsv and no manifest.csv; expected '
          'one folder per group, with images')
    self.description = (
        f'a folder per group, {len(self._groups):,} of them, in '
        f'{readable(data_dir)}')

  @functools.cached_property
  def _files(self) -> list[tuple[str, list[str], str | None]]:
    return [(group, *self._list(group)) for group in self._groups]

  def _list(self, group: str) -> tuple[list[str], str | None]:
    """The images of a group, and why there are none."""
    try:
      names = sorted(
          entry.name
          for entry in os.scandir(os.path.join(self._data_dir, group))
          if not entry.name.startswith('.')
          and entry.name.lower().endswith(EXTENSIONS))
    except OSError as error:
      return [], f'cannot be listed: {error.strerror}'
    return names, None if names else 'holds no images'

  @property
  def total(self) -> int:
    return sum(max(1, len(names)) for _, names, _ in self._files)

  def fingerprint(self) -> str:
    """Of the folders' times, and the first files' sizes and times."""
    return records.digest(self._states())

  def _states(self) -> Iterator[Any]:
    num_left = records.MAX_STATED
    for group in self._groups:
      folder = os.path.join(self._data_dir, group)
      # A folder has another size on another file system.
      yield group, file_state(folder)[1:]
      names = self._list(group)[0][:num_left] if num_left else []
      num_left -= len(names)
      for name in names:
        yield name, file_state(os.path.join(folder, name))

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
          yield Record(
              readable(group), readable(path), rank, path, None, 1, number,
              name=readable(os.path.join(group, name)))


def is_folder(entry: os.DirEntry) -> bool:
  """Whether an entry is a folder, or a link to one."""
  try:
    return entry.is_dir()
  except OSError:  # A loop of links.
    return False


def _leads_nowhere(entry: os.DirEntry) -> bool:
  return entry.is_symlink() and not os.path.exists(entry.path)
