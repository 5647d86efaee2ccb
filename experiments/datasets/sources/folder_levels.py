"""Decides which level of nested folders are the groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import os
import re
import shlex

from experiments.cli import UserError
from experiments.datasets.sources import records
from experiments.datasets.sources.images import is_image
from experiments.datasets.sources.records import readable

_SPLIT = re.compile(
    '(train|training|trainval|val|valid|validation|dev|development|test|'
    'testing|eval|evaluation|holdout)([-_ ]?(set|data|split|images))?'
    r'([-_]?\d{4})?')
_MAX_DEPTH = 20
# Maximum numbers of folders, and of files in each, to open in order to find
# out whether a folder holds images at all.
_MAX_FOLDERS, _MAX_FILES = 100, 200
# If there are more folders, all are assumed to hold images.
_FEW = 20


def check_first_level(data_dir: str) -> None:
  """Checks that the first folders below a folder may be its groups.

  Args:
    data_dir: path of the folder.

  Raises:
    UserError: when a single folder holds images, and they are in folders
      inside it; or when all are named like splits, and contain folders. The
      message names the flags for each choice.
  """
  names = with_images(data_dir, _folders(data_dir))
  if len(names) == 1:
    _check_single(data_dir, names[0])
  elif names and all(_SPLIT.fullmatch(name.lower()) for name in names):
    _check_splits(data_dir, names)


def parse_groupings(text: str) -> tuple[str, ...]:
  """The names of nested groupings, such as 'alphabet/character'.

  Args:
    text: names from the outermost folder inwards, separated by slashes; ''
      for none.

  Returns:
    The names.

  Raises:
    ValueError: on names that are not identifiers, or not different.
  """
  names = tuple(text.split('/')) if text else ()
  # The packed store names files after groupings; some file systems ignore case.
  if not all(map(str.isidentifier, names)) or len(
      set(map(str.casefold, names))) < len(names):
    raise ValueError(
        'expected --nested_groupings as different names of letters, digits and '
        f'underscores, such as alphabet/character, got {text!r}')
  return names


def named_levels(data_dir: str, names: Sequence[str]) -> tuple[str, ...]:
  """The groupings that folders have, of those named from the outermost.

  Args:
    data_dir: path of a folder of images in nested folders.
    names: names of the levels; if there are fewer levels, the last names
      apply.

  Returns:
    The names of the levels that there are; () for a single one, or no images.

  Raises:
    UserError: when images lie deeper than there are names.
  """
  path, depth = data_dir, 0
  while depth <= len(names) and not (depth and _holds_images(path)):
    inner = (os.path.join(path, name) for name in _folders(path))
    path = next(filter(has_images, inner), None)
    if path is None:
      return ()
    depth += 1
  if depth > len(names):
    raise UserError(
        f'{readable(data_dir)} has more levels of folders than '
        f'--nested_groupings={"/".join(names)}, as in {readable(path)}; point '
        '--data_dir at a folder inside it, name more levels, or use '
        '--group_level')
  return tuple(names[-depth:]) if depth > 1 else ()


def has_images(path: str) -> bool:
  """Whether there are images in a folder or below it."""
  return any(map(_holds_images, _below(path)))


def with_images(data_dir: str, names: list[str]) -> list[str]:
  """The folders that hold images, if there are few; all of many folders."""
  return names if len(names) > _FEW else [
      name for name in names if has_images(os.path.join(data_dir, name))]


def describe_inner(data_dir: str, name: str) -> str | None:
  """A note if all images of a group lie in subfolders of its folder."""
  path = os.path.join(data_dir, name)
  inner = _folders(path)
  if not inner or _holds_images(path):
    return None
  return ('each group\'s images lie in subfolders, such as '
          f'{readable(os.path.join(name, inner[0]))}; --group_level=2 makes '
          'the subfolders the groups instead')


def _check_single(data_dir: str, name: str) -> None:
  """Looks for the groups below a single folder."""
  # Downloads often wrap the groups' folders in one, or several, outer ones.
  path, depth = os.path.join(data_dir, name), 1
  while not _holds_images(path) and depth < _MAX_DEPTH:
    inner = _folders(path)
    if len(inner) > 1:
      break
    if not inner:
      return
    path, depth = os.path.join(path, inner[0]), depth + 1
  else:
    return  # There is one group, whichever of the folders names it.
  if has_images(path):
    raise UserError(
        f'{readable(data_dir)} holds a single folder with images, and they '
        f'lie in {len(inner):,} folders of {readable(path)}: {_flag(path)} (or '
        f'--group_level={depth + 1}) takes these as the groups, '
        f'--group_level=1 takes all images as one group, {readable(name)!r}')


def _check_splits(data_dir: str, names: list[str]) -> None:
  """Looks for groups inside folders that are named like splits."""
  inner = (os.path.join(data_dir, name, folder) for name in names
           for folder in _folders(os.path.join(data_dir, name)))
  if any(map(has_images, inner)):
    *most, last = map(readable, names)
    raise UserError(
        f'the folders of {readable(data_dir)} are named like splits '
        f'({", ".join([*most, last])}) and contain folders: --group_level=2 '
        'pools them and makes the inner folders the groups; '
        f'{_flag(os.path.join(data_dir, names[0]))} reads one of them only; '
        f'--group_level=1 keeps {", ".join(most)} and {last} as the groups')


def _flag(path: str) -> str:
  return f'--data_dir={shlex.quote(readable(path))}'


def _folders(path: str) -> list[str]:
  return _listed(path)[0]


def _holds_images(path: str) -> bool:
  """Whether there are images in a folder itself."""
  return any(is_image(os.path.join(path, name))
             for name in _listed(path)[1][:_MAX_FILES])


def _below(path: str) -> Iterator[str]:
  """A folder and those below it, level by level, up to a maximum number."""
  waiting = [path]  # Grows while the loop goes over it.
  for number, folder in enumerate(waiting):
    if number >= _MAX_FOLDERS:
      return
    yield folder
    waiting += [os.path.join(folder, name)
                for name in _folders(folder)[:_MAX_FOLDERS]]


def _listed(path: str) -> tuple[list[str], list[str]]:
  try:
    return records.list_folder(path)
  except OSError:
    return [], []
