"""Brings batches of images to the devices, and there takes them apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent import futures
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlvae_jax.data.grouped import GroupedImages
from mlvae_jax.data.ids import fill_unknown
from mlvae_jax.data.index_stream import IndexBatch, IndexStream
from mlvae_jax.model.factors import Batch
from mlvae_jax.model.model import Model

DEVICES = 'devices'  # Name of the axis over which a batch is spread.


class Feed:
  """Brings batches of a data set to the devices.

  Images lie on every device where they fit (`on_device`): a chunk then
  carries row numbers only. Otherwise the host gathers each chunk's pixels,
  from RAM or from a file mapped into memory. Either way a thread prepares a
  chunk and brings it to the devices while they work on the one before.

  Of several processes each brings the rows of its own devices, and reads no
  pixels of others.

  Attributes:
    stream: the index stream.
    num_groups: static number of groups per grouped factor.
    table_sizes: number of posteriors per factor of an SVI model; else empty.
    devices: devices over which batches are spread, in this order.
  """

  def __init__(self, model: Model, data: GroupedImages,
               stream: IndexStream, *, on_device: bool = True,
               devices: Sequence[jax.Device] | None = None):
    """Brings images to where a pass over them starts.

    Args:
      model: its factors say what is grouped.
      data: the images.
      stream: says which images come when.
      on_device: whether every device holds all images.
      devices: `all_devices()` if None.

    Raises:
      ValueError: when the stream's batches do not divide over the devices.
    """
    self.stream = stream
    self.devices = tuple(devices or all_devices())
    self.num_groups = {
        f.name: stream.num_groups[f.grouping] for f in model.grouped}
    if stream.rows_per_batch % len(self.devices):
      raise ValueError(
          f'{stream.rows_per_batch} rows per batch do not divide over '
          f'{len(self.devices)} devices; pass row_multiple to the stream')
    self._images = data.images
    self.table_sizes = {}
    if not model.has_encoder:
      self.table_sizes = {
          f.name: _num_posteriors(data, f.grouping) for f in model.factors}
    self._on_device = replicate(
        data.images, self.devices) if on_device else None

  def chunk(self, start: int, stop: int) -> tuple[Any, IndexBatch, Any]:
    """Steps start to stop as (all images, indices, gathered pixels)."""
    batches = self.stream.batches(start, stop)
    index = jax.tree.map(self._split, batches._replace(groups={}))
    if self.table_sizes:  # Every device has the numbers of all groups.
      index = index._replace(groups={
          name: np.stack([value] * len(_local(self.devices)))
          for name, value in batches.groups.items()})
    pixels = None if self._on_device is not None else self._images[index.rows]
    index, pixels = jax.device_put(
        (index, pixels), _sharding(self.devices, DEVICES))
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
    """`[steps, N]` to `[local devices, steps, N / devices]`."""
    steps = len(value)
    parts = value.reshape(steps, len(self.devices), -1).swapaxes(0, 1)
    mine = [i for i, device in enumerate(self.devices)
            if device in _local(self.devices)]
    return np.ascontiguousarray(parts[mine])


def all_devices() -> list[jax.Device]:
  """The devices of all processes, process by process, as pmap takes them."""
  return [device for process in range(jax.process_count())
          for device in jax.local_devices(process)]


def replicate(tree: Any, devices: Sequence[jax.Device] | None = None) -> Any:
  """Copies a tree of arrays to every device of this process.

  Args:
    tree: any pytree of arrays.
    devices: devices to copy to; all of this process if None.

  Returns:
    The tree, on them.
  """
  return jax.device_put(tree, _sharding(devices or jax.local_devices()))


def chunk_bounds(start: int, stop: int, chunk_steps: int
                 ) -> list[tuple[int, int]]:
  """Divides steps into chunks, which end at multiples of `chunk_steps`."""
  bounds = []
  while start < stop:
    end = min((start // chunk_steps + 1) * chunk_steps, stop)
    bounds.append((start, end))
    start = end
  return bounds


def local_batch(model: Model, images: jax.Array | None, index: IndexBatch,
                pixels: jax.Array | None) -> Batch:
  """This device's rows of one step.

  Args:
    model: its factors say what is grouped.
    images: all images, or None.
    index: the device's part of one step of a feed's chunk.
    pixels: images of its rows, where `images` is None.

  Returns:
    The rows, with ids and shares by factor.
  """
  num_rows = index.rows.shape[0]
  x = images[index.rows] if pixels is None else pixels
  first = jax.lax.axis_index(DEVICES) * num_rows

  def by_factor(by_grouping):
    return {f.name: by_grouping[f.grouping] for f in model.grouped}

  return Batch(
      x, by_factor(index.group_ids), index.mask, first + jnp.arange(num_rows),
      index.evidence, index.weights,
      by_factor(index.kl_share) if index.kl_share else None)


def _num_posteriors(data: GroupedImages, grouping: str | None) -> int:
  """Groups of a grouping, unknown ones too; without one, rows."""
  if grouping is None:
    return len(data)
  return int(fill_unknown(data.labels_of(grouping).ids).max()) + 1


def _local(devices: Sequence[jax.Device]) -> list[jax.Device]:
  """Those of this process."""
  return [d for d in devices if d.process_index == jax.process_index()]


def _sharding(devices: Sequence[jax.Device], *axes: str
              ) -> jax.sharding.NamedSharding:
  """Over this process's devices along the first axis, or on each a copy."""
  mesh = jax.sharding.Mesh(np.array(_local(devices)), (DEVICES,))
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
