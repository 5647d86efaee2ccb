"""Likelihoods against float64 densities, and that they are densities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlvae_jax.model.likelihoods.bernoulli import Bernoulli
from mlvae_jax.model.likelihoods.gaussian import Gaussian, LearnedGaussian
from mlvae_jax.model.likelihoods.registry import LIKELIHOODS

ALL = [Bernoulli(), Gaussian(0.3), LearnedGaussian()]


def _random_pixels(likelihood, seed=0, shape=(5, 6, 4, 3)):
  """Logits `[N, P, H, W, C]` and images `[N, H, W, C]`."""
  rng = np.random.default_rng(seed)
  logits = rng.normal(
      0.0, 2.0, (shape[0], likelihood.num_outputs, *shape[1:]))
  return logits.astype(np.float32), rng.random(shape, np.float32)


def _log_prob64(likelihood, logits, x):
  """Log density of each pixel in float64."""
  logits = np.asarray(logits, np.float64)
  first = logits[:, 0]
  if isinstance(likelihood, Bernoulli):
    log_white = -np.logaddexp(0.0, -first)
    log_black = -np.logaddexp(0.0, first)
    return x * log_white + (1.0 - x) * log_black
  logvar = (2.0 * np.log(likelihood.sigma) if isinstance(likelihood, Gaussian)
            else np.tanh(logits[:, 1]))
  return -0.5 * (np.log(2.0 * np.pi) + logvar
                 + np.square(x - first) / np.exp(logvar))


@pytest.mark.parametrize('likelihood', ALL)
def test_log_prob_sums_the_float64_density_over_pixels(likelihood):
  logits, x = _random_pixels(likelihood)
  found = jax.jit(likelihood.log_prob)(logits, x)
  pixels = _log_prob64(likelihood, logits, x).reshape(5, -1)
  assert found.shape == (5,)
  # Pixels of either sign cancel: relative to what was added up.
  error = np.abs(found - pixels.sum(axis=1)) / np.abs(pixels).sum(axis=1)
  assert error.max() <= 1e-5


@pytest.mark.parametrize('likelihood', [Gaussian(0.3), LearnedGaussian()])
def test_gaussian_densities_integrate_to_one(likelihood):
  logits = np.array([0.4, -0.7], np.float32)[:likelihood.num_outputs]
  x = np.linspace(-9.0, 9.0, 20_001, dtype=np.float32)
  log_prob = jax.jit(likelihood.log_prob)(
      np.broadcast_to(logits[None, :, None, None, None],
                      (x.size, likelihood.num_outputs, 1, 1, 1)),
      x[:, None, None, None])
  total = np.trapezoid(np.exp(np.asarray(log_prob, np.float64)), x)
  np.testing.assert_allclose(total, 1.0, rtol=1e-5)


def test_bernoulli_probabilities_add_up_to_one():
  logits = jnp.linspace(-30.0, 30.0, 41).reshape(41, 1, 1, 1, 1)
  log_prob = jax.jit(Bernoulli().log_prob)
  black, white = (
      log_prob(logits, jnp.full((41, 1, 1, 1), x)) for x in (0.0, 1.0))
  np.testing.assert_allclose(jnp.exp(black) + jnp.exp(white), 1.0, rtol=1e-5)


@pytest.mark.parametrize('likelihood', ALL)
def test_extreme_logits_keep_value_and_gradient_finite(likelihood):
  logits, x = _random_pixels(likelihood)
  logits = 1e3 * np.sign(logits)
  value, grad = jax.jit(jax.value_and_grad(
      lambda logits: likelihood.log_prob(logits, x).sum()))(logits)
  assert np.isfinite(value) and np.all(np.isfinite(grad))


@pytest.mark.parametrize('likelihood', ALL)
def test_the_mean_maximises_the_density_of_a_black_or_white_image(likelihood):
  # For fixed logits the density of x is largest near the expected image.
  logits, _ = _random_pixels(likelihood)
  logits[:, 0] = np.where(logits[:, 0] > 0, 1.0, 0.0)
  if isinstance(likelihood, Bernoulli):
    logits = 40.0 * (logits - 0.5)
  x = np.where(logits[:, 0] > 0, 1.0, 0.0).astype(np.float32)
  np.testing.assert_allclose(
      jax.jit(likelihood.mean)(logits), x, atol=1e-6)
  log_prob = jax.jit(likelihood.log_prob)
  assert np.all(log_prob(logits, x) > log_prob(logits, 1.0 - x))


@pytest.mark.parametrize('sigma', [0.0, -1.0, np.inf, np.nan])
def test_a_sigma_that_is_no_deviation_is_refused(sigma):
  with pytest.raises(ValueError, match='expected sigma > 0, got'):
    Gaussian(sigma)


def test_likelihoods_are_hashable_so_that_models_are_static():
  for cls in LIKELIHOODS.values():
    assert hash(cls()) == hash(cls())
  assert Gaussian(0.1) != Gaussian(0.2)
