"""Counts, such as molecules of each gene in a cell, or words in a document."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from mlvae_jax.grouping.checks import is_traced
from mlvae_jax.grouping.normal import at_least_float32
from mlvae_jax.model.likelihoods.likelihood import Likelihood, sum_elements
from mlvae_jax.model.likelihoods.log_pmf import (
    negative_binomial_log_pmf,
    poisson_log_pmf,
)

_MAX_LOG_RATE = 20.0  # Up to here a rate is exp(logit); beyond it is linear.
_MAX_LOG_THETA = 16.0
_MAX_SAMPLED = 1e9  # Largest rate of which int32 counts can be drawn.


@dataclasses.dataclass(frozen=True)
class _Counts(Likelihood):
  """The common part of likelihoods of counts: the first output is the rate."""

  library: bool = True
  size: float = 1e4

  takes_pixels = False

  def __post_init__(self):
    if not (self.size > 0 and math.isfinite(self.size)):
      raise ValueError(f'expected size > 0, got {self.size}')

  def prepare(self, x: jax.Array) -> jax.Array:
    """As `Likelihood.prepare`: whole numbers >= 0, of any type but bool."""
    return _prepare_counts(x, type(self).__name__)

  def encoder_input(self, x: jax.Array) -> jax.Array:
    """log(1 + x), because counts span orders of magnitude."""
    return jnp.log1p(x)

  def as_mean(self, x: jax.Array) -> jax.Array:
    """Counts scaled to the total of `mean`: `size` with `library`."""
    if not self.library:
      return x
    return x * (self.size / jnp.maximum(_totals(x), 1.0))

  def mean(self, logits: jax.Array) -> jax.Array:
    """Expected counts `[N, ...]`; with `library` of rows whose total is size.
    """
    return jnp.exp(self._log_rate(logits, self.size))

  def log_prob(self, logits: jax.Array, x: jax.Array) -> jax.Array:
    """Log-probability `[N]` of counts x, in nats.

    With `library` the total of each row of x is taken as given. Then a row of
    zeros has the rate 0, hence probability 1.
    """
    if not self.library:
      return sum_elements(self._log_pmf(logits, x, self._log_rate(logits, 1.0)))
    totals = _totals(x)
    log_rate = self._log_rate(logits, jnp.maximum(totals, 1.0))
    found = sum_elements(self._log_pmf(logits, x, log_rate))
    return jnp.where(totals.reshape(-1) > 0, found, 0.0)

  def _log_rate(self, logits: jax.Array, total: jax.Array | float) -> jax.Array:
    """Log of expected counts `[N, ...]`; `total` counts with `library`."""
    logits = logits[:, 0]
    if self.library:
      return jnp.log(total) + jax.nn.log_softmax(
          logits, axis=tuple(range(1, logits.ndim)))
    # Where exp would overflow, its tangent, so that there is a gradient.
    above = jnp.maximum(logits - _MAX_LOG_RATE, 0.0)
    return jnp.minimum(logits, _MAX_LOG_RATE) + jnp.log1p(above)

  def _log_pmf(self, logits: jax.Array, x: jax.Array, log_rate: jax.Array
               ) -> jax.Array:
    """Log-probability of each element, `[N, ...]`."""
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Poisson(_Counts):
  """Counts whose variance is their mean.

  With `library`, the rates of a row are shares of its total count (its library
  size), which is taken as given: the softmax of the logits over all elements,
  times the sum of x. So a row is described by its composition, however many
  counts it has. Otherwise a rate is exp(logit), and beyond a logit of 20 it
  grows linearly, so that it cannot overflow.

  Attributes:
    library: whether rates are shares of the total of each row.
    size: with `library`, total count of a row that `mean` and `sample` assume,
      since they see no row.
  """

  def sample(self, key: jax.Array, logits: jax.Array) -> jax.Array:
    """Draws counts `[N, ...]`, as floats; `key` is consumed."""
    return _sample_poisson(key, self.mean(logits))

  def _log_pmf(self, logits: jax.Array, x: jax.Array, log_rate: jax.Array
               ) -> jax.Array:
    return poisson_log_pmf(x, log_rate)


@dataclasses.dataclass(frozen=True)
class NegativeBinomial(_Counts):
  """Counts whose variance exceeds a Poisson's: mean + mean^2 / theta.

  The mean is that of `Poisson`. The inverse dispersion theta of every element
  (such as a gene) is the same for all rows, and is learned, between e^-16 and
  e^16.

  Attributes:
    library: whether rates are shares of the total of each row.
    size: with `library`, total count of a row that `mean` and `sample` assume,
      since they see no row.
  """

  def shared(self, observation_shape: tuple[int, ...]) -> jax.Array:
    """log theta of every element, `[1, ...]`, which starts at 0."""
    return jnp.zeros((1, *observation_shape))

  def sample(self, key: jax.Array, logits: jax.Array) -> jax.Array:
    """Draws counts `[N, ...]`, as floats; `key` is consumed.

    A Poisson whose rate is mean times Gamma(theta) / theta.
    """
    gamma_key, poisson_key = jax.random.split(key)
    log_theta = _log_theta(logits)
    # In logs: with a small theta most of the draws are below the least float.
    log_gamma = jax.random.loggamma(gamma_key, jnp.exp(log_theta))
    return _sample_poisson(poisson_key, jnp.exp(
        self._log_rate(logits, self.size) + log_gamma - log_theta))

  def _log_pmf(self, logits: jax.Array, x: jax.Array, log_rate: jax.Array
               ) -> jax.Array:
    return negative_binomial_log_pmf(x, log_rate, _log_theta(logits))


def _log_theta(logits: jax.Array) -> jax.Array:
  return jnp.clip(logits[:, 1], -_MAX_LOG_THETA, _MAX_LOG_THETA)


def _totals(x: jax.Array) -> jax.Array:
  """Sum of each row, `[N, 1, ...]`."""
  return sum_elements(x).reshape(-1, *(1 for _ in x.shape[1:]))


def _sample_poisson(key: jax.Array, rate: jax.Array) -> jax.Array:
  drawn = jax.random.poisson(key, jnp.minimum(rate, _MAX_SAMPLED))
  return drawn.astype(rate.dtype)


def _prepare_counts(x: jax.Array, name: str) -> jax.Array:
  """Counts as floats; a ValueError where they are known not to be counts."""
  if x.dtype == bool:
    raise ValueError(
        f'{name}: expected counts, got bool; use Bernoulli for booleans')
  if not is_traced(x) and x.size:
    with jax.ensure_compile_time_eval():  # Also of constants inside a `jit`.
      # Not by min and max: on CPU those of many rows lose NaN.
      is_count = bool(((x >= 0) & (x == jnp.floor(x)) & jnp.isfinite(x)).all())
      if not is_count:
        _explain(x, name)
  return at_least_float32(x)


def _explain(x: jax.Array, name: str) -> None:
  """Raises the ValueError that fits values which are not counts."""
  if not bool(jnp.isfinite(x).all()):
    raise ValueError(
        f'{name}: expected finite counts, got NaN or infinity; mask these '
        'rows, or fill in what is missing')
  low = float(x.min())
  what = (f'negative values, down to {low:g}' if low < 0 else
          'fractions')
  raise ValueError(
      f'{name}: expected counts, whole numbers >= 0, got {what}; pass counts '
      'as they were before any scaling, or use Gaussian on standardised data')
