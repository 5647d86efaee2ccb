"""Images of data sets that TFDS has prepared, read without TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import functools
import os
from typing import Any

from experiments.cli import UserError
from experiments.datasets.sources import records
from experiments.datasets.sources.records import Record, file_state, readable

_INFO = 'dataset_info.json'
_MAX_DATA_SETS = 1000  # A folder with more folders has one per group.
_SUBSETS = ('small1', 'small2')  # These splits of Omniglot repeat train.


class TfdsSource:
  """A data set prepared by TFDS with random access.

  All its splits are read, one after the other, except those that repeat images
  of others. The group is the feature 'identity', 'identity/Identity_No'
  (CelebA) or 'label' (Omniglot, MNIST). Of nested groupings, the outer ones are
  the features with their names, such as the 'alphabet' of Omniglot.

  Attributes:
    groupings: names of nested groupings, beginning with the one to sort by; ()
      if there are no features for the outer ones.
  """

  unit = 'image'
  has_ranks = False

  def __init__(self, folder: str, nested: Sequence[str] = (),
               sort_by: str | None = None):
    """Opens the data set.

    Args:
      folder: folder of its version.
      nested: names of nested groupings, the innermost last.
      sort_by: grouping of these to put first; by default the innermost.

    Raises:
      UserError: when it cannot be read, or has no images or groups.
    """
    import tensorflow_datasets as tfds  # Slow to import: only where needed.

    self._folder = folder
    self.notes: tuple[str, ...] = ()
    try:
      builder = tfds.builder_from_directory(folder)
      features = builder.info.features
      self._label = _group_feature(features)
      # Images are decoded later, in parallel, and like those of other sources.
      decoders = {'image': tfds.decode.SkipDecoding()}
      self._splits = [
          (name, builder.as_data_source(split=name, decoders=decoders))
          for name in sorted(builder.info.splits)
          if name not in _SUBSETS]
    except Exception as error:  # TFDS raises whatever its readers raise.
      raise UserError(
          f'cannot read the data set that TFDS prepared in {folder}: {error}; '
          '--read_as=folders reads a folder per group instead') from error
    if self._label is None or 'image' not in features:
      raise UserError(
          f'{folder} has the features {sorted(features)}; expected image, and '
          'identity or label')
    outer = [(name, (name,)) for name in nested[:-1] if name in features]
    found = dict([(nested[-1], self._label), *outer]) if outer else {}
    self.groupings = records.sorted_by(found, sort_by)
    self._paths = [found[name] for name in self.groupings] or [self._label]
    self.description = (
        f'a data set that TFDS prepared, {self.total:,} images, in {folder}')

  @property
  def total(self) -> int:
    return sum(len(source) for _, source in self._splits)

  def fingerprint(self) -> str:
    return records.digest([
        self.total, *self.groupings,
        *file_state(os.path.join(self._folder, _INFO))[1:]])

  def records(self, position: list[int] | None = None) -> Iterator[Record]:
    first, start = position or (0, 0)
    for number in range(first, len(self._splits)):
      name, source = self._splits[number]
      for i in range(start, len(source)):
        where = f'{self._folder} {name}[{i}]'
        groups, image, problem = [''], None, None
        try:
          record = source[i]
          groups = [_name_at(path, record) for path in self._paths]
          image = record['image']
          problem = None if groups[0] else records.NO_GROUP
        except Exception as error:
          problem = f'cannot be read: {error}'
        yield Record(
            groups[0], where, i, image, problem, 1, [number, i + 1],
            tuple(groups[1:]), f'{name}[{i}]')
      start = 0

  def mend(self, where: str, problem: str) -> str:
    del where, problem
    return ''


def find_prepared(data_dir: str) -> str | None:
  """The newest version of the only data set that TFDS prepared in a folder.

  Args:
    data_dir: folder of data sets, of one data set, or of one version.

  Returns:
    The folder of the version; None if there is no data set.

  Raises:
    UserError: when there are several data sets.
  """
  found_folders = [data_dir]
  for depth in range(3):
    found = [path for path in found_folders
             if os.path.isfile(os.path.join(path, _INFO))]
    names = {os.path.dirname(path) for path in found}
    if len(names) > 1:
      raise UserError(
          f'{data_dir} holds several data sets prepared by TFDS; point '
          '--data_dir at one of ' + ', '.join(sorted(names)))
    if found:
      return max(found, key=lambda path: os.path.getmtime(
          os.path.join(path, _INFO)))
    if len(found_folders) > _MAX_DATA_SETS or depth == 2:
      break
    found_folders = [
        path for folder in found_folders for path in _subfolders(folder)]
  return None


def _name_at(path: Sequence[str], record: Any) -> str:
  """The name of a group in a record, at the path of its feature."""
  value = functools.reduce(lambda inner, key: inner[key], path, record)
  return readable(value) if isinstance(value, bytes) else str(value)


def _group_feature(features: Any) -> tuple[str, ...] | None:
  if 'identity' in features:
    inner = features['identity']
    return ('identity', 'Identity_No') if hasattr(inner, 'keys') else (
        'identity',)
  return ('label',) if 'label' in features else None


def _subfolders(folder: str) -> list[str]:
  try:
    names, _ = records.list_folder(folder)
  except OSError:
    return []
  return [os.path.join(folder, name) for name in names]
