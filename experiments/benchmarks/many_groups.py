"""Measures what a million groups cost in start-up time, memory and per batch.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import resource
import statistics
import time
from typing import NamedTuple

from absl import flags
import jax
import numpy as np

from experiments import cli
from experiments.config.flags import Setting, define
from mlvae_jax.data.feed import Feed
from mlvae_jax.data.grouped import GroupedData, Labels
from mlvae_jax.data.ids import offsets_of
from mlvae_jax.data.index_stream import IndexStream
from mlvae_jax.grouping.free import Free
from mlvae_jax.model.factors import ml_vae
from mlvae_jax.model.model import Model
from mlvae_jax.model.networks.mlp import MLP
from mlvae_jax.training.loop import make_chunk, train
from mlvae_jax.training.step import TrainConfig, init_state

PARTS = ('one grouping', 'two groupings', 'SVI tables')
_BATCHES, _CHUNK = 500, 20  # Batches to draw; steps of training in a chunk.
_SETTINGS = {'groups_per_batch': 32, 'max_group_size': 8}
_SEED = 0


class Cost(NamedTuple):
  """The cost of one part.

  Attributes:
    start: seconds until the first batch, or step, is ready.
    each: milliseconds per later batch, or step.
    memory: peak memory of the process in GB (10^9 bytes), including the data
      and JAX.
  """

  start: float
  each: float
  memory: float


def main() -> None:
  """Reads the flags, measures and prints."""
  values = flags.FLAGS
  try:
    numbers = [int(float(text)) for text in values.groups]  # 1e6 is handy.
  except ValueError:
    numbers = []
  if not numbers or not all(0 < n <= values.rows for n in numbers):
    cli.bad_flag('expected --groups as comma-separated numbers from 1 to '
                 f'--rows, got {",".join(values.groups)}')
  print(f'{"":14} {"groups":>9} {"rows":>10} {"start s":>9} '
        f'{"ms each":>9} {"GB":>6}')
  for part in PARTS:
    for number in numbers:
      cost = _alone(part, number, values.rows)
      print(f'{part:14} {number:9,} {values.rows:10,} {cost.start:9.2f} '
            f'{cost.each:9.3f} {cost.memory:6.2f}', flush=True)


def define_flags() -> None:
  """Defines the flags of this entry point."""
  define('groups', Setting(
      'Numbers of groups to measure, separated by commas.', 'Measurement',
      tuple, ['1000', '1000000']))
  define('rows', Setting(
      'Number of rows of the data.', 'Measurement', int, 10_000_000, lower=1))


def measure(part: str, num_groups: int, num_rows: int) -> Cost:
  """Measures one part in this process.

  Args:
    part: name of the part, one of `PARTS`.
    num_groups: number of groups of each grouping.
    num_rows: total number of rows.

  Returns:
    The cost.
  """
  rng = np.random.default_rng(_SEED)
  sizes = np.bincount(
      rng.integers(0, num_groups, num_rows, np.int32), minlength=num_groups)
  names = ('',) * num_groups
  data = GroupedData(
      np.zeros((num_rows, 2, 2, 1), np.uint8), offsets_of(sizes), names, 'a')
  if part == 'one grouping':
    start, each = _stream(lambda: IndexStream(data, ('a',), **_SETTINGS))
  elif part == 'two groupings':
    ids = rng.integers(0, num_groups, num_rows, np.int32)
    data = dataclasses.replace(data, others={'b': Labels(ids, names)})
    start, each = _stream(lambda: IndexStream(data, ('a', 'b'), **_SETTINGS))
  else:
    start, each = _tables(data)
  # Linux counts it in KiB.
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
  return Cost(start, each, peak / 1e9)


def _stream(make) -> tuple[float, float]:
  """Seconds to the first batch of a stream, and milliseconds per later one."""
  begin = time.perf_counter()
  stream = make()
  stream.batches(0, 1)
  start = time.perf_counter() - begin
  times = []
  for step in range(1, _BATCHES, 10):
    begin = time.perf_counter()
    stream.batches(step, step + 10)
    times.append((time.perf_counter() - begin) / 10)
  return start, 1000 * statistics.median(times)


def _tables(data: GroupedData) -> tuple[float, float]:
  """Seconds to the first chunk of SVI training; milliseconds per later step."""
  begin = time.perf_counter()
  model = Model(ml_vae(10, 10, 'a'), data.x.shape[1:],
                network=MLP((16,)), group_posterior=Free())
  stream = IndexStream(
      data, model.groupings, share_of_whole_group=True,
      row_multiple=jax.local_device_count(), **_SETTINGS)
  feed = Feed(model, data, stream)
  settings = TrainConfig()
  state = init_state(model, settings, feed.table_sizes)
  chunk = make_chunk(model, settings, feed.num_groups)
  times, start = [], None
  for _ in train(
      state, feed, chunk, num_steps=10 * _CHUNK, chunk_steps=_CHUNK):
    now = time.perf_counter()
    if start is None:
      start = now - begin
    else:
      times.append((now - begin) / _CHUNK)
    begin = now
  return start, 1000 * statistics.median(times)


def _alone(part: str, num_groups: int, num_rows: int) -> Cost:
  """Measures in a new process, because the peak memory never falls again."""
  # Spawned: a fork would inherit the threads and the memory of JAX.
  context = multiprocessing.get_context('spawn')
  with context.Pool(1) as pool:
    return pool.apply(measure, (part, num_groups, num_rows))
