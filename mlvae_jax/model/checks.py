"""Checks of images and codes."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from mlvae_jax.grouping.checks import check_mask, is_traced
from mlvae_jax.grouping.normal import at_least_float32
from mlvae_jax.model.factors import Factor


def to_float(images: jax.Array, image_shape: tuple[int, int, int],
             mask: jax.Array | None = None) -> jax.Array:
  """Checks images, and converts them to float.

  Args:
    images: `[N, H, W, C]`, uint8 or float in [0, 1].
    image_shape: (H, W, C).
    mask: optional `[N]` bool; False drops a row, whatever it holds.

  Returns:
    `[N, H, W, C]` float32 (or float64) in [0, 1]; rows that are dropped are 0.

  Raises:
    ValueError: on a wrong shape, dtype or (where concrete) range.
  """
  images = jnp.asarray(images)
  if images.ndim != 4 or images.shape[1:] != image_shape:
    raise ValueError(
        f'expected images of [N, {", ".join(map(str, image_shape))}], '
        f'got {list(images.shape)}')
  if mask is not None:
    mask = check_mask(mask, images.shape[0])
    # Before the range is checked: a row that is dropped may hold NaN.
    images = jnp.where(mask[:, None, None, None], images, 0)
  if images.dtype == jnp.uint8:
    return images.astype(jnp.float32) * np.float32(1.0 / 255.0)
  if not jnp.issubdtype(images.dtype, jnp.floating):
    raise ValueError(
        f'expected uint8 images, or float in [0, 1], got {images.dtype}')
  if not is_traced(images) and images.size:
    _check_range(images)
  return at_least_float32(images)


def check_codes(
    factors: tuple[Factor, ...],
    codes: dict[str, jax.Array],
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
  if not set(codes) <= set(sizes) or not (some or len(codes) == len(sizes)):
    raise ValueError(
        f'expected codes of {"some of " if some else ""}the factors '
        f'{list(sizes)}, got {list(codes)}')
  codes = {name: at_least_float32(code) for name, code in codes.items()}
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


def _check_range(images: jax.Array) -> None:
  """Raises a ValueError where float images are not in [0, 1]."""
  # Inside a `jit` the images may be a constant, whose minimum would be traced.
  with jax.ensure_compile_time_eval():
    low, high = float(images.min()), float(images.max())
  if math.isnan(low):  # Comparisons with NaN are False and would pass below.
    raise ValueError(
        'expected float images in [0, 1], got NaN; mask these rows')
  if low < 0.0 or high > 1.0:
    raise ValueError(
        'expected float images in [0, 1], got values from '
        f'{low:g} to {high:g}; divide by 255, or pass uint8')
