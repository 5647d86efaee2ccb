"""Groups rotated by right angles, as additional groups to train on."""

from __future__ import annotations

import dataclasses

import numpy as np

from experiments.cli import UserError
from experiments.datasets.splits import Splits
from mlvae_jax.data.grouped import GroupedData, Labels

_MAX_BYTES = 8 << 30  # Images are copied into memory.


def rotate_training_groups(data: Splits) -> Splits:
  """Adds every training group rotated by 90, 180 and 270 degrees, as a group.

  A rotated character is another character. Validation and test stay as they
  are, and so do the labels of other groupings: a rotated character is of the
  same alphabet.

  Args:
    data: splits of square images.

  Returns:
    The splits, with four times the training groups and images.

  Raises:
    UserError: when the splits share groups, which would then be numbered
      differently in training, or when there are too many images.
  """
  if data.shares_groups:
    raise UserError(
        '--rotations_as_groups needs splits that share no group; choose '
        '--split_by=group')
  if 4 * data.train.x.nbytes > _MAX_BYTES:
    raise UserError(
        f'{4 * data.train.x.nbytes / 1e9:.0f} GB of rotated images are too '
        'many; leave out --rotations_as_groups')
  return dataclasses.replace(data, train=_rotated(data.train))


def _rotated(data: GroupedData) -> GroupedData:
  """The groups, then those rotated by 90 degrees, and so on."""
  x, count = np.asarray(data.x), len(data)
  angles = (0, 90, 180, 270)
  return GroupedData(
      np.concatenate([np.rot90(x, angle // 90, axes=(1, 2))
                      for angle in angles]),
      np.append(0, np.concatenate([
          data.offsets[1:] + i * count for i in range(len(angles))])),
      tuple(_name(name, angle) for angle in angles for name in data.names),
      data.grouping,
      {name: Labels(np.tile(ids, len(angles)), names)
       for name, (ids, names) in data.others.items()},
      None if data.row_names is None else np.concatenate([
          np.char.add(data.row_names, _name('', angle).encode())
          for angle in angles]))


def _name(name: str, angle: int) -> str:
  return f'{name} rotated by {angle}' if angle else name
