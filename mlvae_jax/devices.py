"""Values that are the same on all devices of a mapped axis, or vary over it.

Under `jax.shard_map` JAX knows which of the two a value is, and sums the
gradient with respect to an unvarying value over the devices by itself; under
`jax.pmap` it does not. The gradient with respect to a device's own (varying)
copy is summed under neither, so that one explicit `psum` is right under both.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax

Device = Any  # A jax.Device: jaxlib comes without types, and has no class.


def own_copies(tree: Any, axis_names: Iterable[str | None]) -> Any:
  """Marks values as each device's own copies.

  Args:
    tree: pytree of arrays.
    axis_names: mapped axes over which the copies shall vary; None is ignored.

  Returns:
    The tree, with the same values.
  """
  def copy(value):
    # `pcast` rejects axes over which a value varies already. Under `pmap` no
    # value counts as varying, and `pcast` changes nothing.
    new = tuple(set(axis_names) - {None} - varying_axes(value))
    return jax.lax.pcast(value, new, to='varying') if new else value

  return jax.tree.map(copy, tree)


def varying_axes(value: jax.Array) -> frozenset[str]:
  """Names of the mapped axes over which `jax.shard_map` has a value vary."""
  return jax.typeof(value).mat.varying
