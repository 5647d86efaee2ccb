"""Probabilities of counts, written so that float32 keeps their digits.

The textbook form of a Poisson, x log m - m - lgamma(x + 1), loses every digit
for large counts, because its terms are large and cancel. Loader (2000, "Fast
and accurate computation of binomial probabilities") writes it as a sum of terms
of one sign instead,

  log p(x | m) = -d(x) - D(x, m) - log(2 pi x) / 2,

with d the error of Stirling's formula and D the deviance, which is computed
from the difference x - m.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

_SHIFT = 8  # From here on Stirling's series has the digits of float64, almost.
_NEAR = 0.1  # |x - m| / (x + m) up to which the deviance is a series.


def poisson_log_pmf(x: jax.Array, log_mean: jax.Array) -> jax.Array:
  """Log-probability of counts under a Poisson, element by element, in nats.

  Args:
    x: counts >= 0, as floats.
    log_mean: log of the mean, of a shape that broadcasts to x's.

  Returns:
    Log-probabilities; finite, as are gradients, where the mean is.
  """
  mean = jnp.exp(log_mean)
  # The formula is for x >= 1; the branch not taken must have a gradient too.
  positive = jnp.maximum(x, 1.0)
  found = -_stirling_error(positive) - 0.5 * jnp.log(2.0 * math.pi * positive)
  found -= _deviance(positive, mean, positive - mean,
                     jnp.log(positive) - log_mean)
  return jnp.where(x > 0, found, -mean)


def negative_binomial_log_pmf(x: jax.Array, log_mean: jax.Array,
                              log_theta: jax.Array) -> jax.Array:
  """Log-probability of counts of mean m and variance m + m^2 / theta, in nats.

  With n = x + theta and p = theta / (theta + m), the probability is theta / n
  times that of theta successes in n trials, in Loader's form

    -d(x) - d(theta) + d(n) - D(x, n (1 - p)) - D(theta, n p)
      - log(2 pi x) / 2 - log(1 + x / theta) / 2.

  Args:
    x: counts >= 0, as floats.
    log_mean: log of the mean m, of a shape that broadcasts to x's.
    log_theta: log of the inverse dispersion; in the limit of large theta the
      distribution is a Poisson.

  Returns:
    Log-probabilities; finite, as are gradients, where m and theta are.
  """
  mean, theta = jnp.exp(log_mean), jnp.exp(log_theta)
  log_ratio = log_mean - log_theta
  positive = jnp.maximum(x, 1.0)
  total = positive + theta
  # Both differences of count and expectation, exact also where they are small:
  # x - n (1 - p) = (x - m) p, and theta - n p is its negative.
  difference = (positive - mean) * jax.nn.sigmoid(-log_ratio)
  # log(n / (theta + m)); the ratios of the deviances follow from it.
  log_share = jnp.log(total) - jnp.logaddexp(log_theta, log_mean)
  found = _stirling_error(total) - _stirling_error(positive)
  found -= _stirling_error(theta) + 0.5 * (
      jnp.log(2.0 * math.pi * positive) + jnp.log1p(positive / theta))
  found -= _deviance(
      positive, total * jax.nn.sigmoid(log_ratio), difference,
      jnp.log(positive) - log_mean - log_share)
  found -= _deviance(
      theta, total * jax.nn.sigmoid(-log_ratio), -difference, -log_share)
  return jnp.where(x > 0, found, -theta * jax.nn.softplus(log_ratio))


def _deviance(x: jax.Array, mean: jax.Array, difference: jax.Array,
              log_ratio: jax.Array) -> jax.Array:
  """D(x, m) = x log(x / m) + m - x >= 0, of x > 0.

  Args:
    x: values > 0.
    mean: m.
    difference: x - m, without loss where it is small.
    log_ratio: log(x / m).
  """
  # A series in v = (x - m) / (x + m): log(x / m) = 2 (v + v^3 / 3 + ...).
  v = difference / (x + mean)
  square = jnp.square(v)
  rest = sum(square ** j / (2 * j + 1) for j in range(1, 6))
  near = difference * v + 2.0 * x * v * rest
  return jnp.where(jnp.abs(v) < _NEAR, near, x * log_ratio - difference)


def _stirling_error(x: jax.Array) -> jax.Array:
  """lgamma(x + 1) - (x + 1/2) log x + x - log(2 pi) / 2, of x > 0."""
  is_small = x < _SHIFT
  far = jnp.where(is_small, x + _SHIFT, x)
  inverse = 1.0 / jnp.square(far)
  series = (1 / 12 - inverse * (1 / 360 - inverse * (
      1 / 1260 - inverse * (1 / 1680 - inverse / 1188)))) / far
  # From the error at x + 8: lgamma(x + 9) is lgamma(x + 1) times a product.
  x = jnp.where(is_small, x, 1.0)
  shift = ((x + _SHIFT + 0.5) * jnp.log(x + _SHIFT) - (x + 0.5) * jnp.log(x)
           - _SHIFT - jnp.log(math.prod(x + i for i in range(1, _SHIFT + 1))))
  return series + jnp.where(is_small, shift, 0.0)
