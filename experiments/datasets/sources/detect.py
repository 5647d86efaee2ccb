"""Finds out how to read grouped images from a path."""

from __future__ import annotations

import os
import shlex

from experiments.cli import UserError
from experiments.config.flags import expand_path
from experiments.datasets.sources import (
    csv_rows,
    folder_levels,
    manifest,
    records,
    tfds,
)
from experiments.datasets.sources.folder import FolderSource
from experiments.datasets.sources.manifest import ManifestSource
from experiments.datasets.sources.records import Source, readable
from experiments.datasets.sources.tfds import TfdsSource
from experiments.datasets.sources.tsv import TsvSource, looks_like_celeb

_NEEDED = {'tsv': '.tsv files', 'tfds': 'a data set prepared by TFDS'}
# Maximum numbers of names in a note, and of files or folders to look into.
_MAX_NAMED, _MAX_LOOKED_AT = 3, 20


def detect(data_dir: str | None, sort_by: str | None = None,
           read_as: str = 'auto', group_level: int = 0,
           nested_groupings: str = '') -> Source:
  """Finds out what a path holds.

  Args:
    data_dir: path of a folder with a folder per group or a manifest.csv, of
      any other .csv file, of a .tsv file or a folder of such files, or of a
      data set prepared by TFDS.
    sort_by: grouping that comes first, of a .csv or of nested groupings.
    read_as: value of the setting of this name; 'auto' takes the first that
      exists of a manifest.csv, a data set of TFDS, .tsv files of MS-Celeb-1M,
      and folders.
    group_level: level of the folder that names an image's group; 1 is the
      first below data_dir. 0 means 1, but is an error if that looks wrong.
    nested_groupings: names of nested groupings, see
      `folder_levels.parse_groupings`, for folders and data sets of TFDS that
      have them; not with a group_level.

  Returns:
    The source. Its notes name what else is there.

  Raises:
    UserError: when the path holds none of these, or not what `read_as` asks
      for, or folders whose meaning is unclear.
  """
  if not data_dir:
    raise UserError(
        'this data set needs --data_dir: a folder with a folder of images per '
        'group, with a manifest.csv, or with TSV files')
  data_dir = absolute(data_dir)
  if os.path.isdir(data_dir):
    source = _read_folder(
        data_dir, sort_by, read_as, group_level,
        () if group_level else folder_levels.parse_groupings(nested_groupings))
  else:
    source = _read_file(data_dir, sort_by, read_as)
  if group_level and not isinstance(source, FolderSource):
    raise UserError(
        '--group_level applies only to folders of images, but --data_dir is '
        f'read as: {source.description}; leave out --group_level')
  return source


def find_csv(data_dir: str | None, read_as: str = 'auto') -> str | None:
  """The .csv file that a path is, or holds as manifest.csv; otherwise None.

  With read_as='manifest' the file may have any name; with other values except
  'auto' there is none.
  """
  if not data_dir or read_as not in ('auto', 'manifest'):
    return None
  data_dir = absolute(data_dir)
  if data_dir.lower().endswith('.csv') and os.path.isfile(data_dir):
    return data_dir
  path = os.path.join(data_dir, manifest.NAME)
  # A dangling link should be reported.
  if os.path.isfile(path) or os.path.islink(path):
    return path
  if read_as == 'auto' or not os.path.isdir(data_dir):
    return None
  found = _csv_files(data_dir, records.list_folder(data_dir)[1])
  return os.path.join(data_dir, found[0]) if len(found) == 1 else None


def absolute(path: str) -> str:
  """The absolute path of a path that the user gave."""
  return expand_path(path)


def _read_file(path: str, sort_by: str | None, read_as: str) -> Source:
  """The source that a single file is."""
  kind = os.path.splitext(path)[1].lower()
  expected = {'.csv': 'manifest', '.tsv': 'tsv'}.get(kind)
  if not os.path.isfile(path) or expected is None:
    raise UserError(
        f'{path} is neither a folder nor a .csv or .tsv file; check --data_dir'
        if os.path.exists(path) else f'no folder {path}; check --data_dir')
  if read_as not in ('auto', expected):
    raise UserError(
        f'--read_as={read_as} needs a folder, but {path} is a file; choose '
        'another --data_dir, or leave out --read_as')
  return (ManifestSource(path, sort_by) if expected == 'manifest'
          else TsvSource([path]))


def _read_folder(data_dir: str, sort_by: str | None, read_as: str,
                 group_level: int, nested: tuple[str, ...]) -> Source:
  """The source that a folder holds, with notes on what else is there."""
  folders, files = records.list_folder(data_dir)
  tsv_files = [name for name in files if name.lower().endswith('.tsv')]
  chosen, notes = read_as, []
  if read_as == 'auto':
    chosen, notes = _choose(data_dir, folders, files, tsv_files)
  try:
    if chosen == 'folders':
      source = _read_groups(data_dir, group_level, read_as, nested, sort_by)
    elif chosen == 'tsv' and tsv_files:
      source = TsvSource([os.path.join(data_dir, name) for name in tsv_files])
      source.notes += _left_out(data_dir, folders + files, tsv_files)
    elif chosen == 'manifest' and (path := find_csv(data_dir, read_as)):
      source = ManifestSource(path, sort_by)
    elif chosen == 'tfds' and (path := tfds.find_prepared(data_dir)):
      source = TfdsSource(path, nested, sort_by)
    else:
      raise UserError(_not_there(data_dir, files, chosen))
  except UserError as error:
    # The other readings may be what the user meant.
    raise UserError('; '.join([str(error), *notes])) from error
  source.notes += tuple(notes)
  return source


