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


def warp(x: jax.Array, matrices: jax.Array) -> jax.Array:
  """Transforms images, with bilinear interpolation.

  Args:
    x: `[N, H, W, C]` of any real dtype, or bool.
    matrices: `[N, 2, 2]`, as `affine_matrix` gives them.

  Returns:
    Images of the shape and dtype of x, rounded if it is not one of fractions.
    Beyond the original, the pixels of its edge are repeated.
  """
  return jax.vmap(_warp)(x, matrices)


def _warp(image: jax.Array, matrix: jax.Array) -> jax.Array:
  height, width, channels = image.shape
  last = jnp.array([height - 1.0, width - 1.0])[:, None]
  grid = jnp.indices((height, width)).reshape(2, -1)
  place = grid - last / 2
  # Not a matrix product, as above.
  place = jnp.sum(matrix[:, :, None] * place[None], axis=1) + last / 2
  place = jnp.clip(place, 0.0, last)
  first = jnp.floor(place).astype(jnp.int32)
  second = jnp.minimum(first + 1, last.astype(jnp.int32))
  down, right = (place - first)[:, :, None]
  pixels = image.reshape(-1, channels).astype(jnp.float32)

  def row(rows):
    """The rows of pixels at heights `rows`, between two columns."""
    return ((1 - right) * pixels[rows * width + first[1]]
            + right * pixels[rows * width + second[1]])

  found = (1 - down) * row(first[0]) + down * row(second[0])
  if not jnp.issubdtype(image.dtype, jnp.inexact):
    found = jnp.rint(found)
  return found.reshape(image.shape).astype(image.dtype)
