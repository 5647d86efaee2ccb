"""The contract of likelihoods p(x | z) of an observation, given a code.

A likelihood owns its domain. It defines which values an observation may have,
and is the only place that knows what the decoder's numbers mean.

The decoder's output, called `logits` whatever it parametrises, has the shape
`[N, P, ...]` where an observation has the shape `[...]`: P numbers for each of
its elements. Numbers that all rows share, such as a learned variance, come
last among the P; they are parameters of the model, not outputs of the network.
"""

from __future__ import annotations

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from mlvae_jax.grouping.checks import is_traced
from mlvae_jax.grouping.normal import at_least_float32


class Likelihood:
  """A distribution of observations, each element independent given z.

  Each is a frozen dataclass, named in `registry.LIKELIHOODS`.

  Attributes:
    dtype: type of prepared observations, as a rule.
    takes_pixels: whether uint8 values are pixels, on the scale from 0 to 255.
  """

  dtype: ClassVar[str] = 'float32'
  takes_pixels: ClassVar[bool] = True

  @property
  def has_tokens(self) -> bool:
    """Whether prepared observations are integers, a category each."""
    return np.issubdtype(self.dtype, np.integer)

  @property
  def num_outputs(self) -> int:
    """How many numbers the decoder gives per element."""
    return 1

  def prepare(self, x: jax.Array) -> jax.Array:
    """Checks observations, and converts them to the type `log_prob` takes.

    Args:
      x: `[N, ...]`, with values that this likelihood can have.

    Returns:
      Float32 (or float64) of the same shape; for tokens int32.

    Raises:
      ValueError: on another dtype or, where they are concrete, on values that
        the likelihood cannot have; it names the remedy.
    """
    raise NotImplementedError

  def encoder_input(self, x: jax.Array) -> jax.Array:
    """What the encoder sees of prepared observations, `[N, ...]` float."""
    return x

  def shared(self, observation_shape: tuple[int, ...]) -> jax.Array | None:
    """Initial values of what all rows share, `[S, ...]`, or None.

    They broadcast to `[S, *observation_shape]`, and are learned.
    """
    del observation_shape
    return None

  def mean(self, logits: jax.Array) -> jax.Array:
    """Expected observation `[N, ...]`; for categories, probabilities."""
    raise NotImplementedError

  def as_mean(self, x: jax.Array) -> jax.Array:
    """Prepared observations in the shape and on the scale of `mean`.

    It is what `mean` would be if it were right: errors of a reconstruction are
    differences from it, and a picture of both has one scale.
    """
    return x

  def shown(self, mean: jax.Array) -> jax.Array:
    """An output of `mean` as an observation that people can look at.

    Figures and tables show this, not the mean: for tokens the most probable
    ones, for all else the mean itself.
    """
    return mean

  def sample(self, key: jax.Array, logits: jax.Array) -> jax.Array:
    """Draws an observation of every row, `[N, ...]`; `key` is consumed."""
    raise NotImplementedError

  def log_prob(self, logits: jax.Array, x: jax.Array) -> jax.Array:
    """Log-likelihood `[N]` of prepared observations x, in nats."""
    raise NotImplementedError


def prepare_real(x: jax.Array, name: str, limit: float = 100.0) -> jax.Array:
  """Observations on a scale of about 1, of either sign, or pixels.

  Args:
    x: `[N, ...]` float; or uint8, pixels on the scale from 0 to 255.
    name: name of the likelihood, for messages.
    limit: largest magnitude that is taken for standardised data.

  Returns:
    Floats; pixels on the scale from 0 to 1.

  Raises:
    ValueError: on another dtype or, where values are concrete, on NaN,
      infinity, or a magnitude above the limit.
  """
  if x.dtype == jnp.uint8:
    return x.astype(jnp.float32) * np.float32(1.0 / 255.0)
  if not jnp.issubdtype(x.dtype, jnp.floating):
    raise ValueError(
        f'{name}: expected floats, or uint8 pixels, got {x.dtype}; standardise '
        'the data, or for counts use Poisson or NegativeBinomial')
  if not is_traced(x) and x.size:
    _check_magnitude(x, name, limit)
  return at_least_float32(x)


def _check_magnitude(x: jax.Array, name: str, limit: float) -> None:
  with jax.ensure_compile_time_eval():  # Also of constants inside a `jit`.
    # Not by min and max: on CPU those of many rows lose NaN.
    if bool((jnp.abs(x) <= limit).all()):
      return
    is_finite = bool(jnp.isfinite(x).all())
    low, high = float(jnp.nanmin(x)), float(jnp.nanmax(x))
  if not is_finite:
    raise ValueError(
        f'{name}: expected finite values, got NaN or infinity; mask these '
        'rows or leave them out, or fill in what is missing')
  raise ValueError(
      f'{name}: expected values on a scale of about 1, got values from {low:g} '
      f'to {high:g}; standardise the data, divide pixels by 255 or pass them '
      'as uint8, or for counts use Poisson or NegativeBinomial')


def sum_elements(values: jax.Array) -> jax.Array:
  """Sums `[N, ...]` over all axes but the first, `[N]`."""
  # A product with ones: XLA's row sums take longer on a CPU than the decoder's
  # forward pass. HIGHEST keeps accelerators from rounding to bfloat16 or TF32.
  values = values.reshape(values.shape[0], math.prod(values.shape[1:]))
  ones = jnp.ones(values.shape[1], values.dtype)
  return jnp.dot(values, ones, precision=jax.lax.Precision.HIGHEST)
