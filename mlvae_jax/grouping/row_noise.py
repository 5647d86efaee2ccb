"""Random numbers of rows: functions of a key and a row's number alone.

So a row gets the same noise on any number of devices, and with any amount of
padding. The numbers of all rows come from a single call of the generator behind
`jax.random` (Threefry: Salmon et al. 2011), with the row's number as part of
its counter. A key per row, as `jax.random.fold_in` would make it, costs a call
more, and compiling these calls would take longer than most of a model.
"""

from __future__ import annotations

import jax
from jax.extend.random import threefry_2x32
import jax.numpy as jnp
import numpy as np


def row_noise(key: jax.Array, rows: jax.Array, dim: int) -> jax.Array:
  """Draws standard Normal noise.

  Args:
    key: random key; consumed.
    rows: `[N]` ints, numbers of the rows.
    dim: static int, D.

  Returns:
    `[N, D]` float32, each row a function of (key, row).
  """
  # The inverse of the distribution function; the smallest number is above -1,
  # where that is infinite.
  uniform = 2.0 * row_uniforms(key, rows, dim) - 1.0
  uniform = jnp.maximum(uniform, np.nextafter(np.float32(-1), np.float32(0)))
  return np.float32(np.sqrt(2)) * jax.lax.erf_inv(uniform)


def row_uniforms(key: jax.Array, rows: jax.Array, num: int) -> jax.Array:
  """Draws numbers that are uniform in [0, 1); arguments as in `row_noise`."""
  bits = _row_bits(key, jnp.asarray(rows), num)
  # 23 random bits as the fraction of a number in [1, 2).
  one = jnp.float32(1).view(jnp.uint32)
  return jax.lax.bitcast_convert_type(bits >> 9 | one, jnp.float32) - 1.0


def _row_bits(key: jax.Array, rows: jax.Array, num: int) -> jax.Array:
  """Random bits `[N, num]`, uint32."""
  words = jax.random.key_data(key)
  if words.shape != (2,):  # The key of another generator.
    words = jax.random.bits(key, (2,))
  # Each counter (row, i) gives two numbers.
  pairs = -(-num // 2)
  shape = rows.shape[0], pairs
  counters = jnp.stack([
      jnp.broadcast_to(rows.astype(jnp.uint32)[:, None], shape),
      jnp.broadcast_to(jnp.arange(pairs, dtype=jnp.uint32), shape)])
  bits = threefry_2x32(words, counters.reshape(-1)).reshape(2, *shape)
  return jnp.concatenate([bits[0], bits[1]], axis=-1)[:, :num]