def _not_there(data_dir: str, files: list[str], read_as: str) -> str:
  """The error that a folder does not hold what `read_as` asks for."""
  if read_as == 'manifest':
    found = len(_csv_files(data_dir, files)) or 'none'
    return (f'--read_as=manifest needs a {manifest.NAME}, or exactly one .csv '
            f'with a column named {csv_rows.PATH!r}, in {data_dir}; found '
            f'{found}; check --data_dir or point it at one .csv')
  return (f'--read_as={read_as} needs {_NEEDED[read_as]} in {data_dir}, which '
          'has none; check --data_dir, or leave out --read_as')


def _choose(data_dir: str, folders: list[str], files: list[str],
            tsv_files: list[str]) -> tuple[str, list[str]]:
  """The reading to use, and notes that name the others with their flags."""
  found = {}  # In the order of preference.
  if manifest.NAME in files:
    found['manifest'] = ''
  try:
    prepared = tfds.find_prepared(data_dir)
  except UserError as error:  # There are several data sets.
    if not found:
      raise
    prepared, found['tfds'] = None, str(error)
  if prepared:
    found['tfds'] = (f'{readable(prepared)} was prepared by TFDS; '
                     '--read_as=tfds reads it instead')
  if tsv_files:
    them = 'it' if len(tsv_files) == 1 else 'them'
    found['tsv'] = (f'{_named(tsv_files)} may hold images, too; '
                    f'--read_as=tsv reads {them} instead')
  is_read = bool(found)
  if not is_read or any(
      folder_levels.has_images(os.path.join(data_dir, name))
      for name in folders[:_MAX_LOOKED_AT]):
    there = ('there is also 1 folder' if len(folders) == 1
             else f'there are also {len(folders):,} folders')
    found['folders'] = (
        f'{there}; --read_as=folders reads a folder per group instead')
  chosen = next(iter(found))
  # A .tsv next to folders of images may be any table, not a shard of faces.
  if chosen == 'tsv' and folders and not any(
      looks_like_celeb(os.path.join(data_dir, name))
      for name in tsv_files[:_MAX_LOOKED_AT]):
    chosen = 'folders'
  notes = [note for name, note in found.items() if name != chosen]
  return chosen, notes + [
      f'{readable(name)} also lists images; --data_dir='
      f'{shlex.quote(readable(os.path.join(data_dir, name)))} reads it instead'
      for name in _csv_files(data_dir, files) if name != manifest.NAME]


def _read_groups(data_dir: str, group_level: int, read_as: str,
                 nested: tuple[str, ...], sort_by: str | None) -> FolderSource:
  """The source with a folder per group, with notes on doubtful groups."""
  if not group_level:
    folder_levels.check_first_level(data_dir)
  if nested and (levels := folder_levels.named_levels(data_dir, nested)):
    return FolderSource(data_dir, nested=levels, sort_by=sort_by)
  source = FolderSource(
      data_dir, group_level or 1,
      'folders' if read_as == 'folders'
      else f'folders, no .tsv and no {manifest.NAME}')
  names = source.group_names
  # At deeper levels names are pooled, and are no paths below data_dir.
  if source.level == 1:
    names = folder_levels.with_images(data_dir, names) or names
  if len(names) == 1:
    source.notes += (f'all images are one group, {readable(names[0])!r}: no '
                     f'other folder of {readable(data_dir)} holds images',)
  elif not group_level:
    inner = folder_levels.describe_inner(data_dir, names[0])
    source.notes += (inner,) if inner else ()
  return source


def _csv_files(data_dir: str, files: list[str]) -> list[str]:
  """The .csv files that name images."""
  found = [name for name in files if name.lower().endswith('.csv')]
  return [name for name in found[:_MAX_LOOKED_AT]
          if manifest.names_images(os.path.join(data_dir, name))]


def _left_out(data_dir: str, names: list[str], used: list[str]
              ) -> tuple[str, ...]:
  """A note on files and folders next to the .tsv files that are not used."""
  left = [name for name in names if name not in used]
  return (f'{len(left):,} other files or folders of {readable(data_dir)} are '
          f'ignored: {_named(left)}',) if left else ()


def _named(names: list[str]) -> str:
  """The first of some names, and how many more there are."""
  more = len(names) - _MAX_NAMED
  return readable(', '.join(names[:_MAX_NAMED])) + (
      f' and {more:,} more' if more > 0 else '')
