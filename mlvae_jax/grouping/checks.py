"""Checks of arguments: which rows belong to which groups, which are real."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def check_group_ids(
    group_ids: Any, num_rows: int, num_groups: int, mask: Any = None
) -> tuple[jax.Array, jax.Array]:
  """Checks which rows belong to which groups.

  Args:
    group_ids: `[N]` integers, an array or a list.
    num_rows: N.
    num_groups: static int, G.
    mask: optional `[N]` bool, an array or a list.

  Returns:
    ids `[N]` int32 in `[0, num_groups)`, and a mask `[N]` bool: False also
    where a traced id is out of range.

  Raises:
    ValueError: as `evidence` does.
  """
  ids = _as_array(group_ids, np.int32)
  if ids.shape != (num_rows,) or not np.issubdtype(ids.dtype, np.integer):
    raise ValueError(
        f'expected group_ids of [{num_rows}] integers, one per row, got '
        f'{ids.dtype} of {list(ids.shape)}')
  if num_groups < 1:
    raise ValueError(f'expected num_groups >= 1, got {num_groups}')
  if ids.dtype.itemsize < 4:  # It may not hold num_groups.
    ids = ids.astype(np.int32)
  is_inside = (ids >= 0) & (ids < num_groups)
  if mask is None:
    mask = (jnp if is_traced(ids) else np).ones(ids.shape, bool)
  mask = check_mask(mask, num_rows)
  if not is_traced(ids) and not is_traced(mask):
    real = ids[mask]
    if len(real) and not 0 <= real.min() <= real.max() < num_groups:
      raise ValueError(
          f'expected group ids in [0, {num_groups}), got ids from '
          f'{real.min()} to {real.max()}; raise num_groups or mask the rows')
  # Before JAX cuts int64 ids to 32 bits, where one of 2**32 would be 0.
  ids = (ids * is_inside).astype(np.int32)
  return jnp.asarray(ids), jnp.asarray(mask & is_inside)


def check_mask(mask: Any, num_rows: int) -> np.ndarray | jax.Array:
  """A mask as an array; a ValueError if it is not `[N]` bool."""
  mask = _as_array(mask, bool)
  if mask.shape != (num_rows,) or mask.dtype != bool:
    raise ValueError(
        f'expected a mask of [{num_rows}] bool, got {mask.dtype} of '
        f'{list(mask.shape)}')
  return mask


def is_traced(value: Any) -> bool:
  """Whether a value is unknown, under a transformation."""
  return isinstance(value, jax.core.Tracer)


def _as_array(values: Any, empty_dtype: Any) -> np.ndarray | jax.Array:
  """An array, or a list as one: of NumPy, where the values are known.

  JAX would cut int64 to 32 bits. An empty list has no type of its own.
  """
  if any(map(is_traced, jax.tree.leaves(values))):
    return jnp.asarray(values)
  array = np.asarray(values)
  if isinstance(values, (list, tuple)) and not array.size:
    return array.astype(empty_dtype)
  return array
