"""Normal observations, with a variance that is fixed, shared or predicted."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from mlvae_jax.grouping.normal import Normal
from mlvae_jax.model.likelihoods.likelihood import (
    Likelihood,
    prepare_real,
    sum_elements,
)


class _Gaussian(Likelihood):
  """What Gaussians have in common: the first output is the mean."""

  _scale = 1.0  # Of observations; larger ones are not standardised.

  def prepare(self, x: jax.Array) -> jax.Array:
    """As `Likelihood.prepare`: floats, or uint8, which is divided by 255."""
    return prepare_real(x, type(self).__name__, 100.0 * self._scale)

  def mean(self, logits: jax.Array) -> jax.Array:
    """Expected observation `[N, ...]`; of pixels nothing keeps it in [0, 1]."""
    return logits[:, 0]

  def sample(self, key: jax.Array, logits: jax.Array) -> jax.Array:
    """Draws an observation of every row, `[N, ...]`; `key` is consumed."""
    return self._normal(logits).sample(key)

  def log_prob(self, logits: jax.Array, x: jax.Array) -> jax.Array:
    """Log density `[N]` of observations x, in nats."""
    return sum_elements(self._normal(logits).log_prob(x))

  def _normal(self, logits: jax.Array) -> Normal:
    """The distribution of every element, `[N, ...]`."""
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Gaussian(_Gaussian):
  """Normal elements with one standard deviation for all rows and elements.

  Observations are floats on a scale of about 1 (or sigma, if that is larger),
  such as standardised data, or uint8 pixels on the scale [0, 1].

  Attributes:
    sigma: standard deviation; its initial value if it is learned.
    learn: whether it is learned with the other parameters (Rybkin et al.
      2021, "sigma-VAE").
  """

  sigma: float = 0.15
  learn: bool = False

  def __post_init__(self):
    if not (self.sigma > 0 and math.isfinite(self.sigma)):
      raise ValueError(f'expected sigma > 0, got {self.sigma}')

  @property
  def _scale(self) -> float:
    return max(1.0, self.sigma)

  def shared(self, observation_shape: tuple[int, ...]) -> jax.Array | None:
    """The learned log-variance, one number; None where it is fixed."""
    if not self.learn:
      return None
    return jnp.full(
        (1, *(1 for _ in observation_shape)), 2.0 * math.log(self.sigma))

  def _normal(self, logits: jax.Array) -> Normal:
    if self.learn:
      return Normal(logits[:, 0], logits[:, 1])
    return Normal(
        logits[:, 0], jnp.asarray(2.0 * math.log(self.sigma), logits.dtype))


@dataclasses.dataclass(frozen=True)
class LearnedGaussian(_Gaussian):
  """Normal elements, each with its own log-variance from the decoder.

  The log-variance is a tanh, hence in (-1, 1), and the mean is linear, both as
  in the first author's code.
  """

  @property
  def num_outputs(self) -> int:
    """Mean and log-variance."""
    return 2

  def _normal(self, logits: jax.Array) -> Normal:
    # The bound keeps the variance from collapsing: elements that are the same
    # in all rows would otherwise have a density without limit.
    return Normal(logits[:, 0], jnp.tanh(logits[:, 1]))
