"""Images in a folder of folders: a folder per group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
import functools
import os
from typing import Any

from experiments.cli import UserError
from experiments.datasets.sources import records
from experiments.datasets.sources.records import Record, file_state, readable

_NO_GROUP = 'lies in no group\'s folder'
_NO_IMAGES = 'holds no images'
_LINKS_BACK = 'is a link to a folder above it, or to one that was read already'


class FolderSource:
  """`DATA_DIR/GROUP/IMAGE`, or `DATA_DIR/GROUP/ANYTHING/IMAGE`.

  With names of nested groupings, such as alphabet and character, it is
  `DATA_DIR/ALPHABET/CHARACTER/IMAGE`: every level is a grouping, in which a
  group is named by its whole path, such as Greek/character01.

  The content of a file determines whether it is an image. Everything else,
  except litter (`records.is_litter`), is listed as bad.

  Attributes:
    level: level of the folder that names the group.
    group_names: names of the groups' folders.
    groupings: names of nested groupings, beginning with the one to sort by.
  """

  unit = 'image'
  has_ranks = False

  def __init__(self, data_dir: str, level: int = 1, sought: str = 'folders',
               nested: Sequence[str] = (), sort_by: str | None = None):
    """Finds the folders of the groups.

    Args:
      data_dir: folder that holds everything.
      level: level of the folder that names the group; 1 is the first below
        data_dir. Folders with the same name are one group.
      sought: what is missing, in words, for the error if there are none.
      nested: names of the groupings of all levels, from the outermost, if the
        levels are groupings; then `level` is their number.
      sort_by: grouping of these to put first; by default the innermost.

    Raises:
      UserError: when there are no folders at this level.
    """
    self._data_dir, self._nested = data_dir, tuple(nested)
    self.level = level = len(nested) or level
    self.groupings = records.sorted_by(nested[::-1], sort_by)
    self._folders, self._strays = _find_groups(data_dir, level)
    where = readable(data_dir)
    if not self._folders:
      raise UserError(_no_folders(where, level, len(self._strays), sought))
    self.group_names = sorted(set(map(os.path.basename, self._folders)))
    self.notes: tuple[str, ...] = ()
    num_folders, num_groups = len(self._folders), len(self.group_names)
    self.description = (
        f'folders {"/".join(nested).upper()}, {num_folders:,} of the last, in '
        f'{where}' if nested else
        f'a folder per group, {num_groups:,} of them, in {where}'
        + (f', at level {level}' if level > 1 else '')
        + (f', {num_folders:,} folders pooled by name'
           if num_folders > num_groups else ''))

  @functools.cached_property
  def _files(self) -> list[tuple[str, list[str], dict[str, str]]]:
    """The groups' folders, the files in each, and the problems of some."""
    found = []
    for folder in self._folders:
      names, problems = [], {}
      for name, problem in self._walk(folder):
        names.append(name)
        if problem:
          problems[name] = problem
      found.append((folder, names, problems))
    return found

  def _walk(self, folder: str) -> Iterator[tuple[str, str | None]]:
    """The files of a group's folder; or '' with the reason why there are none.
    """
    path = os.path.join(self._data_dir, folder)
    is_empty = True
    for found in _walk(path, [os.path.realpath(path)]):
      is_empty = False
      yield found
    if is_empty:
      yield '', _NO_IMAGES

  @property
  def total(self) -> int:
    return len(self._strays) + sum(len(names) for _, names, _ in self._files)

  def fingerprint(self) -> str:
    """A hash of the files' names, and of the first files' sizes and times.

    After enough files, folders without subfolders are represented by their
    times, which change with the names in them.
    """
    return records.digest(self._states())

  def _states(self) -> Iterator[Any]:
    yield from self.groupings
    yield from self._strays
    num_left = records.MAX_STATED
    for folder in self._folders:
      path = os.path.join(self._data_dir, folder)
      # Without the size, which depends on the file system.
      yield folder, file_state(path)[1:]
      if num_left <= 0 and _is_flat(path):
        continue
      for name, _ in self._walk(folder):
        yield name, (
            file_state(os.path.join(path, name)) if num_left > 0 else None)
        num_left -= 1

  def records(self, position: int | None = None) -> Iterator[Record]:
    number, start = 0, position or 0
    for path, problem in self._strays:
      number += 1
      if number > start:
        yield Record(
            '', readable(os.path.join(self._data_dir, path)), 0, None, problem,
            1, number)
    # A rank is the image's number in its group, whose folders may be several.
    # Counting starts at the first record also when reading resumes.
    ranks = Counter()
    for folder, names, problems in self._files:
      group, *others = self._groups(folder)
      for name in names:
        number += 1
        problem, rank = problems.get(name), ranks[group]
        ranks[group] += problem is None
        if number > start:
          relative = os.path.join(folder, name) if name else folder
          path = os.path.join(self._data_dir, relative)
          yield Record(
              group, readable(path), rank, None if problem else path, problem,
              1, number, tuple(others), readable(relative))

  def _groups(self, folder: str) -> list[str]:
    """The names of the groups of a folder, in the order of the groupings."""
    if not self._nested:
      return [readable(os.path.basename(folder))]
    parts = readable(folder).split('/')
    return ['/'.join(parts[:self._nested.index(name) + 1])
            for name in self.groupings]

  def mend(self, where: str, problem: str) -> str:
    del where
    return {
        _NO_GROUP: 'put the images of each group into a folder of its own, or '
                   'name images and groups in a manifest.csv',
        _NO_IMAGES: 'put images there, or choose another --data_dir',
    }.get(problem, '')


