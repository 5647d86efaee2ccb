"""Builds the model of a configuration and the feeds of its data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import contextlib

import jax

from experiments.cli import UserError
from experiments.config import library
from experiments.config.settings import Config
from experiments.datasets.splits import Splits
from mlvae_jax.data import batches, content
from mlvae_jax.data.feed import Feed
from mlvae_jax.data.grouped import GroupedData
from mlvae_jax.data.index_stream import IndexStream
from mlvae_jax.data.plan import Settings
from mlvae_jax.model.model import Model


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
    try:
      content.check_values(model, part, config.data_dir or config.dataset)
    except ValueError as error:
      raise UserError(
          f'{error}; see --likelihood and --standardise') from error


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
  with _named(config):
    return batches.make_stream(
        model, images, _settings(model, config), shuffle=shuffle,
        num_devices=num_devices)


def make_feed(model: Model, images: GroupedData, config: Config,
              shuffle: bool = True,
              devices: Sequence[jax.Device] | None = None) -> Feed:
  """The feed of a split to devices; None means all devices."""
  with _named(config):
    return batches.make_feed(
        model, images, _settings(model, config), shuffle=shuffle,
        devices=devices)


def _settings(model: Model, config: Config) -> Settings:
  """How batches are drawn in training."""
  if not model.groupings:
    return Settings(config.batch_size, seed=config.seed)
  return Settings(
      config.groups_per_batch, config.max_group_size, config.min_group_size,
      config.visit, config.subsampling, config.evidence, seed=config.seed)


@contextlib.contextmanager
def _named(config: Config) -> Iterator[None]:
  """Raises a ValueError as a UserError that names the data set."""
  try:
    yield
  except ValueError as error:
    raise UserError(f'{config.dataset}: {error}') from error
