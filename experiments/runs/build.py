"""Builds the model of a configuration and the feeds of its data."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from experiments.cli import UserError
from experiments.config import library
from experiments.config.settings import Config
from experiments.datasets.splits import Splits
from mlvae_jax.data.feed import Feed, all_devices
from mlvae_jax.data.grouped import GroupedData
from mlvae_jax.data.index_stream import IndexStream
from mlvae_jax.model.model import Model

# Splits of up to this many bytes are kept on the devices; of larger ones the
# host gathers each batch.
_MAX_DEVICE_BYTES = 2 << 30
_CHECKED_ROWS = 4096


def make_model(config: Config, data: Splits) -> Model:
  """The model of a configuration for a data set's images.

  Args:
    config: configuration of the run.
    data: data set of the run.

  Returns:
    The model.

  Raises:
    ValueError: when the data lack the grouping of a factor.
  """
  model = library.make_model(config, data.train.x.shape[1:])
  known = data.train.groupings
  for factor in model.grouped:
    if factor.grouping not in known:
      raise ValueError(
          f'factor {factor.name!r} is grouped by {factor.grouping!r}, but '
          f'{config.dataset} is grouped by {", ".join(known)}; give --factors '
          f'as NAME:DIM:{known[0]},...')
  return model


def check_values(config: Config, model: Model, data: Splits) -> None:
  """Checks that the likelihood can have the values of a data set.

  In training they are traced, and no likelihood could check them there.

  Args:
    config: configuration of the run.
    model: model of the run.
    data: data set of the run.

  Raises:
    UserError: when it cannot; it names the remedy.
  """
  for part in data.parts:
    if part.x.dtype == np.uint8 and model.likelihood.takes_pixels:
      continue  # Any are.
    for start in range(0, len(part), _CHECKED_ROWS):
      try:
        model.prepare(np.asarray(part.x[start:start + _CHECKED_ROWS]))
      except ValueError as error:
        raise UserError(
            f'{config.data_dir or config.dataset}: {error}; see --likelihood '
            'and --standardise') from error


def make_stream(model: Model, images: GroupedData, config: Config,
                shuffle: bool = True, num_devices: int | None = None
                ) -> IndexStream:
  """The index stream of a split.

  Args:
    model: model by whose groupings rows are drawn; without groupings, as in a
      VAE, a batch is `batch_size` rows.
    images: images of the split.
    config: configuration of the run.
    shuffle: whether to shuffle; False visits all images in order, for
      evaluation.
    num_devices: number of devices over which rows divide; None for all.

  Returns:
    The stream.

  Raises:
    UserError: when the settings do not fit the data.
  """
  settings = {
      'groups_per_batch': config.batch_size, 'seed': config.seed,
      'row_multiple': num_devices or jax.device_count(), 'shuffle': shuffle}
  if model.groupings:
    settings |= {'groups_per_batch': config.groups_per_batch,
                 'max_group_size': config.max_group_size}
  # An evaluation visits every image, also those of groups too small to train
  # on, and always in the paper's pieces, so that runs can be compared.
  if model.groupings and shuffle:
    settings |= {
        'min_group_size': config.min_group_size, 'visit': config.visit,
        'subsampling': config.subsampling, 'evidence': config.evidence,
        'share_of_whole_group': not model.has_encoder}
  try:
    return IndexStream(images, model.groupings, **settings)
  except ValueError as error:
    raise UserError(f'{config.dataset}: {error}') from error


def make_feed(model: Model, images: GroupedData, config: Config,
              shuffle: bool = True,
              devices: Sequence[jax.Device] | None = None) -> Feed:
  """The feed of a split to devices; None means all devices."""
  devices = devices or all_devices()
  # With several processes, each reads its own rows only, so none of them has
  # all images to put on its devices.
  alone = len(devices) <= jax.local_device_count()
  return Feed(
      model, images,
      make_stream(model, images, config, shuffle, len(devices)),
      on_device=alone and images.x.nbytes <= _MAX_DEVICE_BYTES,
      devices=devices)