def _find_groups(data_dir: str, level: int
                 ) -> tuple[list[str], list[tuple[str, str]]]:
  """The folders at a level; and other entries above them, with a problem."""
  folders, strays = [''], []
  for _ in range(level):
    outer, folders = folders, []
    for folder in outer:
      path = os.path.join(data_dir, folder)
      try:
        names, files = records.list_folder(path)
      except OSError as error:
        if not folder:
          raise
        strays.append((folder, f'cannot be listed: {error.strerror}'))
        continue
      # A dangling link was meant to be a group.
      lost = {name for name in files
              if not os.path.exists(os.path.join(path, name))}
      back = {name for name in names
              if os.path.islink(os.path.join(path, name))
              and _is_above(os.path.join(path, name), path)}
      folders += [os.path.join(folder, name)
                  for name in sorted({*names, *lost} - back)]
      strays += [
          (os.path.join(folder, name),
           _LINKS_BACK if name in back else _NO_GROUP)
          for name in sorted({*files, *back} - lost)]
      if folder and not names and not files:
        strays.append((folder, _NO_IMAGES))
  return folders, strays


def _walk(folder: str, roots: list[str]) -> Iterator[tuple[str, str | None]]:
  """The files below a folder in the order of names, with their problems.

  Args:
    folder: folder to look into.
    roots: real paths of folders that were read already; links add to them.

  Yields:
    Relative path ('' is the folder itself), and its problem or None.
  """
  try:
    folders, files = records.list_folder(folder)
  except OSError as error:
    yield '', f'cannot be listed: {error.strerror}'
    return
  folders = set(folders)
  for name in sorted([*folders, *files]):
    path = os.path.join(folder, name)
    if name not in folders:
      yield name, None
    # Links may lead in circles, or to images that would be read twice.
    elif any(_is_above(path, root) or _is_above(root, path)
             for root in roots if os.path.islink(path)):
      yield name, _LINKS_BACK
    else:
      if os.path.islink(path):
        roots.append(os.path.realpath(path))
      for inner, problem in _walk(path, roots):
        yield os.path.join(name, inner) if inner else name, problem


def _is_above(path: str, folder: str) -> bool:
  """Whether a path leads to a folder, or to one that contains it."""
  # With a slash at the end, so that a/b is not above a/bc.
  return os.path.join(os.path.realpath(folder), '').startswith(
      os.path.join(os.path.realpath(path), ''))


def _is_flat(path: str) -> bool:
  """Whether a folder has no subfolders, if the file system counts them."""
  # Each subfolder links to its parent; some file systems count 1 for all.
  try:
    return os.stat(path).st_nlink == 2
  except OSError:
    return True


def _no_folders(where: str, level: int, num_files: int, sought: str) -> str:
  if level > 1:
    return (f'{where} holds no folders at level {level}; choose another '
            '--group_level, where 1 is the first level below --data_dir')
  files = (f'; {num_files:,} files lie directly in it, so if it is itself a '
           'group, give the folder above it') if num_files else ''
  return (f'{where} holds no {sought}; expected one folder per group, with '
          f'images{files}')
