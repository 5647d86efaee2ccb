"""The feed that brings images to the devices, in chunks prepared ahead."""

import dataclasses
import threading

import jax
import numpy as np
import pytest

from mlvae_jax.data.feed import Feed
from mlvae_jax.data.grouped import GroupedData
from mlvae_jax.data.index_stream import IndexStream
from mlvae_jax.model.factors import ml_vae
from mlvae_jax.model.model import Model
from mlvae_jax.model.networks.mlp import MLP

_RNG = np.random.default_rng(0)
SIZES = [3, 9, 1, 14, 8, 5]
DATA = GroupedData(
    _RNG.integers(0, 256, (40, 4, 4, 1), np.uint8),
    np.concatenate([[0], np.cumsum(SIZES)]), tuple('abcdef'))
MODEL = Model(ml_vae(3, 2), (4, 4, 1), network=MLP((4,)))
BOUNDS = [(1, 3), (3, 6), (6, 7)]


def _mapped(folder):
  """DATA, mapped into memory."""
  np.save(folder / 'images.npy', DATA.x)
  return GroupedData(
      np.load(folder / 'images.npy', mmap_mode='r'), DATA.offsets, DATA.names)


def _feed(data=DATA, stream=IndexStream, **arguments):
  """A feed of batches of four groups."""
  return Feed(
      MODEL, data, stream(
          data, ('group',), groups_per_batch=4, max_group_size=4,
          row_multiple=jax.local_device_count()), **arguments)


def _images_of(chunk):
  """The indices of a chunk, and the images that they mean."""
  everything, index, pixels = chunk
  assert (everything is None) != (pixels is None)
  if pixels is None:
    pixels = np.asarray(everything)[np.asarray(index.rows)]
  return jax.device_get((index, pixels))


def _per_row(index):
  """What an index has of each row."""
  return [index.rows, index.group_ids['group'], index.mask]


def _assert_same(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize('mapped', [False, True])
@pytest.mark.parametrize('on_device', [True, False])
def test_chunks_are_those_that_are_asked_for_alone(
    tmp_path, on_device, mapped):
  feed = _feed(_mapped(tmp_path) if mapped else DATA, on_device=on_device)
  chunks = list(feed.chunks(BOUNDS))
  assert len(chunks) == len(BOUNDS)
  for chunk, (start, stop) in zip(chunks, BOUNDS):
    _assert_same(
        jax.device_get(chunk), jax.device_get(feed.chunk(start, stop)))
    index, pixels = _images_of(chunk)
    _assert_same(pixels, DATA.x[index.rows])
    num_devices = jax.local_device_count()
    expected = feed.stream.batches(start, stop)
    for value, whole in zip(*map(_per_row, (index, expected)), strict=True):
      assert value.shape[:2] == (num_devices, stop - start)
      _assert_same(np.concatenate(value, axis=1), whole)


@pytest.mark.parametrize('on_device', [True, False])
def test_chunks_lie_on_the_devices_already(on_device):
  for everything, index, pixels in _feed(on_device=on_device).chunks(BOUNDS):
    if on_device:
      assert everything.is_fully_replicated
    for value in jax.tree.leaves((index, pixels)):
      assert value.sharding.device_set == set(jax.local_devices())
      assert len(value) == jax.local_device_count()


def test_the_images_are_the_same_wherever_they_lie(tmp_path):
  data = _mapped(tmp_path)
  feeds = [_feed(on_device=True), _feed(on_device=False),
           _feed(data, on_device=True), _feed(data, on_device=False)]
  parts = [[_images_of(chunk) for chunk in feed.chunks(BOUNDS)]
           for feed in feeds]
  for part in parts[1:]:
    _assert_same(part, parts[0])


class _Watched(IndexStream):
  """Tells which batches were made, and in which thread."""

  def __init__(self, *args, **kwargs):
    super().__init__(*args, **kwargs)
    self.threads = {}
    self.made = {start: threading.Event() for start, _ in BOUNDS}

  def batches(self, start, stop):
    self.threads[start] = threading.current_thread()
    self.made[start].set()
    return super().batches(start, stop)


def test_one_chunk_is_prepared_ahead_by_another_thread():
  feed = _feed(stream=_Watched)
  chunks = feed.chunks(BOUNDS)
  assert not feed.stream.threads  # Nothing is done before it is asked for.
  next(chunks)
  assert feed.stream.made[3].wait(timeout=60)
  assert not feed.stream.made[6].is_set()
  next(chunks)
  assert feed.stream.made[6].wait(timeout=60)
  assert len(list(chunks)) == 1
  threads = set(feed.stream.threads.values())
  assert len(threads) == 1 and threading.current_thread() not in threads
  assert not threads.pop().is_alive()


@pytest.mark.parametrize('on_device', [True, False])
@pytest.mark.parametrize('taken', [0, 1, 2])
def test_no_thread_is_left_where_chunks_are_not_used_up(taken, on_device):
  feed = _feed(stream=_Watched, on_device=on_device)
  chunks = feed.chunks(BOUNDS)
  for _ in range(taken):
    next(chunks)
  threads = set(feed.stream.threads.values())
  assert len(threads) == min(taken, 1)
  assert all(thread.is_alive() for thread in threads)
  chunks.close()
  assert len(feed.stream.threads) == (taken + 1 if taken else 0)
  assert not any(thread.is_alive() for thread in threads)


def test_no_bounds_are_no_chunks():
  feed = _feed(stream=_Watched)
  assert not list(feed.chunks([])) and not feed.stream.threads


def test_a_chunk_that_cannot_be_made_raises_where_it_is_used():
  feed = _feed(stream=_Watched)
  chunks = feed.chunks([(1, 3), (3, 2), (6, 7)])  # A negative size.
  next(chunks)
  with pytest.raises(ValueError, match='negative'):
    next(chunks)
  assert list(feed.stream.threads) == [1, 3]
  assert not any(
      thread.is_alive() for thread in feed.stream.threads.values())


class _Recorded:
  """Images that tell which rows were read."""

  def __init__(self, images):
    self._images, self.read = images, []
    self.nbytes, self.shape, self.dtype = (
        images.nbytes, images.shape, images.dtype)

  def __getitem__(self, rows):
    self.read.append(np.asarray(rows))
    return self._images[rows]


class _Elsewhere:
  """A device of another process."""

  process_index = 1


@pytest.mark.parametrize('ours_first', [True, False])
def test_a_process_reads_the_rows_of_its_own_devices_alone(ours_first):
  local = jax.local_devices()[:2]
  if len(local) < 2:
    pytest.skip('there are no two devices')
  devices = [*local, _Elsewhere(), _Elsewhere()]
  if not ours_first:
    devices = devices[::-1]
  recorded = _Recorded(DATA.x)
  stream = IndexStream(
      DATA, ('group',), groups_per_batch=4, max_group_size=4, row_multiple=4)
  feed = Feed(MODEL, dataclasses.replace(DATA, x=recorded), stream,
              on_device=False, devices=devices)
  _, index, pixels = feed.chunk(0, 5)
  whole = stream.batches(0, 5).rows
  half = whole.shape[1] // 2
  expected = whole[:, :half] if ours_first else whole[:, half:]
  found = np.concatenate(np.asarray(index.rows), axis=1)
  assert sorted(found.ravel()) == sorted(expected.ravel())
  read, = recorded.read
  np.testing.assert_array_equal(read, index.rows)
  np.testing.assert_array_equal(pixels, DATA.x[read])
