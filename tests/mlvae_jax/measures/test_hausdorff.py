"""The modified Hausdorff distance."""

import numpy as np
import pytest

from mlvae_jax.measures.hausdorff import ink_points, modified_hausdorff


def test_distances_are_those_of_the_definition():
  rng = np.random.default_rng(0)
  a, b = ([rng.normal(size=(n, 2)) for n in sizes] for sizes in (
      (3, 1, 5), (4, 7)))
  found = modified_hausdorff(a, b)
  for i, one in enumerate(a):
    for j, other in enumerate(b):
      apart = np.linalg.norm(one[:, None] - other, axis=-1)
      assert found[i, j] == pytest.approx(
          max(apart.min(1).mean(), apart.min(0).mean()))
  np.testing.assert_allclose(np.diag(modified_hausdorff(a, a)), 0, atol=1e-7)


def test_ink_is_what_there_is_less_of_and_centred():
  image = np.full((6, 8), 255, np.uint8)
  image[1, 2] = image[1, 4] = 0
  np.testing.assert_array_equal(ink_points(image), [[0, -1], [0, 1]])
  np.testing.assert_array_equal(ink_points(255 - image), [[0, -1], [0, 1]])
  assert ink_points(np.zeros((4, 4), np.uint8)).tolist() == [[0, 0]]
