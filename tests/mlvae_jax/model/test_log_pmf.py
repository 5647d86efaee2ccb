"""Probabilities of counts against SciPy and float64, extremes included."""

import jax
import numpy as np
import pytest
import scipy.special
import scipy.stats

from mlvae_jax.model.likelihoods.log_pmf import (
    negative_binomial_log_pmf,
    poisson_log_pmf,
)

MEANS = 10.0 ** np.arange(-6, 8)
THETAS = 10.0 ** np.arange(-3, 7)
COUNTS = np.array([0, 1, 2, 3, 7, 8, 9, 20, 100, 3162, 1e5, 1e6])

_grad = jax.jit(jax.vmap(jax.grad(negative_binomial_log_pmf, (1, 2))))


def _float32(*values):
  """As float32, and the same numbers as float64."""
  low = [np.asarray(value, np.float32) for value in values]
  return low, [value.astype(np.float64) for value in low]


def _grid(near=False):
  """Counts, log means and log thetas, all combinations of extremes."""
  x, mean, theta = (v.ravel() for v in np.meshgrid(COUNTS, MEANS, THETAS))
  if near:  # Where cancellation is worst: counts about as large as expected.
    rng = np.random.default_rng(0)
    x = np.maximum(np.round(mean + rng.normal(size=mean.shape) * np.sqrt(mean)),
                   0.0).clip(max=1e6)
  return _float32(x, np.log(mean), np.log(theta))


def _relative(found, expected):
  """Errors relative to what is expected, or absolute where it is below 1."""
  found = np.asarray(found, np.float64)
  assert np.all(np.isfinite(found))
  return np.abs(found - expected) / np.maximum(1.0, np.abs(expected))


@pytest.mark.parametrize('near', [False, True])
def test_poisson_is_that_of_scipy(near):
  (x, log_mean, _), (x64, log_mean64, _) = _grid(near)
  expected = scipy.stats.poisson.logpmf(x64, np.exp(log_mean64))
  found = jax.jit(poisson_log_pmf)(x, log_mean)
  assert _relative(found, expected).max() < 3e-5
  with jax.enable_x64(True):
    found = jax.jit(poisson_log_pmf)(x64, log_mean64)
  assert _relative(found, expected).max() < 1e-8


@pytest.mark.parametrize('near', [False, True])
def test_negative_binomial_in_float64_is_that_of_scipy(near):
  _, (x, log_mean, log_theta) = _grid(near)
  mean, theta = np.exp(log_mean), np.exp(log_theta)
  with jax.enable_x64(True):
    found = np.asarray(jax.jit(negative_binomial_log_pmf)(
        x, log_mean, log_theta))
  expected = scipy.stats.nbinom.logpmf(x, theta, theta / (theta + mean))
  # SciPy's own terms cancel: of 1 - p up to 1e-12 only some digits are left.
  slack = 1e-15 * x * (theta + mean) / mean
  error = np.abs(found - expected)
  assert np.all(error <= slack + 1e-8 * np.maximum(1.0, np.abs(expected)))


@pytest.mark.parametrize('near', [False, True])
def test_negative_binomial_keeps_its_digits_in_float32(near):
  low, high = _grid(near)
  with jax.enable_x64(True):
    expected = np.asarray(jax.jit(negative_binomial_log_pmf)(*high))
  found = jax.jit(negative_binomial_log_pmf)(*low)
  assert _relative(found, expected).max() < 5e-5


def test_gradients_in_float64_are_the_closed_form():
  _, (x, log_mean, log_theta) = _grid()
  mean, theta = np.exp(log_mean), np.exp(log_theta)
  with jax.enable_x64(True):
    of_mean, of_theta = _grad(x, log_mean, log_theta)
  assert _relative(of_mean, theta * (x - mean) / (theta + mean)).max() < 1e-9
  digamma = scipy.special.digamma
  expected = theta * (
      digamma(x + theta) - digamma(theta) - np.log1p(mean / theta)
      + (mean - x) / (theta + mean))
  assert _relative(of_theta, expected).max() < 1e-6


def test_gradients_keep_their_digits_in_float32():
  low, high = _grid()
  with jax.enable_x64(True):
    expected = [np.asarray(v) for v in _grad(*high)]
  for found, value, limit in zip(_grad(*low), expected, (1e-5, 1e-3)):
    # x - m is known as well as m = exp(log m) is: to some ulps.
    ulps = 4e-6 * np.exp(high[1]) / (1.0 + np.exp(high[1] - high[2]))
    error = np.abs(np.asarray(found, np.float64) - value)
    assert np.all(error <= ulps + limit * np.maximum(1.0, np.abs(value)))


@pytest.mark.slow
def test_float64_gradients_are_the_differences_of_the_values():
  rng = np.random.default_rng(1)
  x = rng.poisson(rng.gamma(1.0, 20.0, 500)).astype(np.float64)
  log_mean, log_theta = rng.normal(2.0, 1.5, 500), rng.normal(0.0, 3.0, 500)
  step = 1e-5
  with jax.enable_x64(True):
    found = _grad(x, log_mean, log_theta)
    for i in range(2):
      shift = np.eye(2)[i] * step
      up, down = (negative_binomial_log_pmf(
          x, log_mean + sign * shift[0], log_theta + sign * shift[1])
                  for sign in (1, -1))
      np.testing.assert_allclose(
          found[i], (up - down) / (2 * step), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('mean', [0.01, 1.0, 30.0])
@pytest.mark.parametrize('theta', [None, 0.05, 1.0, 1e6])
def test_probabilities_add_up_to_one(mean, theta):
  x = np.arange(40_000, dtype=np.float32)
  log_pmf = (poisson_log_pmf(x, np.log(mean)) if theta is None else
             negative_binomial_log_pmf(x, np.log(mean), np.log(theta)))
  total = np.exp(np.asarray(log_pmf, np.float64)).sum()
  np.testing.assert_allclose(total, 1.0, rtol=1e-5)


def test_a_large_theta_is_the_poisson():
  x = np.arange(200, dtype=np.float32)
  log_mean = np.float32(np.log(40.0))
  np.testing.assert_allclose(
      negative_binomial_log_pmf(x, log_mean, np.float32(16.0)),
      poisson_log_pmf(x, log_mean), rtol=1e-4, atol=1e-4)
