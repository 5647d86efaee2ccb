"""Checks of group ids, masks and numbers."""

from __future__ import annotations

import numbers
import operator
from typing import Any

import jax
from jax import core, export
import jax.numpy as jnp
import numpy as np


def check_group_ids(
    group_ids: Any, num_rows: int, num_groups: int, mask: Any = None
) -> tuple[jax.Array, jax.Array]:
  """Checks group ids, and the mask of the rows they are for.

  Args:
    group_ids: `[N]` integers, an array or a list.
    num_rows: number of rows, N.
    num_groups: static number of groups, G.
    mask: optional `[N]` bool, an array or a list; False drops a row, and its
      id may then be anything.

  Returns:
    Ids `[N]` int32 in `[0, num_groups)`, and a mask `[N]` bool, which is also
    False where a traced id is out of range.

  Raises:
    ValueError: on wrong shapes or dtypes, num_groups < 1, or the id of a real
      row that is known to be out of range.
  """
  ids = _as_array(group_ids, np.int32)
  if ids.shape != (num_rows,) or not np.issubdtype(ids.dtype, np.integer):
    raise ValueError(
        f'expected group_ids of [{num_rows}] integers, one per row, got '
        f'{ids.dtype} of {list(ids.shape)}')
  num_groups = check_count(num_groups, 'num_groups')
  if ids.dtype.itemsize < 4:  # int8 and int16 may be too small for G.
    ids = ids.astype(np.int32)
  is_inside = (ids >= 0) & (ids < num_groups)
  if mask is None:
    mask = (jnp if is_traced(ids) else np).ones(ids.shape, bool)
  mask = check_mask(mask, num_rows)
  # Rows that are dropped may have any id: padding often comes with -1.
  if not is_traced(ids) and not is_traced(mask):
    real = ids[mask]
    if len(real) and not 0 <= real.min() <= real.max() < num_groups:
      raise ValueError(
          f'expected group ids in [0, {num_groups}), got ids from '
          f'{real.min()} to {real.max()}; raise num_groups or mask the rows')
  # Zeroed before JAX cuts int64 ids to 32 bits, where 2**32 would become a
  # valid 0. Under a trace no error can be raised: such rows are dropped.
  ids = (ids * is_inside).astype(np.int32)
  return jnp.asarray(ids), jnp.asarray(mask & is_inside)


def check_count(value: Any, name: str, least: int = 1) -> int:
  """Checks a number that determines a shape.

  Args:
    value: Python's, NumPy's or JAX's integer; static. A symbolic dimension of
      `jax.export` is returned unchecked.
    name: what it is, for the message.
    least: smallest number allowed.

  Returns:
    The number as a Python int, or the symbolic dimension.

  Raises:
    ValueError: where it is not an integer, is traced, or does not fit.
  """
  if export.is_symbolic_dim(value):
    return value
  try:
    count = operator.index(value)
  except TypeError:  # Also of a traced value.
    raise ValueError(
        f'expected {name} as a static integer, got {value!r}') from None
  if not least <= count <= np.iinfo(np.int32).max:
    raise ValueError(f'expected {name} >= {least}, of 32 bits, got {count}'
                     if count >= least else
                     f'expected {name} >= {least}, got {count}')
  return count


def check_number(value: Any, name: str) -> float:
  """Returns a static number as a Python float; a ValueError if it is none."""
  if not isinstance(value, numbers.Real):
    raise ValueError(f'expected {name} as a number, got {value!r}')
  return float(value)


def check_mask(mask: Any, num_rows: int) -> np.ndarray | jax.Array:
  """Returns a mask as an array; a ValueError if it is not `[N]` bool."""
  mask = _as_array(mask, bool)
  if mask.shape != (num_rows,) or mask.dtype != bool:
    raise ValueError(
        f'expected a mask of [{num_rows}] bool, got {mask.dtype} of '
        f'{list(mask.shape)}')
  return mask


def is_traced(value: Any) -> bool:
  """Whether a value is unknown, as inside `jit`, `vmap` or `grad`."""
  return isinstance(value, core.Tracer)


def _as_array(values: Any, empty_dtype: Any) -> np.ndarray | jax.Array:
  """An array or a list as an array: NumPy's, where the values are known."""
  if any(map(is_traced, jax.tree.leaves(values))):
    return jnp.asarray(values)
  # NumPy keeps int64 as it is, where JAX would cut it to 32 bits.
  array = np.asarray(values)
  if isinstance(values, (list, tuple)) and not array.size:
    # NumPy takes an empty list for floats.
    return array.astype(empty_dtype)
  return array
