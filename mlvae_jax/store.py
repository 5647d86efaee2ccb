"""Where pixels live: images sorted by group, in RAM or on the devices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent import futures
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
    images: `[N, H, W, C]` uint8; may be a file mapped into memory.
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

  def slice_groups(self, start: int, stop: int) -> GroupedImages:
    """The groups from start to stop, without copying."""
    first, last = self.offsets[start], self.offsets[stop]
    return GroupedImages(
        self.images[first:last], self.offsets[start:stop + 1] - first,
        self.names[start:stop])

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
  carries row numbers only. Otherwise the host gathers each chunk's pixels,
  from RAM or from a file mapped into memory. Either way a thread prepares a
  chunk and brings it to the devices while they work on the one before.

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
    """Steps start to stop as (all images, indices, gathered pixels)."""
    index = IndexBatch(*map(self._split, self.stream.batches(start, stop)))
    pixels = None if self._on_device is not None else self._images[index.rows]
    index, pixels = jax.device_put((index, pixels), _sharding(DEVICES))
    return self._on_device, index, pixels

  def chunks(self, bounds: Sequence[tuple[int, int]]
             ) -> Iterator[tuple[Any, IndexBatch, Any]]:
    """Yields `chunk(start, stop)` for all bounds, each prepared ahead."""
    with futures.ThreadPoolExecutor(1) as pool:
      ahead = [pool.submit(self.chunk, *bound) for bound in bounds[:1]]
      for bound in (*bounds[1:], None):
        if not ahead:
          return
        ready = ahead.pop().result()
        if bound is not None:
          ahead.append(pool.submit(self.chunk, *bound))
        yield ready

  def _split(self, value: np.ndarray) -> np.ndarray:
    """`[steps, N]` to `[devices, steps, N / devices]`."""
    steps = len(value)
    return np.ascontiguousarray(
        value.reshape(steps, self._num_devices, -1).swapaxes(0, 1))


def replicate(tree: Any) -> Any:
  """Copies a tree of arrays to every local device."""
  return jax.device_put(tree, _sharding())


def _sharding(*axes: str) -> jax.sharding.NamedSharding:
  """Over the local devices along the first axis, or on each a copy."""
  mesh = jax.sharding.Mesh(np.array(jax.local_devices()), (DEVICES,))
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
