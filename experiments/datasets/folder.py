"""Photographs by group: a folder of folders, a CSV, TSV shards, or TFDS.

The data sets `folder`, `celeb`, `celeba` and `omniglot` are all read here; they
differ in their presets. For every source, the images come from its packed
store.
"""

from __future__ import annotations

import dataclasses
import math
import os
from typing import Any

from experiments.cli import UserError
from experiments.config.settings import Config
from experiments.datasets import splits
from experiments.datasets.rotations import rotate_training_groups
from experiments.datasets.sources import detect, folder_levels
from experiments.datasets.sources.manifest import ManifestSource
from experiments.datasets.store import opening, packed
from experiments.datasets.store.settings import store_path
from mlvae_jax.data.grouped import GroupedData
from mlvae_jax.model.factors import Factor, parse_factors

# Names of the grouping, for sources that do not name it.
GROUPINGS = {
    'folder': 'group', 'celeb': 'identity', 'celeba': 'identity',
    'omniglot': 'character'}
# Settings that only these data sets read.
SETTINGS = (
    'celeb_top_k', 'resize', 'black', 'white', 'read_as', 'group_level',
    'nested_groupings', 'split_by', 'split_fractions', 'rotations_as_groups')
# Splitting by image copies the images into memory; a split by group is a slice
# of the file on disk.
_MAX_COPY_BYTES = 8 << 30
_TFDS_NAMES = {'celeba': 'celeb_a', 'omniglot': 'omniglot'}


def load(config: Config, show_notes: bool = True) -> splits.Splits:
  """Opens the packed store of a source, and prepares it if it is missing.

  Images are grey if all are grey, otherwise RGB.

  Args:
    config: configuration, of which data_dir, store_dir, read_as, group_level,
      nested_groupings, image_size, resize, black, white, celeb_top_k,
      on_bad_image, model, factors, split_by, split_fractions and
      rotations_as_groups are read.
    show_notes: whether to print what else is in data_dir, and the flags that
      read it; for entry points that have these flags.

  Returns:
    The splits: groups, or with split_by='image' images, are divided in the
    proportions split_fractions. If there are several groupings, that of the
    first factor is split, or the one that split_by names; groups of the others
    may be in all splits.

  Raises:
    UserError: when the data cannot be used, or cannot be split.
  """
  _check_columns(config)
  data = open_images(config, show_notes)
  if config.split_by == 'image' and data.x.nbytes > _MAX_COPY_BYTES:
    raise UserError(
        f'{data.x.nbytes / 1e9:.0f} GB of images are too many to split by '
        'image; use --split_by=group')
  found = splits.split(data, config)
  if config.rotations_as_groups:
    found = rotate_training_groups(found)
  return dataclasses.replace(
      found, content=packed.content_fingerprint(store_manifest(config)))


def check(config: Config) -> None:
  """Checks black, white, nested_groupings, rotations_as_groups and factors.

  Args:
    config: configuration of a run.

  Raises:
    ValueError: when one of them makes no sense.
  """
  _check_scale(config.black, config.white)
  folder_levels.parse_groupings(config.nested_groupings)
  if config.rotations_as_groups and config.split_by == 'image':
    raise ValueError(
        '--rotations_as_groups needs --split_by=group or the name of another '
        'grouping, so that training and test share no group')
  parse_factors(config.factors)


def open_images(config: Config, show_notes: bool = True) -> GroupedData:
  """All images of a configuration, from the packed store."""
  return opening.open_or_prepare(
      **store_settings(config), on_bad_image=config.on_bad_image,
      grouping=GROUPINGS[config.dataset], show_notes=show_notes)


def bad_images(config: Config) -> str | None:
  """The file that lists the images of a data set that cannot be used.

  None if there are no such images, or the data set has no packed store.
  """
  if config.dataset not in GROUPINGS:
    return None
  path = os.path.join(
      store_path(**store_settings(config)), packed.BAD_IMAGES)
  return path if os.path.exists(path) and os.path.getsize(path) else None


def store_manifest(config: Config) -> dict[str, Any]:
  """The manifest of the packed store of a configuration.

  Args:
    config: configuration of a run, with a prepared store.

  Returns:
    The content of its manifest.json.

  Raises:
    UserError: when the store is missing.
  """
  return packed.existing_manifest(
      store_path(**store_settings(config)))


def store_settings(config: Config) -> dict[str, object]:
  """The settings that determine the packed store of a configuration."""
  data_dir = config.data_dir
  if config.dataset in _TFDS_NAMES:
    data_dir = _prepared_by_tfds(data_dir, _TFDS_NAMES[config.dataset])
  return {
      'data_dir': data_dir, 'store_dir': config.store_dir,
      'image_size': config.image_size, 'top_k': config.celeb_top_k,
      'sort_by': next((f.grouping for f in _grouped(config)), None),
      'resize': config.resize, 'black': config.black, 'white': config.white,
      'read_as': config.read_as, 'group_level': config.group_level,
      'nested_groupings': config.nested_groupings}


def _check_scale(black: float | None, white: float | None) -> None:
  """Raises a ValueError when the values that were given make no scale."""
  given = [f'--{name}={value}' for name, value in (
      ('black', black), ('white', white)) if value is not None]
  is_finite = all(v is None or math.isfinite(v) for v in (black, white))
  if len(given) == 2 and not (is_finite and black < white):
    raise ValueError(
        f'{given[0]} must be below {given[1]}, and both must be finite')
  if not is_finite:
    raise ValueError(f'{given[0]} must be finite')
  if white is not None and black is None and white <= 0:
    raise ValueError(f'{given[0]} must be above the value of black, 0; set '
                     '--black as well')


def _grouped(config: Config) -> list[Factor]:
  """The grouped factors of a configuration."""
  return [factor for factor in parse_factors(config.factors)
          if factor.grouping]


def _check_columns(config: Config) -> None:
  """Checks, before hours of preparing, that a CSV has all factors' groupings.
  """
  csv_path = detect.find_csv(
      store_settings(config)['data_dir'], config.read_as)
  if csv_path is None or config.model == 'vae':
    return
  splits.check_groupings(config, ManifestSource(csv_path).groupings, csv_path)


def _prepared_by_tfds(data_dir: str | None, name: str) -> str:
  """The folder of a data set of TFDS; without --data_dir in its usual place.

  A folder of images, for example of Omniglot, is returned unchanged.
  """
  root = os.path.expanduser(
      data_dir or os.environ.get('TFDS_DATA_DIR')
      or os.path.join('~', 'tensorflow_datasets'))
  found = os.path.join(root, name)
  if os.path.isdir(found):
    return found
  if data_dir is None:
    raise UserError(
        f'no prepared {name} in {root}; point --data_dir at the folder that '
        f'holds {name}, or at a folder with a folder of images per group')
  return data_dir
