"""Affine transformations: by hand, and beside a library's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from mlvae_jax.data.affine import affine_matrix, warp

_RNG = np.random.default_rng(0)
_IMAGES = _RNG.integers(0, 256, (4, 7, 5, 2), dtype=np.uint8)


def _matrices(angle=0.0, scale=(1.0, 1.0), shear=0.0, count=4):
  return jnp.stack([affine_matrix(angle, jnp.array(scale), shear)] * count)


@pytest.mark.slow
def test_nothing_is_changed_by_the_identity():
  found = warp(_IMAGES, _matrices())
  assert found.dtype == np.uint8
  np.testing.assert_array_equal(found, _IMAGES)


def test_right_angles_turn_counterclockwise():
  square = _IMAGES[:, :5]
  for turns in (1, 2, 3):
    found = warp(square, _matrices(angle=turns * np.pi / 2))
    np.testing.assert_array_equal(found, np.rot90(square, turns, axes=(1, 2)))


@pytest.mark.slow
def test_twice_the_size_and_a_shear():
  ramp = np.broadcast_to(np.arange(9.0)[:, None, None], (9, 9, 1))[None]
  found = warp(jnp.asarray(ramp), _matrices(scale=(2.0, 1.0), count=1))
  np.testing.assert_allclose(
      found[0, :, 3, 0], 4 + (np.arange(9) - 4) / 2, rtol=1e-6)
  # A pixel below the centre moves to the right; the edge is repeated.
  column = np.zeros((1, 5, 5, 1), np.uint8)
  column[:, :, 2] = 200
  found = np.asarray(warp(column, _matrices(shear=1.0, count=1)))[0, :, :, 0]
  np.testing.assert_array_equal(found, 200 * np.eye(5))


@pytest.mark.parametrize('dtype', [np.float32, np.uint8])
def test_warping_is_that_of_scipy(dtype):
  x = _IMAGES.astype(dtype)
  matrices = np.stack([affine_matrix(angle, jnp.array(scale), shear)
                       for angle, scale, shear in (
                           (0.3, (1.1, 0.8), 0.1), (-1.0, (0.5, 2.0), -0.4),
                           (0.0, (1.0, 1.3), 0.0), (2.0, (1.0, 1.0), 0.2))])
  found = np.asarray(jax.jit(warp)(x, matrices), np.float64)
  centre = (np.array(x.shape[1:3]) - 1) / 2
  for image, matrix, one in zip(x, matrices, found):
    for channel in range(2):
      expected = ndimage.affine_transform(
          image[..., channel].astype(float), matrix,
          centre - matrix @ centre, order=1, mode='nearest')
      np.testing.assert_allclose(
          one[..., channel], expected, rtol=1e-4,
          atol=1e-3 if dtype == np.float32 else 0.51)


def test_bool_images_are_rounded_too():
  ink = _IMAGES < 80
  matrices = _matrices(angle=0.4)
  np.testing.assert_array_equal(
      warp(ink, matrices), warp(ink.astype(np.uint8), matrices) > 0)


def test_no_matrix_product_loses_digits_on_accelerators():
  program = jax.make_jaxpr(lambda angle: warp(
      _IMAGES[:1], affine_matrix(angle, jnp.ones(2), angle)[None]))(0.1)
  assert 'dot_general' not in str(program)
