"""Likelihoods against float64 densities, and that they are densities."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from mlvae_jax.model.likelihoods.bernoulli import Bernoulli
from mlvae_jax.model.likelihoods.gaussian import Gaussian, LearnedGaussian
from mlvae_jax.model.likelihoods.laplace import Laplace
from mlvae_jax.model.likelihoods.registry import LIKELIHOODS
from tests.helpers.observations import EXAMPLES

ALL = [Bernoulli(), Gaussian(0.3), LearnedGaussian(), Laplace(0.3)]


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
  if isinstance(likelihood, Laplace):
    return scipy.stats.laplace.logpdf(x, first, likelihood.scale)
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


@pytest.mark.parametrize(
    'likelihood', [Gaussian(0.3), LearnedGaussian(), Laplace(0.3)])
def test_densities_integrate_to_one(likelihood):
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
  with pytest.raises(ValueError, match='expected scale > 0, got'):
    Laplace(sigma)


def test_gradients_of_laplace_are_signs():
  logits, x = _random_pixels(Laplace(0.3))
  found = jax.grad(lambda logits: Laplace(0.3).log_prob(logits, x).sum())(
      logits)
  np.testing.assert_allclose(
      found[:, 0], np.sign(x - logits[:, 0]) / np.float32(0.3), rtol=1e-6)


@pytest.mark.parametrize('likelihood, deviation, kurtosis', [
    (Gaussian(0.3), 0.3, 3.0), (Laplace(0.3), 0.3 * np.sqrt(2.0), 6.0)])
def test_draws_have_the_moments(likelihood, deviation, kurtosis):
  draws = np.asarray(likelihood.sample(
      jax.random.key(0), jnp.full((100_000, 1, 1), 0.7)), np.float64) - 0.7
  np.testing.assert_allclose(draws.mean(), 0.0, atol=0.01)
  np.testing.assert_allclose(draws.std(), deviation, rtol=0.02)
  np.testing.assert_allclose(
      (draws ** 4).mean() / draws.var() ** 2, kurtosis, rtol=0.1)


@pytest.mark.parametrize('likelihood', ALL)
def test_pixels_and_lists_are_prepared_alike(likelihood):
  pixels = np.array([[0, 51, 255]], np.uint8)
  found = likelihood.prepare(jnp.asarray(pixels))
  assert found.dtype == np.float32
  np.testing.assert_allclose(found, pixels / 255.0, rtol=1e-6)
  np.testing.assert_array_equal(likelihood.prepare(found), found)


@pytest.mark.parametrize('likelihood', ALL)
def test_values_up_to_300_name_the_remedies(likelihood):
  name = type(likelihood).__name__
  with pytest.raises(ValueError, match=(
      rf'{name}: expected .*, got values from -?\d+ to 300; .*as uint8.*'
      r'Poisson or NegativeBinomial')):
    likelihood.prepare(jnp.asarray([[0.0, 300.0]]))


@pytest.mark.parametrize('likelihood', ALL)
def test_one_nan_in_many_rows_is_found(likelihood):
  x = np.zeros((20_000, 3), np.float32)
  x[12_345, 1] = np.nan
  with pytest.raises(ValueError, match='got NaN'):
    likelihood.prepare(jnp.asarray(x))


@pytest.mark.parametrize('likelihood', ALL)
def test_what_is_shown_is_the_mean(likelihood):
  logits, x = _random_pixels(likelihood)
  mean = likelihood.mean(logits)
  assert likelihood.shown(mean) is mean and likelihood.as_mean(x) is x


def test_a_learned_variance_is_best_at_that_of_the_noise():
  # The gradient of the log-likelihood is 0 where sigma^2 is the mean square.
  likelihood = Gaussian(learn=True)
  x = np.random.default_rng(0).normal(0.0, 0.4, (500, 6)).astype(np.float32)

  def log_lik(logvar):
    logits = jnp.stack([jnp.zeros_like(x), jnp.full_like(x, logvar)], axis=1)
    return likelihood.log_prob(logits, x).sum() / x.size

  best = jnp.log(jnp.mean(jnp.square(x)))
  np.testing.assert_allclose(jax.grad(log_lik)(best), 0.0, atol=1e-5)
  assert jax.grad(log_lik)(best - 0.1) > 0.01 > -0.01 > jax.grad(log_lik)(
      best + 0.1)


def test_likelihoods_are_hashable_so_that_models_are_static():
  assert set(LIKELIHOODS.values()) == {type(v) for v in EXAMPLES.values()}
  for likelihood in EXAMPLES.values():
    assert hash(likelihood) == hash(dataclasses.replace(likelihood))
  assert Gaussian(0.1) != Gaussian(0.2)
