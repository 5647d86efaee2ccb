"""The benchmark: its flags, its parts in order, its table and its file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import json
import os

from absl import flags

from experiments import cli
from experiments.benchmarks import evidence, roofline, training
from experiments.benchmarks.timing import (
    Row,
    format_row,
    machine,
    set_up_torch,
    torch_device,
)
from experiments.config.flags import Path, Setting, define
from mlvae_jax.files import write_atomically
from mlvae_jax.model.model import DTYPES

_TRAINED = ('conv', 'mlp', 'groups')
PARTS = ('conv', 'mlp', 'groups', 'penalties', 'product', 'encode', 'gather',
         'machine')
_SUBJECT = 'Measurement'
# Groups of 32 images in the batches whose penalties are measured.
_BATCHES = (8, 32)


def main() -> None:
  """Reads the flags, measures, prints and writes."""
  parts, path, sizes, dtypes = _flag_values()
  # By default JAX takes most of a GPU's memory, but PyTorch needs some of it.
  # It has to be set before JAX starts.
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  set_up_torch()
  print(f'{machine()}; synthetic images')
  if torch_device() is None:
    print('without PyTorch: pip install torch to compare, on a CPU or one GPU')
  print(format_row(Row._fields))
  rows = []
  for row in measure(parts, flags.FLAGS.repeats, sizes, dtypes):
    print(format_row(row), flush=True)
    rows.append(row._asdict())
    if path:  # Every time, since a long measurement may be stopped.
      write_atomically(path, json.dumps(
          {'machine': machine(), 'repeats': flags.FLAGS.repeats, 'rows': rows},
          indent=2) + '\n')


def define_flags() -> None:
  """Defines the flags of this entry point."""
  define('only', Setting(
      'Parts to measure, separated by commas.', _SUBJECT, tuple, list(PARTS)))
  define('images', Setting(
      'Numbers of images in a batch of training, rounded up to whole groups; '
      'by default 128 for conv and 256 for mlp.', _SUBJECT, tuple, []))
  define('dtypes', Setting(
      'Floating-point types in which the networks compute.', _SUBJECT, tuple,
      ['float32']))
  define('repeats', Setting(
      'Number of measurements behind each median.', _SUBJECT, int, 5, lower=1))
  define('json', Setting(
      'File to which to also write the results, as JSON.', _SUBJECT, Path))


def measure(parts: Sequence[str], repeats: int,
            sizes: Sequence[int | None] = (None,),
            dtypes: Sequence[str] = ('float32',)) -> Iterator[Row]:
  """The rows of the named parts, in the order of `PARTS`.

  Args:
    parts: names of parts, from `PARTS`.
    repeats: number of measurements behind each median.
    sizes: numbers of images in a batch, see `training.workloads`.
    dtypes: types of numbers, see `training.workloads`.

  Yields:
    The rows. Loading is also compared with the speed of training, and the
    machine with the part of it that training uses.
  """
  trained = []
  for kind in (kind for kind in _TRAINED if kind in parts):
    for workload in training.workloads(kind, sizes, dtypes):
      yield (row := training.train_speed(workload, repeats))
      if kind != 'groups':
        trained.append((workload, row))
      if kind == 'mlp' and torch_device() is not None:
        yield training.train_speed(workload, repeats, in_loop=True)
  if 'penalties' in parts:
    yield from (training.share_of_penalties(groups, repeats)
                for groups in _BATCHES)
  if 'product' in parts:
    yield from evidence.accumulate(repeats)
    yield evidence.accumulate_sets(repeats)
  if 'encode' in parts:
    yield from (
        evidence.encode(workload, repeats, dtype, 1024 // workload.group_size)
        for workload in (training.conv(training.CHANNELS[0]), training.mlp())
        for dtype in dtypes)
  if 'gather' in parts:
    yield (row := training.gather(repeats))
    for _, other in trained:
      if other.what.startswith('conv'):
        yield Row(f'  over {other.what}', row.jax / other.jax, None, None,
                  'times')
  if 'machine' in parts:
    yield from _of_machine(repeats, dtypes, trained)


def _of_machine(repeats: int, dtypes: Sequence[str],
                trained: Sequence[tuple[training.Workload, Row]]
                ) -> Iterator[Row]:
  """The speed of the machine, and the share of it that training used."""
  products = {}
  for dtype in dtypes:
    products[dtype] = roofline.multiply(repeats, dtype)
    yield products[dtype]
  yield (memory := roofline.copy(repeats))
  for workload, row in trained:
    if workload.model.dtype in products:
      yield from roofline.shares(
          workload, row, products[workload.model.dtype], memory)


def _flag_values() -> tuple[
    list[str], str | None, list[int | None], list[str]]:
  """--only, --json, --images and --dtypes; exits with 2 on a bad value."""
  values = flags.FLAGS
  if not values.only or not set(values.only) <= set(PARTS):
    cli.bad_flag(f'expected --only as a list of {", ".join(PARTS)}')
  if not values.dtypes or not set(values.dtypes) <= set(DTYPES):
    cli.bad_flag(f'expected --dtypes as a list of {", ".join(DTYPES)}')
  if not all(text.isdecimal() and int(text) for text in values.images):
    cli.bad_flag('expected --images as a list of numbers from 1, got '
                 f'{",".join(values.images)}')
  if values.json and not os.path.isdir(os.path.dirname(values.json) or '.'):
    raise cli.UserError(f'no folder for --json={values.json}; create it first')
  sizes = [int(text) for text in values.images] or [None]
  return values.only, values.json, sizes, values.dtypes
