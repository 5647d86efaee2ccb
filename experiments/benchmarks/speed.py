"""Speed of training, of evidence and of loading, beside PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import json
import os
import tempfile
import time
from typing import NamedTuple

from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from experiments import cli
from experiments.config import library, presets
from experiments.config.flags import Path, Setting, define
from mlvae_jax.data.feed import Feed
from mlvae_jax.data.grouped import GroupedImages
from mlvae_jax.data.index_stream import IndexStream
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.grouping.product import product_of_normals
from mlvae_jax.model.factors import ml_vae
from mlvae_jax.model.likelihoods import Gaussian
from mlvae_jax.model.model import Model
from mlvae_jax.model.networks import Conv
from mlvae_jax.training.loop import make_chunk, train
from mlvae_jax.training.step import TrainConfig, init_state

try:
  import torch

  from experiments.benchmarks import torch_twin
except ImportError:
  torch = torch_twin = None

PARTS = ('conv', 'mlp', 'product', 'gather', 'machine')
_SEED = 0
_SUBJECT = 'Measurement'


class Row(NamedTuple):
  """A line of the table; None where there is nothing to compare with."""

  what: str
  jax: float
  pytorch: float | None
  ratio: float | None
  unit: str


def main() -> None:
  """Reads the flags, measures, prints and writes."""
  parts, path = flags.FLAGS.only, flags.FLAGS.json
  if not parts or not set(parts) <= set(PARTS):
    cli.bad_flag(f'expected --only as a list of {", ".join(PARTS)}')
  if path and not os.path.isdir(os.path.dirname(path) or '.'):
    raise cli.UserError(f'no folder for --json={path}; make it first')
  print(f'{machine()}; synthetic images')
  if not _has_twin():
    print('no PyTorch beside it: pip install torch to compare, on a CPU')
  print(format_row(Row._fields))
  rows = []
  for row in measure(parts, flags.FLAGS.repeats):
    print(format_row(row), flush=True)
    rows.append(row._asdict())
  if path:
    cli.write_atomically(path, json.dumps(
        {'machine': machine(), 'repeats': flags.FLAGS.repeats, 'rows': rows},
        indent=2) + '\n')


def define_flags() -> None:
  """Defines the flags of this entry point."""
  define('only', Setting(
      'Parts to measure.', _SUBJECT, tuple, list(PARTS)))
  define('repeats', Setting(
      'Number of measurements behind each median.', _SUBJECT, int, 5, lower=1))
  define('json', Setting(
      'File to write the results to as well.', _SUBJECT, Path))


def machine() -> str:
  """What the figures were measured on, in one line."""
  device = jax.devices()[0].device_kind
  ours = f'jax {jax.__version__} on {device}, {os.cpu_count()} CPUs'
  theirs = 'no torch' if torch is None else (
      f'torch {torch.__version__} with {torch.get_num_threads()} threads')
  return f'{ours}; {theirs}'


def measure(parts: list[str], repeats: int) -> Iterator[Row]:
  """The rows of the named parts, in the order of `PARTS`."""
  conv_rows = []
  if 'conv' in parts:
    for channels in ((16, 32, 64, 128), (32, 64, 128, 256)):
      conv_rows.append(train_conv(repeats, channels))
      yield conv_rows[-1]
  if 'mlp' in parts:
    yield train_mlp(repeats)
  if 'product' in parts:
    yield accumulate(repeats)
  if 'gather' in parts:
    yield (row := gather(repeats))
    for conv in conv_rows:
      yield Row(f'  over {conv.what}', row.jax / conv.jax, None, None, 'times')
  if 'machine' in parts:
    yield from (multiply(repeats), copy(repeats))


def train_conv(repeats: int, channels: tuple[int, ...], image_size: int = 64,
               num_groups: int = 32, steps: int = 8) -> Row:
  """Training of a convolutional ML-VAE, on groups of four images."""
  model = Model(ml_vae(64, 32), (image_size, image_size, 3), Gaussian(0.15),
                Conv(channels))
  data = _noise_images(32 * num_groups, 4, model)
  name = f'conv {"-".join(map(str, channels))}'
  return _train(name, model, data, num_groups, steps, repeats)


def train_mlp(repeats: int, num_groups: int = 8, steps: int = 50) -> Row:
  """Training of the model of preset mnist5k, on groups of 32 images."""
  model = library.make_model(presets.PRESETS['mnist5k'], (28, 28, 1))
  data = _noise_images(16 * num_groups, 32, model)
  return _train('mlp of mnist5k', model, data, num_groups, steps, repeats)


def accumulate(repeats: int, num_rows: int = 10**6, num_groups: int = 10**5
               ) -> Row:
  """The product of the Normals of many groups, their rows in any order."""
  rng = np.random.default_rng(_SEED)
  q = Normal(*rng.normal(size=(2, num_rows, 16)).astype(np.float32))
  ids = rng.permutation(num_rows) % num_groups
  arguments = jax.device_put((q, ids.astype(np.int32)))
  product = jax.jit(product_of_normals, static_argnums=2)
  return _time(
      f'product {num_rows:,}x16, {num_groups:,} groups', num_rows, 'rows/s',
      repeats, lambda _: product(*arguments, num_groups),
      lambda _: torch_twin.product_of_normals(
          tuple(map(torch.from_numpy, q)), torch.from_numpy(ids), num_groups))


def gather(repeats: int, num_groups: int = 4096, steps: int = 32) -> Row:
  """Epochs of 64x64 images from a memory-mapped file, in the page cache."""
  model = Model(ml_vae(64, 32), (64, 64, 3), Gaussian(0.15), Conv())
  data = _noise_images(num_groups, 4, model)
  with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, 'images.npy')
    np.save(path, data.images)
    data = GroupedImages(
        np.load(path, mmap_mode='r'), data.offsets, data.names)
    feed = _feed(model, data, 32, on_device=False)

    def read_epoch(turn):
      epoch = feed.stream.steps_per_epoch
      for start in range(turn * epoch, (turn + 1) * epoch, steps):
        jax.block_until_ready(feed.chunk(start, start + steps))

    return _time('gather 64x64 from a .npy file', len(data), 'rows/s', repeats,
                 read_epoch)


def multiply(repeats: int, size: int = 2048) -> Row:
  """The machine's speed at float32 matrix products."""
  a = np.random.default_rng(_SEED).random((size, size), np.float32)
  b, product = jax.device_put(a), jax.jit(jnp.matmul)
  return _time(
      f'matrix product of {size}', 2e-9 * size ** 3, 'GFLOP/s', repeats,
      lambda _: product(b, b),
      lambda _: torch.from_numpy(a) @ torch.from_numpy(a))


