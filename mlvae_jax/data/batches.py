"""Batches for a model: which stream and which feed it is trained with."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import jax

from mlvae_jax.data.feed import Feed, all_devices
from mlvae_jax.data.grouped import GroupedData
from mlvae_jax.data.index_stream import IndexStream
from mlvae_jax.data.plan import Settings
from mlvae_jax.devices import Device
from mlvae_jax.model.model import Model

# Data of up to this many bytes are kept on the devices; of larger ones the
# host gathers each batch.
_MAX_DEVICE_BYTES = 2 << 30


def make_stream(model: Model, data: GroupedData, settings: Settings, *,
                shuffle: bool = True, num_devices: int | None = None
                ) -> IndexStream:
  """Makes the index stream that a model is trained or evaluated with.

  Args:
    model: model by whose groupings rows are drawn. Without groupings, as in a
      VAE, each row is a group: a batch is `groups_per_batch` rows.
    data: the observations.
    settings: how batches are drawn in training. An evaluation takes only the
      sizes of batches and groups from it.
    shuffle: whether to shuffle; False visits all rows in order, for
      evaluation.
    num_devices: number of devices over which rows divide; None for all.

  Returns:
    The stream.

  Raises:
    ValueError: as `IndexStream` does.
  """
  changes = {'row_multiple': num_devices or jax.device_count(),
             'shuffle': shuffle}
  if not (model.groupings and shuffle):
    # An evaluation visits every row, also those of groups too small to train
    # on, and always in the paper's pieces, so that runs can be compared.
    settings = Settings(
        settings.groups_per_batch,
        settings.max_group_size if model.groupings else None,
        seed=settings.seed)
  else:
    changes['share_of_whole_group'] = not model.has_encoder
  return IndexStream(data, model.groupings, **(
      dataclasses.asdict(settings) | changes))


def make_feed(model: Model, data: GroupedData, settings: Settings, *,
              shuffle: bool = True,
              devices: Sequence[Device] | None = None) -> Feed:
  """Makes the feed of `make_stream`'s batches; None means all devices."""
  devices = devices or all_devices()
  # With several processes, each reads its own rows only, so none of them has
  # all observations to put on its devices.
  alone = len(devices) <= jax.local_device_count()
  return Feed(
      model, data, make_stream(model, data, settings, shuffle=shuffle,
                               num_devices=len(devices)),
      on_device=alone and data.x.nbytes <= _MAX_DEVICE_BYTES,
      devices=devices)
