"""Speed of training, next to PyTorch, and of bringing images to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import dataclasses
import os
import tempfile
import time

import jax
import numpy as np

from experiments.benchmarks import costs
from experiments.benchmarks.timing import (
    SEED,
    Row,
    on_cpu,
    time_sides,
    torch,
    torch_device,
)
from experiments.config import library, presets
from experiments.config.settings import Config
from mlvae_jax.data.feed import Feed
from mlvae_jax.data.grouped import GroupedData
from mlvae_jax.data.index_stream import IndexStream
from mlvae_jax.model.factors import ml_vae
from mlvae_jax.model.likelihoods.gaussian import Gaussian
from mlvae_jax.model.model import Model
from mlvae_jax.model.networks.conv import Conv
from mlvae_jax.model.networks.mlp import MLP
from mlvae_jax.training.loop import make_chunk, train
from mlvae_jax.training.step import TrainConfig, init_state

if torch is not None:
  from experiments.benchmarks import torch_twin

_SETTINGS = TrainConfig(seed=SEED)
CHANNELS = ((16, 32, 64, 128), (32, 64, 128, 256))
# Data sets hold this many groups where the batch says nothing else.
_NUM_GROUPS = 4096
_NUMBERS_OF_GROUPS = (10**3, 10**4, 10**5, 10**6)


@dataclasses.dataclass(frozen=True)
class Workload:
  """A model, and how it is trained on noise.

  Attributes:
    name: of its row.
    model: static.
    group_size: images of each group.
    batch_groups: groups of each batch.
    num_groups: groups of the data set.
    steps: number of steps in a chunk, which is one dispatch.
  """

  name: str
  model: Model
  group_size: int
  batch_groups: int
  num_groups: int
  steps: int

  @property
  def num_images(self) -> int:
    """Images of each batch."""
    return self.group_size * self.batch_groups

  def cost(self) -> costs.Cost:
    """What a step does."""
    return costs.step_cost(
        self.model, _SETTINGS, self.num_images,
        {f.name: self.batch_groups for f in self.model.grouped})


def workloads(kind: str, sizes: Sequence[int | None], dtypes: Sequence[str]
              ) -> Iterator[Workload]:
  """What there is to train.

  Args:
    kind: conv, mlp or groups.
    sizes: images per batch, rounded up to whole groups; None for the
      workload's own, which a row does not name.
    dtypes: types of numbers of the networks.

  Yields:
    The workloads, one batch size after the other.
  """
  if kind == 'groups':
    yield from map(few_pixels, _NUMBERS_OF_GROUPS)
    return
  for size in sizes:
    for dtype in dtypes:
      if kind == 'mlp':
        yield _sized(mlp(), size, dtype)
      else:
        yield from (_sized(conv(channels), size, dtype)
                    for channels in CHANNELS)


def conv(channels: tuple[int, ...], image_size: int = 64,
         batch_groups: int = 32, steps: int | None = None) -> Workload:
  """A convolutional ML-VAE, on groups of four images."""
  return Workload(
      f'conv {"-".join(map(str, channels))}',
      Model(ml_vae(64, 32), (image_size, image_size, 3), Gaussian(0.15),
            Conv(channels)),
      4, batch_groups, 32 * batch_groups,
      steps or (8 if on_cpu() else presets.PRESETS['celeb'].chunk_steps))


def mlp(batch_groups: int = 8, steps: int | None = None) -> Workload:
  """The paper's model of digits, on groups of 32 images."""
  return Workload(
      'mlp of mnist',
      library.make_model(Config(), (28, 28, 1)), 32,
      batch_groups, 16 * batch_groups,
      steps or (50 if on_cpu() else presets.PRESETS['mnist'].chunk_steps))


def few_pixels(num_groups: int, steps: int = 50) -> Workload:
  """An MLP on images of 8x8, in many groups of four."""
  return Workload(
      f'mlp of 8x8, {num_groups:,} groups',
      Model(ml_vae(10, 10), (8, 8, 1), network=MLP()), 4,
      min(num_groups, 64), num_groups, steps)


