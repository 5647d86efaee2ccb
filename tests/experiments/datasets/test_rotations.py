"""Rotated groups as additional groups."""

import dataclasses

import numpy as np
import pytest

from experiments import datasets
from experiments.cli import UserError
from experiments.config import presets
from experiments.datasets import folder, rotations, splits
from mlvae_jax.data.grouped import GroupedData, Labels
from tests.helpers.made_up import write_folder


def _data():
  x = np.random.default_rng(0).integers(0, 256, (10, 4, 4, 1), np.uint8)
  ids = np.array([0, 1, -1] * 3 + [0], np.int32)
  return GroupedData.from_labels(
      x, np.arange(10) // 4, ('a', 'b', 'c'), 'character',
      {'alphabet': Labels(ids, ('x', 'y'))},
      np.array([f'{i}.png'.encode() for i in range(10)]))


def test_every_group_is_there_at_four_angles():
  data = _data()
  found = rotations.rotate_training_groups(
      splits.Splits(data, data, data, shares_groups=False))
  assert found.validation is data and found.test is data
  train = found.train
  assert train.num_groups == 12 and len(train) == 40
  for group in range(3):
    for turns, angle in enumerate(('', ' rotated by 90', ' rotated by 180',
                                   ' rotated by 270')):
      new = train.names.index(data.names[group] + angle)
      rows = slice(*train.offsets[new:new + 2])
      old = slice(*data.offsets[group:group + 2])
      np.testing.assert_array_equal(
          train.x[rows], np.rot90(data.x[old], turns, axes=(1, 2)))
      np.testing.assert_array_equal(
          train.others['alphabet'].ids[rows], data.others['alphabet'].ids[old])
      assert train.row_names[rows].tolist() == [
          name + angle.encode() for name in data.row_names[old]]


def test_a_run_with_rotated_groups(tmp_path):
  write_folder(tmp_path / 'x', dict.fromkeys('abcdefghi', 3), 'L')
  config = dataclasses.replace(
      presets.PRESETS['omniglot'], data_dir=str(tmp_path / 'x'),
      store_dir=str(tmp_path / 'stores'), image_size=8,
      split_fractions=(0.3, 0.3))
  plain, rotated = (
      datasets.load(dataclasses.replace(config, rotations_as_groups=value))
      for value in (False, True))
  assert len(rotated.train) == 4 * len(plain.train)
  np.testing.assert_array_equal(
      rotated.train.x[:len(plain.train)], plain.train.x)
  np.testing.assert_array_equal(rotated.test.x, plain.test.x)
  assert rotated.content == plain.content
  with pytest.raises(ValueError, match='needs --split_by=group or'):
    folder.check(dataclasses.replace(
        config, rotations_as_groups=True, split_by='image'))


def test_groups_that_cannot_be_rotated(monkeypatch):
  data = _data()
  with pytest.raises(UserError, match='splits that share no group'):
    rotations.rotate_training_groups(
        splits.Splits(data, data, data, shares_groups=True))
  monkeypatch.setattr(rotations, '_MAX_BYTES', 100)
  with pytest.raises(UserError, match='0 GB of rotated images are too many'):
    rotations.rotate_training_groups(
        splits.Splits(data, data, data, shares_groups=False))
