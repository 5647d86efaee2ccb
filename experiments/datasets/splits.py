"""Train, validation and test splits of grouped images."""

from __future__ import annotations

import dataclasses

import numpy as np

from experiments.cli import UserError
from experiments.presets import Config
from mlvae_jax.store import GroupedImages

# Splits are part of a data set: they do not change with a run's seed, so
# that runs of different seeds can be compared. (Splits by group follow
# `packed.ORDER_SEED`.)
SPLIT_SEED = 1705


@dataclasses.dataclass(frozen=True)
class Splits:
  """A data set.

  Attributes:
    train: images to train on.
    validation: images to tune on.
    test: images for the numbers that are reported.
    shares_groups: True when the splits divide the images of the same groups,
      False when no group is in two splits.
  """

  train: GroupedImages
  validation: GroupedImages
  test: GroupedImages
  shares_groups: bool

  @property
  def grouping(self) -> str:
    """What the groups are that images are sorted by."""
    return self.train.grouping


def check_image_size(config: Config, size: int) -> None:
  """Raises UserError where a data set of one size is asked for another."""
  if config.image_size != size:
    raise UserError(
        f'{config.dataset} has images of {size}x{size} pixels, not of '
        f'{config.image_size}; leave --image_size out')


def split_images(
    data: GroupedImages, fractions: tuple[float, float] = (0.1, 0.1),
) -> Splits:
  """Splits the images of every group alike into three.

  Args:
    data: the images.
    fractions: of validation and test; each group's numbers are rounded down,
      so that the smallest groups are all for training.

  Returns:
    The splits.
  """
  labels = data.labels
  rng = np.random.default_rng(SPLIT_SEED)
  order = rng.permutation(len(labels))
  order = order[np.argsort(labels[order], kind='stable')]
  count = np.diff(data.offsets)
  rank = np.arange(len(labels)) - np.repeat(np.cumsum(count) - count, count)
  num_validation, num_test = (
      np.repeat((count * f + 1e-9).astype(int), count) for f in fractions)
  part = np.where(
      rank < num_test, 2, np.where(rank < num_test + num_validation, 1, 0))
  return Splits(*(data.take(order[part == p]) for p in range(3)),
                shares_groups=True)


def split_groups(
    data: GroupedImages, fractions: tuple[float, float] = (0.25, 0.25),
) -> Splits:
  """Splits the groups into three: no group is in two splits.

  Args:
    data: whose groups are in a random order, as a packed store has them.
    fractions: of the groups that validation and test get, at least one each.

  Returns:
    The splits, slices of the images; each knows its own groups only.

  Raises:
    UserError: with fewer than three groups, or none left to train on.
  """
  num_groups = data.num_groups
  num_validation, num_test = (
      max(1, round(num_groups * f)) for f in fractions)
  num_train = num_groups - num_validation - num_test
  if num_train < 1:
    raise UserError(
        f'{num_groups} groups cannot be split into training, validation and '
        f'test groups at {fractions[0]:g} and {fractions[1]:g}; --split_by='
        'group needs at least 3, use --split_by=image')
  return Splits(
      data.slice_groups(0, num_train),
      data.slice_groups(num_train, num_train + num_validation),
      data.slice_groups(num_groups - num_test, num_groups),
      shares_groups=False)

