"""Affine transformations of images about their centres."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from numpy.typing import ArrayLike


def affine_matrix(angle: ArrayLike, scale: ArrayLike, shear: ArrayLike
                  ) -> jax.Array:
  """The map from positions in a transformed image to those in the original.

  The original is scaled, then sheared, then rotated; this is the inverse.

  Args:
    angle: counterclockwise rotation in radians.
    scale: `[2]`, factors of height and width, above 0.
    shear: shift to the right, in pixels, for each pixel downwards.

  Returns:
    `[2, 2]`, for positions (down, right) relative to the centre.
  """
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  # Down is positive, so that a counterclockwise turn takes right to up. Written
  # out: accelerators may round a matrix product to half precision.
  matrix = jnp.array([
      [cos, sin],
      [-sin - shear * cos, cos - shear * sin]])
  return matrix / jnp.asarray(scale)[:, None]


def warp(x: jax.Array, matrices: jax.Array,
         offsets: jax.Array | None = None) -> jax.Array:
  """Transforms images, with bilinear interpolation.

  Args:
    x: `[N, H, W, C]` of any real dtype, or bool.
    matrices: `[N, 2, 2]`, as `affine_matrix` gives them.
    offsets: optional `[N, 2]` ints, pixels (up, left) to move each image by
      before it is transformed.

  Returns:
    Images of the shape and dtype of x, rounded if it is not one of fractions.
    Beyond the original, the pixels of its edge are repeated.
  """
  num_images, height, width, channels = x.shape
  pixels = jnp.asarray(x).reshape(-1, channels)
  # Lines and columns of the new images, relative to the centre.
  grid = [jnp.arange(size) - (size - 1) / 2 for size in (height, width)]
  grid = grid[0][:, None], grid[1][None]

  def neighbours(axis: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Two neighbours on an axis, and the weight of the second, `[N, H, W]`."""
    last = x.shape[1 + axis] - 1
    # Not a matrix product, as in `affine_matrix`.
    place = last / 2 + sum(
        matrices[:, axis, i, None, None] * grid[i] for i in range(2))
    place = jnp.clip(place, 0.0, last)
    first = jnp.floor(place)
    weight = (place - first)[..., None]
    first = first.astype(jnp.int32)
    second = jnp.minimum(first + 1, last)
    if offsets is not None:
      # Here, not before: XLA would move the pixels anew for each neighbour.
      first, second = (jnp.clip(
          one + offsets[:, axis, None, None], 0, last)
                       for one in (first, second))
    # Unsigned: other indices are first checked for negative ones.
    return first.astype(jnp.uint32), second.astype(jnp.uint32), weight

  above, below, down = neighbours(0)
  left, right, aside = neighbours(1)
  start = jnp.arange(num_images, dtype=jnp.uint32)[:, None, None] * (
      height * width)

  def between_columns(line: jax.Array) -> jax.Array:
    """The pixels of a line, between two columns, `[N, H, W, C]`."""
    first, second = (pixels.at[start + line * width + column].get(
        mode='promise_in_bounds').astype(jnp.float32)
                     for column in (left, right))
    return (1 - aside) * first + aside * second

  found = (1 - down) * between_columns(above) + down * between_columns(
      below)
  if not jnp.issubdtype(x.dtype, jnp.inexact):
    found = jnp.rint(found)
  return found.astype(x.dtype)