def train_speed(workload: Workload, repeats: int, in_loop: bool = False
                ) -> Row:
  """Images per second of training.

  Args:
    workload: what to train.
    repeats: see `timing.time_sides`.
    in_loop: whether PyTorch combines groups one by one, see `torch_twin.Twin`.

  Returns:
    The row.
  """
  model, steps = workload.model, workload.steps
  state = init_state(model, _SETTINGS)
  data = noise_images(workload.num_groups, workload.group_size, model)
  feed = make_feed(model, data, workload.batch_groups)
  trainer = None
  if torch_device() is not None:
    twin = torch_twin.Twin(model, state.params, in_loop).to(torch_device())
    trainer = torch_twin.Trainer(
        twin, data.x, feed.stream, _SETTINGS.learning_rate)
  # One chunk warms up. One is never run, for each prepares the next one.
  chunks = train(
      state, feed, make_chunk(model, _SETTINGS, feed.num_groups),
      num_steps=(repeats + 2) * steps, chunk_steps=steps)
  name = workload.name + (', PyTorch in a loop over groups' if in_loop else '')
  return time_sides(
      name, steps * workload.num_images, 'images/s', repeats,
      lambda _: next(chunks),
      lambda turn: trainer.chunk(turn * steps, (turn + 1) * steps))


def share_of_penalties(batch_groups: int, repeats: int, steps: int = 20) -> Row:
  """The part of a step that the penalties of the preset `mnist` take.

  Args:
    batch_groups: groups of 32 images in a batch.
    repeats: number of measurements behind the median.
    steps: number of steps in each.

  Returns:
    A row without PyTorch's side.
  """
  preset = presets.PRESETS['mnist']
  workload = mlp(batch_groups, steps)
  model = library.make_model(preset, workload.model.observation_shape)
  settings = library.make_train_config(preset, model)
  data = noise_images(workload.num_groups, workload.group_size, model)
  sides = []
  for penalties in (settings.penalties, ()):
    config = dataclasses.replace(settings, penalties=penalties)
    feed = make_feed(model, data, batch_groups, evidence=preset.evidence)
    sides.append(train(
        init_state(model, config), feed,
        make_chunk(model, config, feed.num_groups),
        num_steps=(repeats + 2) * steps, chunk_steps=steps))
  seconds = np.zeros((repeats + 1, 2))
  for turn, i in np.ndindex(seconds.shape):
    start = time.perf_counter()
    jax.block_until_ready(next(sides[i]))
    seconds[turn, i] = time.perf_counter() - start
  share = 1.0 - seconds[1:, 1] / seconds[1:, 0]
  return Row(
      f'penalties of mnist, {workload.num_images:,} images',
      float(100.0 * np.median(share)), None, None, '% of a step')


def gather(repeats: int, num_groups: int = 4096, steps: int = 32) -> Row:
  """Epochs of 64x64 images from a memory-mapped file, in the page cache."""
  model = Model(ml_vae(64, 32), (64, 64, 3), Gaussian(0.15), Conv())
  data = noise_images(num_groups, 4, model)
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, 'images.npy')
    np.save(path, data.x)
    data = GroupedData(
        np.load(path, mmap_mode='r'), data.offsets, data.names)
    feed = make_feed(model, data, 32, on_device=False)

    def read_epoch(turn):
      epoch = feed.stream.steps_per_epoch
      for start in range(turn * epoch, (turn + 1) * epoch, steps):
        jax.block_until_ready(feed.chunk(start, start + steps))

    return time_sides('gather 64x64 from a .npy file', len(data), 'rows/s',
                      repeats, read_epoch)


def noise_images(num_groups: int, group_size: int, model: Model
                 ) -> GroupedData:
  """Groups of noise, as the model takes them."""
  offsets = np.arange(num_groups + 1) * group_size
  images = np.random.default_rng(SEED).integers(
      0, 256, (offsets[-1], *model.observation_shape), np.uint8)
  return GroupedData(
      images, offsets, tuple(map(str, range(num_groups))), *model.groupings)


def make_feed(model: Model, data: GroupedData, batch_groups: int,
              on_device: bool = True, evidence: str = 'all') -> Feed:
  """Batches of this many groups."""
  stream = IndexStream(
      data, model.groupings, groups_per_batch=batch_groups, seed=SEED,
      row_multiple=jax.local_device_count(), evidence=evidence)
  return Feed(model, data, stream, on_device=on_device)


def _sized(workload: Workload, num_images: int | None, dtype: str) -> Workload:
  """The same with another batch, and computed in another type."""
  if num_images is not None:
    batch_groups = -(-num_images // workload.group_size)
    workload = dataclasses.replace(
        workload, batch_groups=batch_groups,
        num_groups=max(_NUM_GROUPS, 4 * batch_groups))
    workload = dataclasses.replace(
        workload, name=f'{workload.name}, {workload.num_images:,} images')
  if dtype != workload.model.dtype:
    workload = dataclasses.replace(
        workload, name=f'{workload.name}, {dtype}',
        model=dataclasses.replace(workload.model, dtype=dtype))
  return workload
