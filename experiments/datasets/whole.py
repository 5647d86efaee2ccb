"""All rows of a data set, or those of one split, for reading in order."""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
from typing import Any, NamedTuple

from experiments import datasets
from experiments.config.settings import Config
from experiments.datasets import arrays, folder
from experiments.datasets.store import packed
from mlvae_jax.data.grouped import GroupedData

SPLITS = ('all', 'train', 'validation', 'test')


class Whole(NamedTuple):
  """Rows to read.

  Attributes:
    parts: the rows, by the name of the part; '' if there is only one.
    content: record by which the rows are recognised.
  """

  parts: Mapping[str, GroupedData]
  content: Mapping[str, Any]


def open_whole(config: Config, split: str = 'all') -> Whole:
  """Opens the rows of a data set; nothing is split unless a split is asked for.

  Rows are neither standardised nor rotated. Those of a packed store and of
  `.npy` stay on disk.

  Args:
    config: configuration of a run.
    split: name of a split, or 'all'.

  Returns:
    The rows. Those of arrays without names are named by their numbers in the
    file, as long as no split is asked for.

  Raises:
    UserError: when the data are missing or broken, or the configuration does
      not fit them.
  """
  if split == 'all' and config.dataset in folder.GROUPINGS:
    data = folder.open_images(config, show_notes=False)
    return Whole({'': data}, packed.content_fingerprint(
        folder.store_manifest(config)))
  if split == 'all' and config.dataset == 'arrays':
    data, content = arrays.open_rows(config)
    return Whole({'': data}, content)
  found = datasets.load(dataclasses.replace(
      config, standardise=False, rotations_as_groups=False), show_notes=False)
  return Whole(
      {name: getattr(found, name) for name in SPLITS[1:]
       if split in ('all', name)}, found.content)
