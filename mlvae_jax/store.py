"""Where pixels live: images sorted by group, in RAM or on the devices."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Any

import jax
import numpy as np

from mlvae_jax.batching import IndexBatch, IndexStream
from mlvae_jax.model import Model

DEVICES = 'devices'  # Name of the axis over which a batch is spread.


@dataclasses.dataclass(frozen=True)
class GroupedImages:
  """Images sorted by group.

  Attributes:
    images: `[N, H, W, C]` uint8.
    offsets: `[G + 1]` int64; group g has the rows offsets[g]:offsets[g + 1].
    names: name of each group, G of them.
  """

  images: np.ndarray
  offsets: np.ndarray
  names: tuple[str, ...]

  @classmethod
  def from_labels(cls, images: np.ndarray, labels: np.ndarray,
                  names: Sequence[str]) -> GroupedImages:
    """Sorts images by group; within a group the order stays.

    Args:
      images: `[N, H, W, C]` uint8.
      labels: `[N]` ints in `[0, G)`, the group of each image.
      names: name of each group.

    Returns:
      The images, sorted.

    Raises:
      ValueError: on shapes, dtypes or labels that do not fit.
    """
    labels = np.asarray(labels)
    if images.ndim != 4 or images.dtype != np.uint8:
      raise ValueError(
          f'expected uint8 images of [N, H, W, C], got {images.dtype} of '
          f'{list(images.shape)}')
    if labels.shape != images.shape[:1]:
      raise ValueError(
          f'expected {len(images)} labels, got {list(labels.shape)}')
    if not np.issubdtype(labels.dtype, np.integer):
      raise ValueError(f'expected integer labels, got {labels.dtype}')
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(names):
      raise ValueError(
          f'expected labels in [0, {len(names)}), got labels from '
          f'{labels.min()} to {labels.max()}')
    order = np.argsort(labels, kind='stable')
    count = np.bincount(labels, minlength=len(names))
    offsets = np.concatenate([[0], np.cumsum(count)])
    return cls(images[order], offsets, tuple(names))

  def __len__(self) -> int:
    return len(self.images)

  @property
  def num_groups(self) -> int:
    """Number of groups, G."""
    return len(self.names)

  @property
  def labels(self) -> np.ndarray:
    """Group of each row, `[N]` int32."""
    return np.repeat(
        np.arange(self.num_groups, dtype=np.int32), np.diff(self.offsets))


class Feed:
  """Brings batches of a data set to the devices.

  Images lie on every device where they fit (`on_device`): a chunk then
  carries row numbers only. Otherwise the host gathers each chunk's pixels.

  Attributes:
    stream: the index stream.
    num_groups: static number of groups per grouped factor.
  """

  def __init__(self, model: Model, data: GroupedImages, stream: IndexStream,
               *, on_device: bool = True):
    self.stream = stream
    self.num_groups = {
        f.name: stream.groups_per_batch for f in model.grouped}
    self._num_devices = jax.local_device_count()
    if stream.rows_per_batch % self._num_devices:
      raise ValueError(
          f'{stream.rows_per_batch} rows per batch do not divide over '
          f'{self._num_devices} devices; pass row_multiple to the stream')
    self._images = data.images
    self._on_device = replicate(data.images) if on_device else None

  def chunk(self, start: int, stop: int) -> tuple[Any, IndexBatch, Any]:
    """Steps start to stop as (device images, indices, host pixels)."""
    index = IndexBatch(*map(self._split, self.stream.batches(start, stop)))
    if self._on_device is not None:
      return self._on_device, index, None
    return None, index, self._images[index.rows]

  def _split(self, value: np.ndarray) -> np.ndarray:
    """`[steps, N]` to `[devices, steps, N / devices]`."""
    steps = len(value)
    return np.ascontiguousarray(
        value.reshape(steps, self._num_devices, -1).swapaxes(0, 1))


def replicate(tree: Any) -> Any:
  """Copies a tree of arrays to every local device."""
  mesh = jax.sharding.Mesh(np.array(jax.local_devices()), (DEVICES,))
  everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  return jax.device_put(tree, everywhere)
