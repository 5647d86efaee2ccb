"""Speed of evidence about groups, next to PyTorch's index_add."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import dataclasses

import jax
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
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.grouping.product import product_of_normals
from mlvae_jax.inference.encode import encode_group

if torch is not None:
  from experiments.benchmarks import torch_twin

_DIM = 16


def accumulate(repeats: int, num_rows: int = 10**6, num_groups: int = 10**5
               ) -> Iterator[Row]:
  """The products of the Normals of many groups, and their gradient.

  Args:
    repeats: see `timing.time_sides`.
    num_rows: rows, all groups together.
    num_groups: groups.

  Yields:
    Rows for group ids in any order, and sorted.
  """
  rng = np.random.default_rng(SEED)
  q = Normal(*rng.normal(size=(2, num_rows, _DIM)).astype(np.float32))
  shuffled = rng.permutation(num_rows) % num_groups
  name = f'product {num_rows:,}x{_DIM}, {num_groups:,} groups'
  for order, ids in (('', shuffled), (', sorted', np.sort(shuffled))):
    for what, ours, theirs in (
        ('', _product, _torch_product),
        (', gradient', _gradient, _torch_gradient)):
      yield time_sides(
          f'{name}{order}{what}', num_rows, 'rows/s', repeats,
          ours(q, ids, num_groups), _lazily(theirs, q, ids, num_groups),
          calls=5 if on_cpu() else 20)


def accumulate_sets(repeats: int, num_sets: int = 8, num_rows: int = 4096,
                    num_groups: int = 512, dim: int = 64) -> Row:
  """Products of Normals of several sets of rows, at once under `vmap`.

  PyTorch numbers the groups of all sets, and adds them up at once too.

  Args:
    repeats: see `timing.time_sides`.
    num_sets: number of sets.
    num_rows: rows of each set.
    num_groups: groups of each set.
    dim: dimensions.

  Returns:
    The row.
  """
  rng = np.random.default_rng(SEED)
  q = Normal(*rng.normal(
      size=(2, num_sets, num_rows, dim)).astype(np.float32))
  ids = rng.permuted(np.tile(
      np.arange(num_rows) % num_groups, (num_sets, 1)), axis=1)
  product = jax.jit(jax.vmap(product_of_normals, in_axes=(0, 0, None)),
                    static_argnums=2)
  arguments = jax.device_put((q, ids.astype(np.int32)))
  joined = Normal(*(value.reshape(-1, dim) for value in q))
  apart = (ids + num_groups * np.arange(num_sets)[:, None]).ravel()
  return time_sides(
      f'product {num_rows:,}x{dim}, {num_groups} groups, vmap of {num_sets}',
      num_sets * num_rows, 'rows/s', repeats,
      lambda _: product(*arguments, num_groups),
      _lazily(_torch_product, joined, apart, num_sets * num_groups), calls=20)


def encode(workload: Workload, repeats: int, dtype: str = 'float32',
           num_groups: int = 256) -> Row:
  """`encode_group` of groups of images, which are on the device."""
  model = dataclasses.replace(workload.model, dtype=dtype)
  params = jax.jit(model.init)(jax.random.key(SEED))
  ids = np.repeat(np.arange(num_groups, dtype=np.int32), workload.group_size)
  images = np.random.default_rng(SEED).integers(
      0, 256, (len(ids), *model.observation_shape), np.uint8)
  ours = jax.device_put((images, ids))

  def make_theirs():
    device = torch_device()
    twin = torch_twin.Twin(model, params).to(device)
    arrays = torch.from_numpy(images), torch.from_numpy(ids).long()
    x, their_ids = (array.to(device) for array in arrays)

    @torch.no_grad()
    def encode_all(_):
      return torch_twin.product_of_normals(
          twin.encode(torch_twin.prepare(x))['content'], their_ids,
          num_groups)

    return encode_all

  name = f'encode {len(ids):,} images, {workload.name}'
  return time_sides(
      name if dtype == 'float32' else f'{name}, {dtype}', len(ids), 'images/s',
      repeats, lambda _: encode_group(model, params, *ours, num_groups),
      _lazily(make_theirs), calls=5 if on_cpu() else 20)


def _lazily(make: Callable, *args) -> Callable | None:
  """What PyTorch's side is, if there is PyTorch."""
  return make(*args) if torch_device() is not None else None


def _product(q: Normal, ids: np.ndarray, num_groups: int) -> Callable:
  arguments = jax.device_put((q, ids.astype(np.int32)))
  product = jax.jit(product_of_normals, static_argnums=2)
  return lambda _: product(*arguments, num_groups)


def _gradient(q: Normal, ids: np.ndarray, num_groups: int) -> Callable:
  def total(q, ids):
    product = product_of_normals(q, ids, num_groups)
    return product.mean.sum() + product.logvar.sum()

  arguments = jax.device_put((q, ids.astype(np.int32)))
  gradient = jax.jit(jax.value_and_grad(total))
  return lambda _: gradient(*arguments)


def _torch_product(q: Normal, ids: np.ndarray, num_groups: int) -> Callable:
  mean, logvar, ids = _on_torch(*q, ids)
  return lambda _: torch_twin.product_of_normals(
      (mean, logvar), ids, num_groups)


def _torch_gradient(q: Normal, ids: np.ndarray, num_groups: int) -> Callable:
  mean, logvar, ids = _on_torch(*q, ids)
  rows = mean.requires_grad_(), logvar.requires_grad_()

  def gradient(_):
    product = torch_twin.product_of_normals(rows, ids, num_groups)
    return torch.autograd.grad(sum(part.sum() for part in product), rows)

  return gradient


def _on_torch(*arrays: np.ndarray) -> list:
  return [torch.from_numpy(array).to(torch_device()) for array in arrays]
