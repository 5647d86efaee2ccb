"""Where pixels live: images sorted by group, in RAM or on the devices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from mlvae_jax.batching import IndexBatch, IndexStream
from mlvae_jax.mixing import MixedStream, fill_unknown
from mlvae_jax.model import Model

DEVICES = 'devices'  # Name of the axis over which a batch is spread.


class Labels(NamedTuple):
  """One grouping of the rows of a data set.

  Attributes:
    ids: `[N]` int32, group of each row; -1 where it is not known, and the
      row is a group of its own.
    names: of the groups.
  """

  ids: np.ndarray
  names: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class GroupedImages:
  """Images sorted by group; there may be further groupings.

  Attributes:
    images: `[N, H, W, C]` uint8; may be a file mapped into memory.
    offsets: `[G + 1]` int64; group g has the rows offsets[g]:offsets[g + 1].
    names: name of each group, G of them.
    grouping: what a group is: 'digit', 'identity', ...
    others: the further groupings, by name; their groups may have rows
      anywhere.
  """

  images: np.ndarray
  offsets: np.ndarray
  names: tuple[str, ...]
  grouping: str = 'group'
  others: Mapping[str, Labels] = dataclasses.field(default_factory=dict)

  @classmethod
  def from_labels(cls, images: np.ndarray, labels: np.ndarray,
                  names: Sequence[str], grouping: str = 'group',
                  others: Mapping[str, Labels] | None = None
                  ) -> GroupedImages:
    """Sorts images by group; within a group the order stays.

    Args:
      images: `[N, H, W, C]` uint8.
      labels: `[N]` ints in `[0, G)`, the group of each image.
      names: name of each group.
      grouping: what a group is.
      others: further groupings of the same rows, which are sorted with them.

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
    _check_labels(labels, len(images), len(names), lowest=0)
    others = dict(others or {})
    for name, (ids, group_names) in others.items():
      if name == grouping:
        raise ValueError(f'two groupings are called {name!r}')
      _check_labels(np.asarray(ids), len(images), len(group_names), lowest=-1)
    order = np.argsort(labels, kind='stable')
    count = np.bincount(labels, minlength=len(names))
    offsets = np.concatenate([[0], np.cumsum(count)])
    return cls(images[order], offsets, tuple(names), grouping, {
        name: Labels(np.asarray(ids)[order].astype(np.int32), tuple(names))
        for name, (ids, names) in others.items()})

  def slice_groups(self, start: int, stop: int) -> GroupedImages:
    """The groups from start to stop, without copying images."""
    first, last = self.offsets[start], self.offsets[stop]
    return dataclasses.replace(
        self, images=self.images[first:last],
        offsets=self.offsets[start:stop + 1] - first,
        names=self.names[start:stop], others={
            name: Labels(ids[first:last], names)
            for name, (ids, names) in self.others.items()})

  def take(self, rows: np.ndarray) -> GroupedImages:
    """The given rows, sorted by group; every group keeps its number."""
    return GroupedImages.from_labels(
        self.images[rows], self.labels[rows], self.names, self.grouping, {
            name: Labels(ids[rows], names)
            for name, (ids, names) in self.others.items()})

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

  @property
  def groupings(self) -> tuple[str, ...]:
    """Names of all groupings; rows are sorted by the first."""
    return (self.grouping, *self.others)

  def labels_of(self, grouping: str) -> Labels:
    """The labels of a grouping; a ValueError where there is none so called."""
    if grouping == self.grouping:
      return Labels(self.labels, self.names)
    if grouping not in self.others:
      raise ValueError(
          f'no grouping {grouping!r}, expected one of {self.groupings}')
    return self.others[grouping]


def _check_labels(labels: np.ndarray, num_rows: int, num_groups: int,
                  lowest: int) -> None:
  if labels.shape != (num_rows,):
    raise ValueError(f'expected {num_rows} labels, got {list(labels.shape)}')
  if not np.issubdtype(labels.dtype, np.integer):
    raise ValueError(f'expected integer labels, got {labels.dtype}')
  if len(labels) and not lowest <= labels.min() <= labels.max() < num_groups:
    raise ValueError(
        f'expected labels in [{lowest}, {num_groups}), got labels from '
        f'{labels.min()} to {labels.max()}')


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
    table_sizes: of an SVI model: per factor how many posteriors there are.
    devices: over which batches are spread, in this order.
  """

  def __init__(self, model: Model, data: GroupedImages,
               stream: IndexStream | MixedStream, *, on_device: bool = True,
               devices: Sequence[jax.Device] | None = None):
    """Brings images to where a pass over them starts.

    Args:
      model: whose factors say what is grouped.
      data: the images.
      stream: which of them come when.
      on_device: whether every device is to hold all of them.
      devices: `all_devices()` if None.

    Raises:
      ValueError: when the stream's batches do not divide over the devices.
    """
    self.stream = stream
    self.devices = tuple(devices or all_devices())
    self.num_groups = {
        f.name: stream.size_of(f.grouping) for f in model.grouped}
    if stream.rows_per_batch % len(self.devices):
      raise ValueError(
          f'{stream.rows_per_batch} rows per batch do not divide over '
          f'{len(self.devices)} devices; pass row_multiple to the stream')
    self._images = data.images
    self._keeps_groups = model.inference == 'svi'
    self.table_sizes = {
        f.name: len(data) if f.grouping is None
        else int(fill_unknown(data.labels_of(f.grouping).ids).max()) + 1
        for f in model.factors} if self._keeps_groups else {}
    self._on_device = replicate(
        data.images, self.devices) if on_device else None

  def chunk(self, start: int, stop: int) -> tuple[Any, IndexBatch, Any]:
    """Steps start to stop as (all images, indices, gathered pixels)."""
    batches = self.stream.batches(start, stop)
    index = jax.tree.map(self._split, batches._replace(groups=None))
    if self._keeps_groups:  # Every device has the numbers of all groups.
      index = index._replace(groups=jax.tree.map(
          lambda value: np.stack([value] * len(_local(self.devices))),
          batches.groups))
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
    tree: of arrays.
    devices: to which of them; all if None.

  Returns:
    The tree, on them.
  """
  return jax.device_put(tree, _sharding(devices or jax.local_devices()))


def _local(devices: Sequence[jax.Device]) -> list[jax.Device]:
  """Those of this process."""
  return [d for d in devices if d.process_index == jax.process_index()]


def _sharding(devices: Sequence[jax.Device], *axes: str
              ) -> jax.sharding.NamedSharding:
  """Over this process's devices along the first axis, or on each a copy."""
  mesh = jax.sharding.Mesh(np.array(_local(devices)), (DEVICES,))
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
