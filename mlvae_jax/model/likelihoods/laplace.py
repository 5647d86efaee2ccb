"""Laplace: real values with outliers, such as spectra with spikes."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from mlvae_jax.model.likelihoods.likelihood import (
    Likelihood,
    prepare_real,
    sum_elements,
)


@dataclasses.dataclass(frozen=True)
class Laplace(Likelihood):
  """Elements with a Laplace density of one scale, for all rows and elements.

  An outlier costs its distance, not its square as with a Gaussian.
  Observations are those of `Gaussian`.

  Attributes:
    scale: mean absolute deviation b; the standard deviation is sqrt(2) b.
  """

  scale: float = 0.15

  def __post_init__(self):
    if not (self.scale > 0 and math.isfinite(self.scale)):
      raise ValueError(f'expected scale > 0, got {self.scale}')

  def prepare(self, x: jax.Array) -> jax.Array:
    """As `Likelihood.prepare`: floats, or uint8, which is divided by 255."""
    return prepare_real(x, 'Laplace', 100.0 * max(1.0, self.scale))

  def mean(self, logits: jax.Array) -> jax.Array:
    """Expected observation `[N, ...]`; for pixels, not kept in [0, 1]."""
    return logits[:, 0]

  def sample(self, key: jax.Array, logits: jax.Array) -> jax.Array:
    """Draws an observation of every row, `[N, ...]`; `key` is consumed."""
    mean = self.mean(logits)
    return mean + self.scale * jax.random.laplace(key, mean.shape, mean.dtype)

  def log_prob(self, logits: jax.Array, x: jax.Array) -> jax.Array:
    """Log density `[N]` of x, in nats: `-|x - m| / b - log 2 b`."""
    distance = jnp.abs(x - self.mean(logits)) / self.scale
    return sum_elements(-distance - math.log(2.0 * self.scale))
