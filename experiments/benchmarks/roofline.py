"""What the machine can do at best, and how near to it training comes."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.timing import (
    SEED,
    Row,
    on_cpu,
    time_sides,
    torch,
    torch_device,
)
from experiments.benchmarks.training import Workload


def multiply(repeats: int, dtype: str = 'float32', size: int | None = None
             ) -> Row:
  """The machine's speed at matrix products."""
  size = size or (2048 if on_cpu() else 8192)
  values = np.random.default_rng(SEED).random((size, size), np.float32)
  a, product = jnp.asarray(values, dtype), jax.jit(jnp.matmul)
  b = None
  if torch_device() is not None:
    b = torch.from_numpy(values).to(torch_device(), getattr(torch, dtype))
  name = f'matrix product of {size}'
  return time_sides(
      name if dtype == 'float32' else f'{name}, {dtype}', 2e-9 * size ** 3,
      'GFLOP/s', repeats, lambda _: product(a, a), lambda _: b @ b,
      calls=1 if on_cpu() else 10)


def copy(repeats: int, num_bytes: int | None = None) -> Row:
  """The machine's speed at moving memory: bytes read and bytes written."""
  if on_cpu():
    num_bytes = num_bytes or 1 << 28
    source, target = np.ones(num_bytes, np.uint8), np.ones(num_bytes, np.uint8)
    return time_sides(
        'memory copy by NumPy', 2e-9 * num_bytes, 'GB/s', repeats,
        lambda _: np.copyto(target, source))
  num_bytes = num_bytes or 1 << 32
  ours, move = jnp.ones(num_bytes // 4, jnp.float32), jax.jit(jnp.negative)
  theirs = None
  if torch_device() is not None:
    theirs = torch.ones(num_bytes // 4, device=torch_device())
  return time_sides(
      'memory copy on the device', 2e-9 * num_bytes, 'GB/s', repeats,
      lambda _: move(ours), lambda _: torch.neg(theirs))


def shares(workload: Workload, row: Row, product: Row, memory: Row
           ) -> Iterator[Row]:
  """How much of the machine training uses.

  Args:
    workload: what is trained.
    row: its images/s.
    product: matrix products of its type.
    memory: the copy.

  Yields:
    Arithmetic and traffic of `Workload.cost` per second, and their shares.
  """
  cost = workload.cost()
  giga_steps = 1e-9 * row.jax / workload.num_images
  for what, amount, unit, best in (
      ('arithmetic', cost.flops, 'GFLOP/s', product),
      ('memory', cost.num_bytes, 'GB/s', memory)):
    rate = giga_steps * amount
    yield Row(f'  {what} of {row.what}', rate, None, None, unit)
    yield Row(f'    of the {best.what}', 100 * rate / best.jax, None, None, '%')
