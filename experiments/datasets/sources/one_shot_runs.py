"""Lake's one-shot runs: which character of an alphabet does an image show?

A run is a folder of images of one alphabet, each character drawn by two people:

  run01/class_labels.txt        test and training image in every line
  run01/test/item01.png         an image to classify
  run01/training/class01.png    the only image of each character

Runs lie in a folder or in a zip, directly or in one outer folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import os
import re
from typing import NamedTuple
import zipfile

import numpy as np

from experiments.cli import UserError
from experiments.datasets.sources import records
from experiments.datasets.sources.images import BadImageError, read_grey
from experiments.datasets.sources.records import readable

_LABELS = 'class_labels.txt'
_PARTS = ('test', 'training')
_RUN = re.compile(r'run\d+')
_NAME = re.compile(  # Outer folders, run, and what is read of it.
    rf'((?:.+/)?)({_RUN.pattern})/({re.escape(_LABELS)}|'
    rf'(?:{"|".join(_PARTS)})/[^/]+)')
_MAX_BYTES = 1 << 24  # Of a file; a PNG of Omniglot has a few hundred.


class OneShotRun(NamedTuple):
  """The images of a run.

  Attributes:
    name: name of its folder.
    test: T images to classify, `[height, width]` uint8 each.
    training: an image of each of C characters, in the same form.
    answers: `[T]` ints, the character that each test image shows.
  """

  name: str
  test: tuple[np.ndarray, ...]
  training: tuple[np.ndarray, ...]
  answers: np.ndarray


class _Files(NamedTuple):
  """The files of a folder or zip.

  Attributes:
    where: its path, for messages.
    names: names of files below it, with slashes.
    read: function that reads one of them.
  """

  where: str
  names: list[str]
  read: Callable[[str], bytes]


def read_runs(path: str) -> tuple[OneShotRun, ...]:
  """Reads one-shot runs.

  Args:
    path: path of a folder or zip that holds them.

  Returns:
    The runs, in the order of their names.

  Raises:
    UserError: when there are none, they are not complete, or an image cannot
      be read. The message names the file.
  """
  with _opened(path) as files:
    outer, runs = _find_runs(files)
    found = tuple(_read_run(files, outer, run, names)
                  for run, names in runs.items())
  first = found[0]
  for run in found:
    for part in _PARTS:
      count, expected = (len(getattr(one, part)) for one in (run, first))
      if count != expected:
        raise UserError(
            f'{files.where}: {run.name} has {count} {part} images, but '
            f'{first.name} has {expected}; complete the runs')
  return found


@contextlib.contextmanager
def _opened(path: str) -> Iterator[_Files]:
  """Opens a folder or zip."""
  where = readable(path)
  if os.path.isdir(path):
    yield _Files(where, sorted(_names_below(path)), lambda name: _read_file(
        os.path.join(path, name)))
    return
  if not os.path.exists(path):
    raise UserError(
        f'there is no folder or zip {where}; check --one_shot_runs')
  try:
    with zipfile.ZipFile(path) as archive:
      # A zip may have any names: those of folders end in a slash.
      names = [name for name in archive.namelist() if not name.endswith('/')]
      yield _Files(where, sorted(names), lambda name: _read_entry(
          archive, name))
  except (zipfile.BadZipFile, OSError) as error:
    raise UserError(f'{where} is neither a folder nor a readable zip: {error}; '
                    'check --one_shot_runs') from error


def _names_below(path: str) -> Iterator[str]:
  """The files of runs in a folder or in the folders in it."""
  for outer in ['', *(f'{name}/' for name in records.list_folder(path)[0])]:
    folders = records.list_folder(os.path.join(path, outer))[0]
    for run in filter(_RUN.fullmatch, folders):
      for inner in ('', *(f'{part}/' for part in _PARTS)):
        folder = os.path.join(path, outer, run, inner)
        if os.path.isdir(folder):
          yield from (f'{outer}{run}/{inner}{name}'
                      for name in records.list_folder(folder)[1])


def _read_file(path: str) -> bytes:
  with open(path, 'rb') as file:
    return file.read(_MAX_BYTES)


def _read_entry(archive: zipfile.ZipFile, name: str) -> bytes:
  try:
    with archive.open(name) as file:
      return file.read(_MAX_BYTES)
  except (RuntimeError, NotImplementedError) as error:  # It has a password.
    raise UserError(f'{name} cannot be read: {error}; extract the zip, and '
                    'point --one_shot_runs at the folder') from error


def _find_runs(files: _Files) -> tuple[str, dict[str, set[str]]]:
  """The folder of the runs, and the names in each run, sorted by run."""
  found = {}
  for name in files.names:
    match = _NAME.fullmatch(name)
    if match and not any(map(records.is_litter, name.split('/'))):
      outer, run, inner = match.groups()
      found.setdefault(outer, {}).setdefault(run, set()).add(inner)
  if not found:
    raise UserError(
        f'{files.where} holds no one-shot runs; expected folders run01, run02, '
        f'... with {_LABELS}, test/ and training/ in each')
  if len(found) > 1:
    raise UserError(
        f'{files.where} holds several folders of runs, '
        f'{", ".join(repr(outer) for outer in sorted(found))}; point '
        '--one_shot_runs at one of them')
  (outer, runs), = found.items()
  return outer, dict(sorted(runs.items()))


def _read_run(files: _Files, outer: str, run: str, names: set[str]
              ) -> OneShotRun:
  """Reads the labels of a run, then its images."""
  images = {part: sorted(name for name in names if name.startswith(f'{part}/'))
            for part in _PARTS}
  if _LABELS not in names:
    raise UserError(f'{files.where}: {outer}{run} has no {_LABELS}; complete '
                    'the run')
  where = f'{files.where}: {outer}{run}/{_LABELS}'
  answers = _parse_labels(
      files.read(f'{outer}{run}/{_LABELS}'), where, run, images)
  test, training = (
      tuple(_read_image(files, f'{outer}{run}/{name}') for name in images[part])
      for part in _PARTS)
  return OneShotRun(run, test, training, answers)


def _parse_labels(content: bytes, where: str, run: str,
                  images: dict[str, list[str]]) -> np.ndarray:
  """The number of the training image of each test image, `[T]`."""
  answers = {}
  lines = content.decode('utf-8', 'replace').splitlines()
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    fields = line.split()
    if len(fields) != 2:
      raise UserError(f'{where}:{number}: expected a test and a training '
                      f'image, got {line.strip()[:80]!r}')
    # Paths may start at the run, above it, or with the image itself.
    pair = [name.rpartition(f'{run}/')[2] if '/' in name else f'{part}/{name}'
            for part, name in zip(_PARTS, fields)]
    for part, name in zip(_PARTS, pair):
      if name not in images[part]:
        raise UserError(f'{where}:{number}: {name[:80]!r} is not among the '
                        f'{len(images[part])} files in {part}/')
    if pair[0] in answers:
      raise UserError(
          f'{where}:{number}: {pair[0]!r} is named a second time; give each '
          'test image one line')
    answers[pair[0]] = images['training'].index(pair[1])
  missing = [name for name in images['test'] if name not in answers]
  if missing or not answers:
    raise UserError(f'{where} has no line for {missing[0]!r}' if missing else
                    f'{where} is empty; expected a test and a training image '
                    'in every line')
  return np.array([answers[name] for name in images['test']])


def _read_image(files: _Files, name: str) -> np.ndarray:
  try:
    return read_grey(files.read(name))
  except (BadImageError, OSError) as error:
    reason = getattr(error, 'strerror', None) or error
    raise UserError(f'{files.where}: {name} {reason}; replace it') from error
