"""Random numbers of rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlvae_jax.grouping.row_noise import row_noise, row_uniforms

KEY = jax.random.key(5)
DRAWS = {'noise': row_noise, 'uniforms': row_uniforms}
each_draw = pytest.mark.parametrize('draw', DRAWS.values(), ids=DRAWS)


@each_draw
def test_a_row_has_its_numbers_whatever_the_other_rows(draw):
  whole = draw(KEY, jnp.arange(50), 3)
  assert whole.shape == (50, 3) and whole.dtype == jnp.float32
  some = np.array([7, 3, 49], np.int32)
  np.testing.assert_array_equal(draw(KEY, some, 3), whole[some])
  np.testing.assert_array_equal(
      jax.vmap(lambda row: draw(KEY, row[None], 3)[0])(some), whole[some])
  assert draw(KEY, some[:0], 3).shape == (0, 3)


@pytest.mark.slow
def test_noise_is_standard_normal_and_independent():
  keys = jax.random.split(KEY, 2)
  noise = np.concatenate([
      row_noise(keys[0], jnp.arange(40_000), 3),
      row_noise(keys[1], jnp.arange(40_000), 2)], axis=1, dtype=np.float64)
  error = 1 / np.sqrt(40_000)
  np.testing.assert_allclose(noise.mean(axis=0), 0, atol=4 * error)
  np.testing.assert_allclose(np.cov(noise.T), np.eye(5), atol=6 * error)
  np.testing.assert_allclose((noise ** 4).mean(axis=0), 3, atol=40 * error)
  assert 4 < np.abs(noise).max() < 6
  # Neighbouring rows, too.
  np.testing.assert_allclose(
      (noise[1:] * noise[:-1]).mean(axis=0), 0, atol=4 * error)


def test_uniforms_fill_their_interval():
  found = np.asarray(row_uniforms(KEY, jnp.arange(20_000), 5))
  assert found.min() >= 0 and found.max() < 1
  for column in found.T:
    counts = np.bincount((20 * column).astype(int), minlength=20)
    assert abs(np.sum((counts - 1000) ** 2 / 1000) - 19) < 35  # Chi squared.
  assert len(np.unique(found)) > 0.98 * found.size


def test_keys_of_any_generator_will_do():
  legacy = jax.random.key_data(KEY)
  np.testing.assert_array_equal(
      row_noise(legacy, jnp.arange(4), 3), row_noise(KEY, jnp.arange(4), 3))
  found = row_noise(jax.random.key(5, impl='rbg'), jnp.arange(4), 3)
  assert np.isfinite(found).all() and len(np.unique(found)) == 12
