"""What is the same on all devices of a mapped axis, and what is not.

`jax.shard_map` tells the two apart, and the gradient in what is the same on
all devices is already summed over them; under `jax.pmap` it is not. With
respect to a device's own copy the gradient is summed under neither.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax


def own_copies(tree: Any, axis_names: Iterable[str | None]) -> Any:
  """The same values, as what each device has for itself.

  Args:
    tree: of arrays.
    axis_names: mapped axes along which the copies are to be the devices' own;
      None counts for nothing.

  Returns:
    The tree.
  """
  def copy(value):
    new = tuple(set(axis_names) - {None} - varying_axes(value))
    return jax.lax.pcast(value, new, to='varying') if new else value

  return jax.tree.map(copy, tree)


def varying_axes(value: jax.Array) -> frozenset[str]:
  """The mapped axes along which `jax.shard_map` knows a value to differ."""
  return jax.typeof(value).mat.varying
