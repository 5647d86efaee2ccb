"""Train, validation and test splits of grouped images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import shlex
from typing import Any, NamedTuple

import numpy as np

from experiments.cli import UserError
from experiments.config.settings import Config
from mlvae_jax.data.grouped import GroupedData
from mlvae_jax.data.ids import rank_within_group
from mlvae_jax.model.factors import parse_factors

# Splits are part of a data set: they do not depend on the seed of a run, so
# that runs with different seeds can be compared.
SPLIT_SEED = 1705
# Default fractions for validation and test, of images and of groups.
FRACTIONS = {'image': (0.1, 0.1), 'group': (0.25, 0.25)}


class Scale(NamedTuple):
  """What standardising has subtracted from rows, and divided them by.

  Attributes:
    mean: `[...]` float32.
    std: `[...]` float32, 1 for elements that do not vary.
  """

  mean: np.ndarray
  std: np.ndarray


@dataclasses.dataclass(frozen=True)
class Splits:
  """A data set.

  Attributes:
    train: images to train on.
    validation: images to tune on.
    test: images for the numbers that are reported.
    shares_groups: True when the splits divide the images of the same groups,
      False when no group is in two splits.
    content: record by which a run recognises its data: num_images,
      num_groups, and digests of `names` (of images and groups) and of
      `pixels`.
    scale: mean and standard deviation of the training rows, if all rows are
      standardised.
    vocabulary: names of tokens, if the rows are tokens that have names.
  """

  train: GroupedData
  validation: GroupedData
  test: GroupedData
  shares_groups: bool
  content: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  scale: Scale | None = None
  vocabulary: tuple[str, ...] | None = None

  @property
  def parts(self) -> tuple[GroupedData, GroupedData, GroupedData]:
    """Training, validation and test."""
    return self.train, self.validation, self.test

  @property
  def grouping(self) -> str:
    """Name of the grouping by which images are sorted."""
    return self.train.grouping


def check_image_size(config: Config, size: int) -> None:
  """Raises a UserError if a data set of fixed size should have another."""
  if config.image_size != size:
    raise UserError(
        f'{config.dataset} has images of {size}x{size} pixels, not of '
        f'{config.image_size}; leave out --image_size')


def split(data: GroupedData, config: Config) -> Splits:
  """Splits images as a configuration says.

  Args:
    data: images to split, in the order of a packed store, unless they are split
      by image.
    config: configuration, of which split_by and split_fractions are read.

  Returns:
    The splits.

  Raises:
    UserError: when split_by names a grouping that the images do not have.
  """
  by = config.split_by
  fractions = config.split_fractions or FRACTIONS.get(by, FRACTIONS['group'])
  if by == 'image':
    return split_images(data, fractions)
  if by in ('group', data.grouping):
    return split_groups(data, fractions)
  if by not in data.groupings:
    raise UserError(
        f'--split_by={by} is not a grouping of these data, which are grouped '
        f'by {", ".join(data.groupings)}; choose one of these, image or group')
  return split_by_grouping(data, by, fractions)


def split_images(
    data: GroupedData, fractions: tuple[float, float] = FRACTIONS['image'],
) -> Splits:
  """Splits images into three.

  If rows have names, the split of an image follows from a hash of its name: it
  does not change when other images are added or removed. If rows have no
  names, the source never changes, and every group is split in the same
  proportions.

  Args:
    data: images to split.
    fractions: expected fractions of the images for validation and test. For
      images without names, the numbers in a group are rounded down, so the
      smallest groups are used for training only.

  Returns:
    The splits.
  """
  if data.row_names is None:
    part = _parts_by_number(data, fractions)
  else:
    part = _parts([_position(name) for name in data.row_names], fractions)
  return Splits(*(data.take(np.flatnonzero(part == p)) for p in range(3)),
                shares_groups=True)


def split_groups(
    data: GroupedData, fractions: tuple[float, float] = FRACTIONS['group'],
) -> Splits:
  """Splits the groups into three; no group is in two splits.

  The split of a group follows from a hash of its name: it does not change when
  other groups are added or removed.

  Args:
    data: images in the order of a packed store, where each split is a slice.
    fractions: expected fractions of the groups for validation and test.

  Returns:
    The splits, slices of the images; each knows its own groups only. If there
    are few groups, a split may be empty.
  """
  part = _parts(list(map(group_position, data.names)), fractions)
  if np.any(np.diff(part) < 0):
    raise ValueError('expected groups in the order of a packed store')
  bounds = np.searchsorted(part, range(4))
  return Splits(*(data.slice_groups(*bound) for bound in zip(
      bounds[:-1], bounds[1:])), shares_groups=False)


def split_by_grouping(
    data: GroupedData, grouping: str,
    fractions: tuple[float, float] = FRACTIONS['group'],
) -> Splits:
  """Splits images by another grouping than the one they are sorted by.

  For example, characters by their alphabet: no character of an alphabet that
  is held out is trained on. The split of an alphabet follows from a hash of its
  name. An image whose alphabet is unknown is an alphabet of its own.

  Args:
    data: images to split.
    grouping: name of the additional grouping whose groups are in one split.
    fractions: expected fractions of these groups for validation and test.

  Returns:
    The splits. They share the groups by which images are sorted if one of these
    has images in two splits, such as a person photographed in several lights.
    Otherwise each split has its own groups only.

  Raises:
    UserError: when no group of this grouping falls into one of the splits.
  """
  ids, names = data.labels_of(grouping)
  position = np.array([*map(group_position, names), 0.0])[ids]
  for row in np.flatnonzero(ids < 0):
    position[row] = _position(
        f'row {row}'.encode() if data.row_names is None
        else bytes(data.row_names[row]))
  part, labels = _parts(position, fractions), data.labels
  for p, name in enumerate(('training', 'validation', 'testing')):
    if not np.any(part == p):
      raise UserError(
          f'--split_by={grouping}: none of the {len(names)} groups falls into '
          f'the split for {name}, which follows from a hash of their names; '
          'choose other --split_fractions')
  is_in = np.zeros((data.num_groups, 3), bool)
  is_in[labels, part] = True
  shares_groups = bool(np.any(is_in.sum(axis=1) > 1))
  parts = (data.take(np.flatnonzero(part == p)) for p in range(3))
  return Splits(*(parts if shares_groups else map(_own_groups, parts)),
                shares_groups=shares_groups)


def _own_groups(data: GroupedData) -> GroupedData:
  """The same images without the groups that have none, renumbered."""
  kept = np.flatnonzero(np.diff(data.offsets))
  return dataclasses.replace(
      data, offsets=np.append(data.offsets[kept], len(data)),
      names=tuple(data.names[g] for g in kept))


def group_position(name: str) -> float:
  """The position of a group in [0, 1), a hash of its name.

  A packed store has its groups in this order. The first are for training, the
  last for testing.
  """
  return _position(name.encode('utf-8', 'surrogateescape'))


def digest_arrays(*arrays: np.ndarray) -> str:
  """SHA-256 of arrays, in hexadecimal."""
  found = hashlib.sha256()
  for array in arrays:
    # Arrays of the same bytes may differ in shape.
    found.update(f'{array.dtype}{array.shape}'.encode())
    found.update(np.ascontiguousarray(array))
  return found.hexdigest()


def content_of(parts: Sequence[GroupedData]) -> dict[str, Any]:
  """The record of splits in memory, see `Splits.content`."""
  return {
      'num_images': sum(map(len, parts)),
      'num_groups': max(part.num_groups for part in parts),
      'names': digest_arrays(*(part.labels for part in parts)),
      'pixels': digest_arrays(*(part.x for part in parts))}


def _position(name: bytes) -> float:
  digest = hashlib.sha256(f'{SPLIT_SEED}:'.encode() + name).digest()
  return int.from_bytes(digest[:8]) / 2.0 ** 64


def _parts(positions: Sequence[float], fractions: tuple[float, float]
           ) -> np.ndarray:
  """The part of each position, `[N]`: 0 training, 1 validation, 2 test."""
  bounds = [1.0 - sum(fractions), 1.0 - fractions[1]]
  return np.searchsorted(bounds, positions, side='right')


def _parts_by_number(data: GroupedData, fractions: tuple[float, float]
                     ) -> np.ndarray:
  """Like `_parts`, with the same fractions of every group, `[N]`."""
  labels = data.labels
  rng = np.random.default_rng(SPLIT_SEED)
  order = rng.permutation(len(labels))
  rank, count = rank_within_group(labels[order])
  # 50 * 0.1 may be a little below 5.
  num_validation, num_test = (
      (count * f + 1e-9).astype(int) for f in fractions)
  part = np.empty(len(labels), int)
  part[order] = np.where(
      rank < num_test, 2, np.where(rank < num_test + num_validation, 1, 0))
  return part


def check_groupings(config: Config, known: Sequence[str], where: str) -> None:
  """Checks that a data set has the groupings of all factors.

  Args:
    config: configuration, of which the factors are read.
    known: names of the groupings of the data set, at least one.
    where: name of the data set.

  Raises:
    UserError: when a grouping is missing; it names factors that would do.
  """
  factors = parse_factors(config.factors)
  unknown = [f for f in factors if f.grouping and f.grouping not in known]
  if not unknown:
    return
  unused = [name for name in known if name not in {f.grouping for f in factors}]
  others = dict(zip((f.name for f in unknown), unused))
  # A missing grouping for which there is no other left is left out.
  text = ','.join('|'.join([
      ':'.join([f.name, str(f.dim), *filter(None, [
          others.get(f.name) if f in unknown else f.grouping])]),
      *f.given]) for f in factors)
  raise UserError(
      f'factor {unknown[0].name!r} is grouped by {unknown[0].grouping!r}, but '
      f'{where} has the groupings {", ".join(known)}; choose among them, as in '
      f'--factors={shlex.quote(text)}')