def copy(repeats: int, num_bytes: int = 1 << 28) -> Row:
  """The machine's speed at moving memory: bytes read and bytes written."""
  source, target = np.ones(num_bytes, np.uint8), np.ones(num_bytes, np.uint8)
  return _time('memory copy by NumPy', 2e-9 * num_bytes, 'GB/s', repeats,
               lambda _: np.copyto(target, source))


def format_row(row: Sequence[str | float | None]) -> str:
  """A `Row`, or the names of its columns, as a line of the table."""
  cells = ('-' if value is None else value if isinstance(value, str)
           else f'{value:,.0f}' if value >= 100 else f'{value:.3g}'
           for value in row)
  return '{:<38}{:>12}{:>12}{:>8}  {}'.format(*cells)


def _train(name: str, model: Model, data: GroupedImages, num_groups: int,
           steps: int, repeats: int) -> Row:
  """Times chunks of this many steps of training."""
  settings = TrainConfig(seed=_SEED)
  state = init_state(model, settings)
  feed = _feed(model, data, num_groups)
  if _has_twin():
    twin = torch_twin.Twin(model, state.params)
    trainer = torch_twin.Trainer(
        twin, data.images, feed.stream, settings.learning_rate)
  # One chunk warms up. One is never run, for each prepares the next one.
  chunks = train(
      state, feed, make_chunk(model, settings, feed.num_groups),
      num_steps=(repeats + 2) * steps, chunk_steps=steps)
  num_images = steps * data.offsets[num_groups]  # All groups are alike.
  return _time(name, num_images, 'images/s', repeats, lambda _: next(chunks),
               lambda turn: trainer.chunk(turn * steps, (turn + 1) * steps))


def _time(what: str, amount: float, unit: str, repeats: int, ours: Callable,
          theirs: Callable | None = None) -> Row:
  """Times calls with the number of the turn, from 1; turn 0 warms up."""
  sides = [ours, theirs] if theirs and _has_twin() else [ours]
  seconds = np.zeros((repeats + 1, len(sides)))
  for turn, i in np.ndindex(seconds.shape):
    start = time.perf_counter()
    jax.block_until_ready(sides[i](turn))
    seconds[turn, i] = time.perf_counter() - start
  rates = np.median(amount / seconds[1:], axis=0).tolist()
  ratio = float(np.median(seconds[1:, -1] / seconds[1:, 0]))
  compared = (rates[1], ratio) if len(sides) == 2 else (None, None)
  return Row(what, rates[0], *compared, unit)


def _noise_images(num_groups: int, group_size: int, model: Model
                  ) -> GroupedImages:
  """Groups of noise, as the model takes them."""
  offsets = np.arange(num_groups + 1) * group_size
  images = np.random.default_rng(_SEED).integers(
      0, 256, (offsets[-1], *model.image_shape), np.uint8)
  return GroupedImages(
      images, offsets, tuple(map(str, range(num_groups))), *model.groupings)


def _feed(model: Model, data: GroupedImages, num_groups: int,
          on_device: bool = True) -> Feed:
  stream = IndexStream(
      data, model.groupings, groups_per_batch=num_groups, seed=_SEED,
      row_multiple=jax.local_device_count())
  return Feed(model, data, stream, on_device=on_device)


def _has_twin() -> bool:
  return torch is not None and jax.default_backend() == 'cpu'
