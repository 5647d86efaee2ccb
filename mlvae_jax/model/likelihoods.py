"""Likelihoods p(x | z) of an image given the decoder's output.

Every likelihood has `num_outputs`, how many numbers the decoder gives per pixel
and channel. The decoder's output `[N, num_outputs, H, W, C]` is called
`logits` for every likelihood, whatever it stands for.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from mlvae_jax.grouping.normal import Normal


@dataclasses.dataclass(frozen=True)
class Bernoulli:
  """Independent Bernoullis; a grey value counts as a probability of white."""

  num_outputs = 1

  def mean(self, logits: jax.Array) -> jax.Array:
    """Expected image `[N, H, W, C]` in [0, 1]."""
    return jax.nn.sigmoid(logits[:, 0])

  def log_prob(self, logits: jax.Array, x: jax.Array) -> jax.Array:
    """Log-likelihood `[N]` of images x, in nats.

    With p = sigmoid(logit), summed over pixels,

      x log p + (1 - x) log(1 - p) = x * logit - softplus(logit).
    """
    logits = logits[:, 0]
    # The right-hand side: log p itself is -inf where the sigmoid rounds to 0.
    return _sum_pixels(x * logits - jax.nn.softplus(logits))


@dataclasses.dataclass(frozen=True)
class Gaussian:
  """Normal pixels of a fixed standard deviation.

  Attributes:
    sigma: standard deviation of a pixel, on the scale [0, 1] of images.
  """

  sigma: float = 0.15
  num_outputs = 1

  def __post_init__(self):
    if not (self.sigma > 0 and math.isfinite(self.sigma)):
      raise ValueError(f'expected sigma > 0, got {self.sigma}')

  def mean(self, logits: jax.Array) -> jax.Array:
    """Expected image `[N, H, W, C]`; nothing keeps it inside [0, 1]."""
    return logits[:, 0]

  def log_prob(self, logits: jax.Array, x: jax.Array) -> jax.Array:
    """Log density `[N]` of images x, in nats."""
    logvar = jnp.asarray(2.0 * math.log(self.sigma), logits.dtype)
    return _sum_pixels(Normal(logits[:, 0], logvar).log_prob(x))


@dataclasses.dataclass(frozen=True)
class LearnedGaussian:
  """Normal pixels, each with its own learned log-variance.

  The log-variance is a tanh, hence in (-1, 1), and the mean is linear, both as
  in the first author's code.
  """

  num_outputs = 2

  def mean(self, logits: jax.Array) -> jax.Array:
    """Expected image `[N, H, W, C]`; nothing keeps it inside [0, 1]."""
    return logits[:, 0]

  def log_prob(self, logits: jax.Array, x: jax.Array) -> jax.Array:
    """Log density `[N]` of images x, in nats."""
    # The bound keeps the variance from collapsing: pixels that are the same in
    # all images would otherwise have a density without limit.
    return _sum_pixels(
        Normal(logits[:, 0], jnp.tanh(logits[:, 1])).log_prob(x))


Likelihood = Bernoulli | Gaussian | LearnedGaussian

LIKELIHOODS = {
    'bernoulli': Bernoulli,
    'gaussian': Gaussian,
    'learned_gaussian': LearnedGaussian,
}


def _sum_pixels(values: jax.Array) -> jax.Array:
  """Sums `[N, H, W, C]` over pixels, `[N]`."""
  # A product with ones: XLA's row sums take longer on a CPU than the decoder's
  # forward pass. HIGHEST keeps accelerators from rounding to bfloat16 or TF32.
  values = values.reshape(values.shape[0], math.prod(values.shape[1:]))
  ones = jnp.ones(values.shape[1], values.dtype)
  return jnp.dot(values, ones, precision=jax.lax.Precision.HIGHEST)
