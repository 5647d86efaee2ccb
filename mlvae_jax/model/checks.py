"""Checks of observations and codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from mlvae_jax.grouping.checks import check_mask, is_traced
from mlvae_jax.grouping.normal import at_least_float32
from mlvae_jax.model.factors import Factor

_EXAMPLES = {'likelihood': 'mlvae_jax.Gaussian()',
             'network': 'mlvae_jax.MLP((64,))'}


def as_array(x: Any) -> np.ndarray | jax.Array:
  """An array of observations; lists and sparse matrices become one.

  A list of images, `[N, H, W, C]` of whole numbers up to 255, is uint8 pixels.
  """
  if isinstance(x, np.ma.MaskedArray):
    raise ValueError('expected an array without a mask, got a masked array; '
                     'leave these rows out, or fill in what is masked')
  if hasattr(x, 'toarray'):  # A sparse matrix of SciPy.
    x = x.toarray()
  if not isinstance(x, (list, tuple)):
    return x if isinstance(x, (np.ndarray, jax.Array)) else np.asarray(x)
  if any(map(is_traced, jax.tree.leaves(x))):
    return jnp.asarray(x)
  x = np.asarray(x)
  if x.ndim == 4 and x.dtype.kind in 'iu' and x.size and (
      0 <= x.min() <= x.max() <= 255):
    return x.astype(np.uint8)
  return x


def check_parts(observation_shape: Any, **parts: tuple[Any, type]) -> None:
  """Checks the kinds of what a model is made of.

  Args:
    observation_shape: a sequence of whole numbers.
    **parts: (value, class that it must be an instance of) by name.

  Raises:
    ValueError: on another kind.
  """
  try:
    is_shape = all(int(size) == size for size in observation_shape)
  except (TypeError, ValueError):
    is_shape = False
  if not is_shape:
    raise ValueError(
        'expected observation_shape to be a tuple of whole numbers, such as '
        f'(height, width, channels) or (D,), got {observation_shape!r}')
  for name, (value, kind) in parts.items():
    if not isinstance(value, kind):
      raise ValueError(
          f'expected {name} to be a {kind.__name__} of the library, such as '
          f'{_EXAMPLES[name]}, got {value!r}')


def is_real(dtype: Any) -> bool:
  """Whether a type is one of real numbers or booleans, bfloat16 included."""
  return any(jnp.issubdtype(dtype, kind)
             for kind in (jnp.bool_, jnp.integer, jnp.floating))


def check_rows(x: ArrayLike, observation_shape: tuple[int, ...],
               mask: ArrayLike | None = None) -> jax.Array:
  """Checks the shape of observations.

  Args:
    x: `[N, ...]`, an array or a list.
    observation_shape: `(...)`.
    mask: optional `[N]` bool; False drops a row, whatever it holds.

  Returns:
    The observations as an array; rows that are dropped are 0.

  Raises:
    ValueError: on a wrong shape, or a dtype that is not of numbers.
  """
  x = as_array(x)
  if isinstance(x, np.ndarray) and not is_real(x.dtype):
    raise ValueError(f'expected observations that are numbers, got {x.dtype}')
  x = jnp.asarray(_fitting(x))
  if x.shape[1:] != observation_shape or not x.ndim:
    raise ValueError(
        f'expected observations of [N, {", ".join(map(str, observation_shape))}'
        f'], got {list(x.shape)}')
  if mask is None:
    return x
  # Before values are checked: a row that is dropped may hold NaN.
  mask = jnp.asarray(check_mask(mask, x.shape[0]))
  return jnp.where(mask.reshape(-1, *(1 for _ in x.shape[1:])), x,
                   jnp.zeros((), x.dtype))


def _fitting(x: np.ndarray | jax.Array) -> np.ndarray | jax.Array:
  """Observations without integers that would wrap around in int32."""
  if not isinstance(x, np.ndarray) or x.dtype.kind not in 'iu' or (
      x.dtype.itemsize < 8 or not x.size):
    return x
  limits = np.iinfo(np.int32)
  fits = limits.min <= x.min() and x.max() <= limits.max
  return x if fits else x.astype(np.float32)


def _as_code(name: str, code: Any) -> jax.Array:
  try:
    code = as_array(code)
  except ValueError as error:  # A list of rows of different lengths.
    raise ValueError(
        f'expected codes of factor {name!r} as an array of numbers: {error}'
    ) from error
  if not is_real(code.dtype):
    raise ValueError(
        f'expected codes of factor {name!r} as an array of numbers, got '
        f'{code.dtype}')
  return at_least_float32(code)


def check_codes(
    factors: tuple[Factor, ...],
    codes: Mapping[str, ArrayLike],
    *,
    leading: tuple[str, ...] | None = None,
    some: bool = False,
) -> dict[str, jax.Array]:
  """Checks names and shapes of codes.

  Args:
    factors: the model's factors.
    codes: `[..., D_f]` per factor.
    leading: names of the axes before the last; None where any are allowed.
    some: whether factors may be left out.

  Returns:
    The codes as arrays of float32 (or float64).

  Raises:
    ValueError: on unknown or missing factors, codes of the wrong shape, or
      leading axes `...` that differ between factors.
  """
  sizes = {f.name: f.dim for f in factors}
  if not isinstance(codes, Mapping):
    raise ValueError(
        f'expected a dict of codes by factor {list(sizes)}, got '
        f'{type(codes).__name__}')
  if not set(codes) <= set(sizes) or not (some or len(codes) == len(sizes)):
    raise ValueError(
        f'expected codes of {"some of " if some else ""}the factors '
        f'{list(sizes)}, got {list(codes)}')
  codes = {name: _as_code(name, code) for name, code in codes.items()}
  for name, code in codes.items():
    if code.shape[-1:] != (sizes[name],) or (
        leading is not None and code.ndim != len(leading) + 1):
      axes = ', '.join((*(('...',) if leading is None else leading),
                        str(sizes[name])))
      raise ValueError(
          f'expected codes of [{axes}] for factor {name!r}, got '
          f'{list(code.shape)}')
  if len({code.shape[:-1] for code in codes.values()}) > 1:
    raise ValueError(
        'expected the same number of codes for every factor, got '
        + ', '.join(f'{name} {list(code.shape)}'
                    for name, code in codes.items()))
  return codes
