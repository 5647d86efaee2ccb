"""Brings batches to the devices, and gathers a step's rows there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent import futures
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mlvae_jax.data.grouped import GroupedData
from mlvae_jax.data.ids import fill_unknown
from mlvae_jax.data.index_stream import IndexBatch, IndexStream
from mlvae_jax.devices import Device
from mlvae_jax.model.factors import Batch
from mlvae_jax.model.model import Model

DEVICES = 'devices'  # Name of the mapped axis over which a batch is spread.


class Feed:
  """Brings batches of a data set to the devices.

  Where the observations fit on a device (`on_device`), each device holds all of
  them, and a chunk consists of row numbers. Otherwise the host gathers each
  chunk's observations, from RAM or from a file mapped into memory. Either way a
  thread prepares a chunk and copies it to the devices while they work on the
  previous one.

  Where there are several processes, each handles the rows of its own devices
  and reads no others.

  Attributes:
    stream: the index stream.
    num_groups: static number of groups per grouped factor.
    table_sizes: number of posteriors per factor of an SVI model; else empty.
    devices: devices over which batches are spread, in this order.
  """

  def __init__(self, model: Model, data: GroupedData,
               stream: IndexStream, *, on_device: bool = True,
               devices: Sequence[Device] | None = None):
    """Copies all observations to the devices, if `on_device`.

    Args:
      model: model whose factors determine the groupings.
      data: the observations.
      stream: index stream that determines the batches.
      on_device: whether every device holds all observations.
      devices: devices to spread batches over; `all_devices()` if None.

    Raises:
      ValueError: where the stream's batches cannot be divided over the devices.
    """
    self.stream = stream
    self.devices = tuple(devices or all_devices())
    self.num_groups = {
        f.name: stream.num_groups[f.grouping] for f in model.grouped
        if f.grouping is not None}
    if stream.rows_per_batch % len(self.devices):
      raise ValueError(
          f'{stream.rows_per_batch} rows per batch cannot be divided over '
          f'{len(self.devices)} devices; pass row_multiple='
          f'{len(self.devices)} to the stream')
    self._x = data.x
    self.table_sizes = {}
    if not model.has_encoder:
      self.table_sizes = {
          f.name: _num_posteriors(data, f.grouping) for f in model.factors}
    self._on_device = replicate(
        np.asarray(data.x), self.devices) if on_device else None

  def chunk(self, start: int, stop: int) -> tuple[Any, IndexBatch, Any]:
    """Brings the batches of some steps to the devices.

    Args:
      start: first step.
      stop: step after the last.

    Returns:
      All observations or None; indices `[local devices, steps, rows per
      device]`; observations `[local devices, steps, rows per device, ...]` or
      None.
    """
    batches = self.stream.batches(start, stop)
    index = jax.tree.map(self._split, batches._replace(groups={}))
    # Groups are not spread: each device looks up the rows of all of them, in
    # the tables of SVI and among the classes of critics.
    index = index._replace(groups={
        name: np.stack([value] * len(_local(self.devices)))
        for name, value in batches.groups.items()})
    gathered = None if self._on_device is not None else self._x[index.rows]
    index, gathered = jax.device_put(
        (index, gathered), _sharding(self.devices, DEVICES))
    return self._on_device, index, gathered

  def chunks(self, bounds: Sequence[tuple[int, int]]
             ) -> Iterator[tuple[Any, IndexBatch, Any]]:
    """Yields `chunk(start, stop)` for all bounds, each prepared in advance."""
    # One chunk in advance and no more: its pixels take memory on the devices.
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
    """Splits `[steps, N]` to `[local devices, steps, N / devices]`."""
    # The leading axis is the one that `pmap` spreads over devices.
    steps = len(value)
    parts = value.reshape(steps, len(self.devices), -1).swapaxes(0, 1)
    mine = [i for i, device in enumerate(self.devices)
            if device in _local(self.devices)]
    return np.ascontiguousarray(parts[mine])


def all_devices() -> list[Device]:
  """The devices of all processes, process by process, in pmap's order."""
  return [device for process in range(jax.process_count())
          for device in jax.local_devices(process)]


def replicate(tree: Any, devices: Sequence[Device] | None = None) -> Any:
  """Copies a tree of arrays to every device of this process.

  Args:
    tree: pytree of arrays.
    devices: devices, of which this process copies to its own; all of this
      process if None.

  Returns:
    The tree, on the devices.
  """
  return jax.device_put(tree, _sharding(devices or jax.local_devices()))


def chunk_bounds(start: int, stop: int, chunk_steps: int
                 ) -> list[tuple[int, int]]:
  """Divides steps into chunks, which end at multiples of `chunk_steps`.

  Args:
    start: first step.
    stop: step after the last.
    chunk_steps: largest number of steps of a chunk.

  Returns:
    (start, stop) of each chunk.
  """
  # A run that resumes in the middle of a chunk ends it where any other run
  # does, so checkpoints and logs are of the same steps.
  bounds = []
  while start < stop:
    end = min((start // chunk_steps + 1) * chunk_steps, stop)
    bounds.append((start, end))
    start = end
  return bounds


def local_batch(model: Model, x: Any, index: Any, gathered: Any) -> Batch:
  """Gathers this device's rows of one step; call it under `pmap`.

  Args:
    model: model whose factors determine the groupings.
    x: all observations, a JAX array, or None.
    index: this device's part of one step of a feed's chunk, an `IndexBatch` of
      JAX arrays.
    gathered: observations of its rows, where `x` is None.

  Returns:
    The rows, with ids and shares of KLs by factor rather than by grouping.
  """
  num_rows = index.rows.shape[0]
  x = x[index.rows] if gathered is None else gathered
  # Rows are numbered through the whole batch, since noise depends on them.
  first = jax.lax.axis_index(DEVICES) * num_rows

  def by_factor(by_grouping):
    return {f.name: by_grouping[f.grouping] for f in model.grouped}

  return Batch(
      x, by_factor(index.group_ids), index.mask, first + jnp.arange(num_rows),
      by_factor(index.evidence) if index.evidence else None, index.weights,
      by_factor(index.kl_share) if index.kl_share else None,
      by_factor(index.groups))


def _num_posteriors(data: GroupedData, grouping: str | None) -> int:
  """Number of posteriors that SVI keeps for a factor of that grouping."""
  # Rows of unknown group are groups of their own, as in the index stream.
  if grouping is None:
    return len(data)
  return int(fill_unknown(data.labels_of(grouping).ids).max()) + 1


def _local(devices: Sequence[Device]) -> list[Device]:
  """The devices that belong to this process."""
  return [d for d in devices if d.process_index == jax.process_index()]


def _sharding(devices: Sequence[Device], *axes: str
              ) -> jax.sharding.NamedSharding:
  """Spreads the first axis over this process's devices, or copies to each."""
  mesh = jax.sharding.Mesh(np.array(_local(devices)), (DEVICES,))
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
