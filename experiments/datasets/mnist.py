"""MNIST as TFDS prepares it, read without TensorFlow."""

from __future__ import annotations

import os

import numpy as np

from experiments.cli import UserError
from experiments.config.settings import Config
from experiments.datasets.splits import (
    SPLIT_SEED,
    Splits,
    check_image_size,
    content_of,
)
from mlvae_jax.data.grouped import GroupedData

_NUM_TRAIN = 50_000
_GROUPING = 'digit'


def load(config: Config) -> Splits:
  """50,000 / 10,000 / 10,000 images by digit, 28x28 grey, as in the paper.

  The 60,000 training images are divided at random, always in the same way; the
  test images are MNIST's own.

  Args:
    config: configuration, of which data_dir is read: the folder in which TFDS
      keeps prepared data sets, by default $TFDS_DATA_DIR or
      ~/tensorflow_datasets.

  Returns:
    The splits.

  Raises:
    UserError: when there is no prepared data set, or on another image size.
  """
  check_image_size(config, 28)
  data_dir = os.path.expanduser(
      config.data_dir or os.environ.get('TFDS_DATA_DIR')
      or os.path.join('~', 'tensorflow_datasets'))
  folder = os.path.join(data_dir, 'mnist', '3.0.1')
  # TFDS would try to download for minutes before it fails, so look first.
  if not os.path.isfile(os.path.join(folder, 'dataset_info.json')):
    raise UserError(
        f'no prepared MNIST in {folder}; point --data_dir at the folder that '
        'holds mnist/3.0.1, use --dataset=mnist5k, which is always available, '
        'or prepare it once where TensorFlow is installed: '
        'python -c "import tensorflow_datasets as tfds; '
        "tfds.builder('mnist', file_format='array_record')"
        '.download_and_prepare()"')
  train_images, train_labels = _read('train', folder)
  test_images, test_labels = _read('test', folder)
  order = np.random.default_rng(SPLIT_SEED).permutation(len(train_labels))
  names = [str(d) for d in range(10)]
  train, validation = (
      GroupedData.from_labels(
          train_images[rows], train_labels[rows], names, _GROUPING)
      for rows in (order[:_NUM_TRAIN], order[_NUM_TRAIN:]))
  test = GroupedData.from_labels(
      test_images, test_labels, names, _GROUPING)
  return Splits(train, validation, test, shares_groups=True,
                content=content_of([train, validation, test]))


def _read(split: str, folder: str) -> tuple[np.ndarray, np.ndarray]:
  """Images `[N, 28, 28, 1]` uint8 and labels `[N]` of one split."""
  import tensorflow_datasets as tfds  # Slow to import: only where needed.

  try:
    source = tfds.builder_from_directory(folder).as_data_source(split=split)
    records = source.__getitems__(range(len(source)))
  except Exception as error:  # TFDS raises whatever its readers raise.
    raise UserError(
        f'cannot read MNIST {split} from {folder}: {error}') from error
  return (np.stack([record['image'] for record in records]),
          np.array([record['label'] for record in records]))
