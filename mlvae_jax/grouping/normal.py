"""Diagonal Normal distributions as a pytree of arrays."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
from jax import export
import jax.numpy as jnp
from numpy.typing import ArrayLike

_LOG_2PI = math.log(2.0 * math.pi)


class Normal(NamedTuple):
  """Independent Normals N(mean, exp(logvar)), elementwise.

  Moments in bfloat16 or float16 are converted to float32 before anything is
  computed from them.

  Attributes:
    mean: `[..., D]` float.
    logvar: `[..., D]` float, natural logarithm of the variance.
  """

  mean: jax.Array
  logvar: jax.Array

  @property
  def std(self) -> jax.Array:
    """Standard deviation, `[..., D]`."""
    return jnp.exp(0.5 * at_least_float32(self.logvar))

  @property
  def precision(self) -> jax.Array:
    """Inverse variance, `[..., D]`."""
    return jnp.exp(-at_least_float32(self.logvar))

  def sample(self, key: jax.Array) -> jax.Array:
    """Draws one sample `[..., D]`; `key` is consumed."""
    mean = at_least_float32(self.mean)
    return self.reparameterize(
        jax.random.normal(key, mean.shape, mean.dtype))

  def reparameterize(self, noise: jax.Array) -> jax.Array:
    """Maps standard Normal `noise` to a sample: mean + std * noise."""
    return at_least_float32(self.mean) + self.std * noise

  def log_prob(self, x: jax.Array) -> jax.Array:
    """Log density of each element of `x`, `[..., D]` (not summed over D)."""
    mean, logvar = map(at_least_float32, self)
    # Scaled before it is squared: (x - mean)^2 / variance could overflow.
    residual = (x - mean) * jnp.exp(-0.5 * logvar)
    return -0.5 * (jnp.square(residual) + logvar + _LOG_2PI)

  def take(self, rows: jax.Array) -> Normal:
    """Selects rows along the first axis, such as the group of each row."""
    return Normal(self.mean[rows], self.logvar[rows])

  def masked(self, mask: jax.Array) -> Normal:
    """Replaces rows `[N, D]` whose mask `[N]` is False by the prior N(0, I).

    Whatever such a row holds, even NaN, reaches neither value nor gradient,
    and its KL is 0.
    """
    # `where`, since a product would not do: 0 * NaN is NaN.
    return Normal(*(jnp.where(mask[:, None], value, 0.0) for value in self))


# Lets a function that takes or returns a Normal go through `jax.export`.
export.register_namedtuple_serialization(
    Normal, serialized_name='mlvae_jax.Normal')


def at_least_float32(values: ArrayLike) -> jax.Array:
  """The values as float32, or as float64 where they are float64."""
  values = jnp.asarray(values)
  return values.astype(jnp.promote_types(values.dtype, jnp.float32))


def standard_normal(shape: tuple[int, ...], dtype=jnp.float32) -> Normal:
  """The prior N(0, I): a Normal of the given shape `[..., D]`."""
  return Normal(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))


def kl_divergence(q: Normal, p: Normal | None = None) -> jax.Array:
  """KL(q || p), summed over the last axis; p is N(0, I) by default.

  KL(q || p) = 1/2 sum_d [ s_d - log s_d - 1 + (m_q - m_p)^2 / v_p ], where
  s = v_q / v_p. The first three terms are written as expm1(t) - t with
  t = log s, which keeps its digits when the variances are nearly equal.

  Args:
    q: Normal of `[..., D]`.
    p: optional Normal of a shape that broadcasts to q's.

  Returns:
    `[...]`, in nats.
  """
  q = Normal(*map(at_least_float32, q))
  if p is None:
    log_ratio, distance = q.logvar, jnp.square(q.mean)
  else:
    p = Normal(*map(at_least_float32, p))
    log_ratio = q.logvar - p.logvar
    distance = jnp.square(q.mean - p.mean) * p.precision
  return 0.5 * jnp.sum(jnp.expm1(log_ratio) - log_ratio + distance, axis=-1)
