"""Times our code and PyTorch's in turns, on the same device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import os
import time
from typing import Any, NamedTuple

import jax
import numpy as np

try:
  import torch
except ImportError:
  torch = None

SEED = 0
# What PyTorch may do, too, where JAX multiplies float32 at its default.
_FULL_PRECISION = ('highest', 'float32')


class Row(NamedTuple):
  """A line of the table; None where there is nothing to compare with."""

  what: str
  jax: float
  pytorch: float | None
  ratio: float | None
  unit: str


def torch_device() -> Any:
  """The device that PyTorch shares with JAX; None where it cannot.

  JAX trains on all GPUs of a process, the twin on one: with several there is
  nothing to compare.
  """
  backend = jax.default_backend()
  if torch is None or backend not in ('cpu', 'gpu'):
    return None
  if backend == 'cpu':
    return torch.device('cpu')
  alone = jax.local_device_count() == 1 and torch.cuda.is_available()
  return torch.device('cuda') if alone else None


def on_cpu() -> bool:
  """Whether JAX computes on a CPU, for which measurements are smaller."""
  return jax.default_backend() == 'cpu'


def set_up_torch() -> None:
  """Lets PyTorch choose kernels and round float32 as JAX does here."""
  device = torch_device()
  if device is None or device.type != 'cuda':
    return
  torch.backends.cudnn.benchmark = True
  # On a GPU, JAX's default rounds the factors of float32 products to TF32.
  if jax.config.jax_default_matmul_precision in _FULL_PRECISION:
    torch.set_float32_matmul_precision('highest')
    torch.backends.cudnn.allow_tf32 = False
  else:
    torch.set_float32_matmul_precision('high')


def machine() -> str:
  """What the figures were measured on, in one line."""
  device = jax.devices()[0].device_kind
  ours = f'jax {jax.__version__} on {device}, {os.cpu_count()} CPUs'
  if torch is None:
    return f'{ours}; no torch'
  device = torch_device()
  where = (f'on {torch.cuda.get_device_name(device)}'
           if device is not None and device.type == 'cuda'
           else f'with {torch.get_num_threads()} threads')
  return f'{ours}; torch {torch.__version__} {where}'


def time_sides(what: str, amount: float, unit: str, repeats: int,
               ours: Callable, theirs: Callable | None = None,
               calls: int = 1) -> Row:
  """Times functions that take the number of the turn.

  Args:
    what: name of the row.
    amount: of `unit` times seconds, that a call does.
    unit: of the row.
    repeats: number of turns behind each median, from 1; turn 0 warms up.
    ours: JAX's side.
    theirs: PyTorch's side; left out where there is no PyTorch.
    calls: number of calls in a turn, all of them queued before the end of the
      last is awaited.

  Returns:
    The row.
  """
  device = torch_device()
  sides = [(ours, jax.block_until_ready)]
  if theirs is not None and device is not None:
    sides.append((theirs, lambda _: _await_torch(device)))
  seconds = np.zeros((repeats + 1, len(sides)))
  for turn, i in np.ndindex(seconds.shape):
    call, wait = sides[i]
    start = time.perf_counter()
    for _ in range(calls):
      result = call(turn)
    wait(result)
    seconds[turn, i] = (time.perf_counter() - start) / calls
  rates = np.median(amount / seconds[1:], axis=0).tolist()
  ratio = float(np.median(seconds[1:, -1] / seconds[1:, 0]))
  compared = (rates[1], ratio) if len(sides) == 2 else (None, None)
  return Row(what, rates[0], *compared, unit)


def format_row(row: Sequence[str | float | None]) -> str:
  """A `Row`, or the names of its columns, as a line of the table."""
  cells = ('-' if value is None else value if isinstance(value, str)
           else f'{value:,.0f}' if value >= 100 else f'{value:.3g}'
           for value in row)
  return '{:<48}{:>12}{:>12}{:>8}  {}'.format(*cells)


def _await_torch(device: Any) -> None:
  if device.type == 'cuda':
    torch.cuda.synchronize(device)
