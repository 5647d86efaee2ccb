"""Finds out where grouped images come from."""

from __future__ import annotations

import os

from experiments.cli import UserError
from experiments.datasets import manifest, tfds_source
from experiments.datasets.folder_source import FolderSource
from experiments.datasets.manifest import ManifestSource
from experiments.datasets.records import Source
from experiments.datasets.tfds_source import TfdsSource
from experiments.datasets.tsv_source import TsvSource


def detect(data_dir: str | None, sort_by: str | None = None) -> Source:
  """Finds out what a path holds.

  Args:
    data_dir: a folder per group; a manifest.csv beside them, or any other
      .csv file; a .tsv file, or a folder of them; a data set that TFDS has
      prepared.
    sort_by: of the groupings of a .csv the one to come first.

  Returns:
    The source.

  Raises:
    UserError: when it holds none of them.
  """
  if not data_dir:
    raise UserError(
        'this data set needs --data_dir: a folder with a folder of images per '
        'group, with a manifest.csv, or with TSV files')
  data_dir = absolute(data_dir)
  csv_path = find_csv(data_dir)
  if csv_path:
    return ManifestSource(csv_path, sort_by)
  if os.path.isfile(data_dir) and data_dir.lower().endswith('.tsv'):
    return TsvSource([data_dir])
  if not os.path.isdir(data_dir):
    raise UserError(f'no folder {data_dir}; check --data_dir')
  prepared = tfds_source.find_prepared(data_dir)
  if prepared:
    return TfdsSource(prepared)
  shards = sorted(
      os.path.join(data_dir, name) for name in os.listdir(data_dir)
      if name.lower().endswith('.tsv') and not name.startswith('.')
      and not os.path.isdir(os.path.join(data_dir, name)))
  if shards:
    return TsvSource(shards)
  return FolderSource(data_dir)


def find_csv(data_dir: str | None) -> str | None:
  """The .csv file that a path is, or holds as manifest.csv; else None."""
  if not data_dir:
    return None
  data_dir = absolute(data_dir)
  if data_dir.lower().endswith('.csv') and os.path.isfile(data_dir):
    return data_dir
  path = os.path.join(data_dir, manifest.NAME)
  # A link that leads nowhere is an error to be said.
  return path if os.path.isfile(path) or os.path.islink(path) else None


def absolute(path: str) -> str:
  """A path of the user's from the root."""
  return os.path.abspath(os.path.expanduser(path))
