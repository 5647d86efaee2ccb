"""Categorical: tokens, such as letters of a text or bases of a sequence."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from mlvae_jax.grouping.checks import is_traced
from mlvae_jax.model.likelihoods.likelihood import Likelihood, sum_elements


@dataclasses.dataclass(frozen=True)
class Categorical(Likelihood):
  """Independent categories, with a probability for each from the decoder.

  Observations are integers in [0, K), or -1 for padding: a missing
  element. The encoder sees zeros in its place, and its log-likelihood is 0.

  Attributes:
    num_categories: number of categories, K.
  """

  num_categories: int

  dtype = 'int32'
  takes_pixels = False

  def __post_init__(self):
    if self.num_categories < 2:
      raise ValueError(
          f'expected num_categories >= 2, got {self.num_categories}')

  @property
  def num_outputs(self) -> int:
    """A logit per category."""
    return self.num_categories

  def prepare(self, x: jax.Array) -> jax.Array:
    """As `Likelihood.prepare`: integers in [-1, K).

    Traced integers outside this range are not checked; they count as padding.
    """
    if not jnp.issubdtype(x.dtype, jnp.integer):
      raise ValueError(
          f'Categorical: expected integers, got {x.dtype}; number the '
          'categories from 0, or use Bernoulli for booleans and Gaussian for '
          'real values')
    if not is_traced(x) and x.size:
      self._check_range(x)
    return x.astype(jnp.int32)

  def encoder_input(self, x: jax.Array) -> jax.Array:
    """One-hot rows `[N, ..., K]`; zeros for padding."""
    return jax.nn.one_hot(x, self.num_categories)

  def as_mean(self, x: jax.Array) -> jax.Array:
    """One-hot rows `[N, ..., K]`, the probabilities if all were certain."""
    return self.encoder_input(x)

  def mean(self, logits: jax.Array) -> jax.Array:
    """Probabilities of the categories, `[N, ..., K]`."""
    return jnp.moveaxis(jax.nn.softmax(logits, axis=1), 1, -1)

  def shown(self, mean: jax.Array) -> jax.Array:
    """The most probable category of each element, int32."""
    return jnp.argmax(mean, axis=-1).astype(jnp.int32)

  def sample(self, key: jax.Array, logits: jax.Array) -> jax.Array:
    """Draws a category for each element, `[N, ...]` int32, never padding."""
    return jax.random.categorical(key, logits, axis=1).astype(jnp.int32)

  def log_prob(self, logits: jax.Array, x: jax.Array) -> jax.Array:
    """Log-probability `[N]` of the categories x, in nats; padding adds 0."""
    # Summed over a one-hot mask, which is faster to differentiate than an
    # index, and has no category for padding.
    categories = jnp.arange(self.num_categories).reshape(
        -1, *(1 for _ in x.shape[1:]))
    return sum_elements(jnp.where(
        x[:, None] == categories, jax.nn.log_softmax(logits, axis=1), 0.0))

  def _check_range(self, x: jax.Array) -> None:
    with jax.ensure_compile_time_eval():  # Also of constants inside a `jit`.
      low, high = int(x.min()), int(x.max())
    if low < -1:
      raise ValueError(
          f'Categorical: expected categories from 0, or -1 for padding, got '
          f'{low}; number them from 0')
    if high >= self.num_categories:
      raise ValueError(
          f'Categorical: expected categories below {self.num_categories}, got '
          f'{high}; pass num_categories={high + 1} or more')
