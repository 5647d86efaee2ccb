"""Bernoulli: values between 0 and 1, such as pixels of digits."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from mlvae_jax.grouping.checks import is_traced
from mlvae_jax.grouping.normal import at_least_float32
from mlvae_jax.model.likelihoods.likelihood import Likelihood, sum_elements


@dataclasses.dataclass(frozen=True)
class Bernoulli(Likelihood):
  """Independent Bernoullis; a grey value counts as a probability of white.

  Observations are floats in [0, 1], booleans, or uint8 pixels.
  """

  def prepare(self, x: jax.Array) -> jax.Array:
    """As `Likelihood.prepare`; uint8 is divided by 255."""
    if x.dtype == jnp.uint8:
      return x.astype(jnp.float32) * np.float32(1.0 / 255.0)
    if x.dtype == bool:
      return x.astype(jnp.float32)
    if not jnp.issubdtype(x.dtype, jnp.floating):
      raise ValueError(
          f'Bernoulli: expected uint8 pixels, booleans, or floats in [0, 1], '
          f'got {x.dtype}')
    if not is_traced(x) and x.size:
      _check_range(x)
    return at_least_float32(x)

  def mean(self, logits: jax.Array) -> jax.Array:
    """Expected observation `[N, ...]` in [0, 1]."""
    return jax.nn.sigmoid(logits[:, 0])

  def sample(self, key: jax.Array, logits: jax.Array) -> jax.Array:
    """Draws an observation of every row: 0 or 1, as floats."""
    drawn = jax.random.bernoulli(key, self.mean(logits))
    return drawn.astype(logits.dtype)

  def log_prob(self, logits: jax.Array, x: jax.Array) -> jax.Array:
    """Log-likelihood `[N]` of observations x, in nats.

    With p = sigmoid(logit), summed over elements,

      x log p + (1 - x) log(1 - p) = x * logit - softplus(logit).
    """
    # The right-hand side: log p itself is -inf where the sigmoid rounds to 0.
    logits = logits[:, 0]
    return sum_elements(x * logits - jax.nn.softplus(logits))


def _check_range(x: jax.Array) -> None:
  """Raises where concrete floats are not in [0, 1]."""
  with jax.ensure_compile_time_eval():  # Also of constants inside a `jit`.
    # Not by min and max: on CPU those of many rows lose NaN.
    if bool(((x >= 0.0) & (x <= 1.0)).all()):
      return
    has_nan = bool(jnp.isnan(x).any())
    low, high = float(jnp.nanmin(x)), float(jnp.nanmax(x))
  if has_nan:
    raise ValueError(
        'Bernoulli: expected values in [0, 1], got NaN; mask these rows')
  raise ValueError(
      f'Bernoulli: expected values in [0, 1], got values from {low:g} to '
      f'{high:g}; divide pixels by 255, or pass them as uint8; or use Gaussian '
      'on standardised data, Poisson or NegativeBinomial for counts')
