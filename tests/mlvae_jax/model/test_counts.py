"""Poisson and negative binomial: rates, values allowed, and draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from mlvae_jax.grouping.checks import is_traced
from mlvae_jax.model.likelihoods.counts import NegativeBinomial, Poisson

KINDS = (Poisson, NegativeBinomial)
each_kind = pytest.mark.parametrize('kind', KINDS)
each_library = pytest.mark.parametrize('library', [True, False])
KEY = jax.random.key(0)


def _random(kind, num=5, size=7, seed=0, scale=2.0):
  """Logits with log theta where there is one, and counts, in float32."""
  rng = np.random.default_rng(seed)
  num_rows = 1 if kind is Poisson else 2
  logits = rng.normal(0.0, scale, (num, num_rows, size)).astype(np.float32)
  if num_rows == 2:
    logits[:, 1] = logits[:1, 1]
  return logits, rng.poisson(3.0, (num, size)).astype(np.float32)


def _expected(kind, library, logits, x):
  """Sum of SciPy's log-probabilities in float64, `[N]`."""
  logits, x = np.asarray(logits, np.float64), np.asarray(x, np.float64)
  rate = np.exp(logits[:, 0])
  if library:
    rate *= x.sum(1, keepdims=True) / rate.sum(1, keepdims=True)
  if kind is Poisson:
    return scipy.stats.poisson.logpmf(x, rate).sum(1)
  theta = np.exp(logits[:, 1])
  return scipy.stats.nbinom.logpmf(x, theta, theta / (theta + rate)).sum(1)


@each_kind
@each_library
def test_log_prob_is_that_of_scipy(kind, library):
  logits, x = _random(kind)
  found = jax.jit(kind(library).log_prob)(logits, x)
  assert found.shape == (5,)
  np.testing.assert_allclose(
      found, _expected(kind, library, logits, x), rtol=1e-5)


@each_kind
@each_library
def test_elements_may_have_several_axes(kind, library):
  logits, x = _random(kind, size=12)
  flat = kind(library).log_prob(logits, x)
  found = kind(library).log_prob(
      logits.reshape(5, -1, 3, 2, 2), x.reshape(5, 3, 2, 2))
  np.testing.assert_allclose(found, flat, rtol=1e-6)


@each_kind
@each_library
def test_gradients_are_differences_of_scipy(kind, library):
  logits, x = _random(kind)
  found = jax.jit(jax.grad(
      lambda logits: kind(library).log_prob(logits, x).sum()))(logits)
  step = 1e-5
  for place in np.ndindex(*logits.shape[1:]):
    change = np.zeros(logits.shape[1:])
    change[place] = step
    up, down = (_expected(kind, library, logits + sign * change, x)
                for sign in (1, -1))
    np.testing.assert_allclose(
        found[:, *place], (up - down) / (2 * step), rtol=1e-3, atol=1e-3)


@each_kind
@each_library
@pytest.mark.parametrize('total', [0, 1, 1_000_000])
@pytest.mark.parametrize('size', [0.0, 1.0, 30.0, 1e3, 1e6])
def test_extremes_are_finite(kind, library, total, size):
  logits, _ = _random(kind)
  logits = size * np.sign(logits)
  x = np.zeros((5, 7), np.float32)
  x[:, 2] = total
  value, grad = jax.jit(jax.value_and_grad(
      lambda logits: kind(library).log_prob(logits, x).sum()))(logits)
  assert np.isfinite(value) and np.all(np.isfinite(grad))
  assert np.all(np.isfinite(kind(library).mean(logits)))
  assert np.all(np.isfinite(kind(library).sample(KEY, logits)))


@pytest.mark.slow
@each_kind
def test_a_row_without_counts_has_probability_one(kind):
  logits, x = _random(kind)
  x[1] = 0.0
  value, grad = jax.vmap(jax.value_and_grad(
      lambda logits, x: kind().log_prob(logits[None], x[None])[0]))(logits, x)
  assert value[1] == 0.0 and not np.any(grad[1])
  assert np.all(np.delete(value, 1) < 0.0)


@pytest.mark.slow
@each_kind
def test_rates_grow_without_overflow_and_keep_their_gradient(kind):
  logits, x = _random(kind, scale=0.1)
  for large in (20.0, 25.0, 1e4):
    logits[:, 0] = large
    rate, slope = jax.value_and_grad(
        lambda logits: kind(False).mean(logits)[0, 0])(logits)
    np.testing.assert_allclose(
        rate, np.exp(20.0) * (large - 19.0), rtol=1e-5)
    assert slope[0, 0, 0] > 0.0
    assert np.any(jax.grad(
        lambda logits: kind(False).log_prob(logits, x).sum())(logits)[:, 0])


@each_kind
def test_with_library_the_mean_has_the_total_size(kind):
  logits, x = _random(kind)
  likelihood = kind(size=500.0)
  np.testing.assert_allclose(
      likelihood.mean(logits).sum(1), 500.0, rtol=1e-5)
  np.testing.assert_allclose(likelihood.as_mean(x).sum(1), 500.0, rtol=1e-5)
  np.testing.assert_array_equal(kind(False).as_mean(x), x)
  assert not np.any(likelihood.as_mean(0 * x))


@each_kind
@each_library
def test_a_constant_added_to_logits_changes_no_share(kind, library):
  logits, x = _random(kind)
  more = logits + np.eye(logits.shape[1])[0][None, :, None].astype(np.float32)
  a, b = (kind(library).log_prob(v, x) for v in (logits, more))
  assert np.allclose(a, b, rtol=1e-5) == library


@pytest.mark.slow
@each_kind
@each_library
def test_draws_have_the_moments(kind, library):
  num = 40_000
  logits = np.zeros((num, 1 if kind is Poisson else 2, 3), np.float32)
  logits[:, 0] = [0.5, 1.0, 2.0]
  logits[:, -1:] += 0.0 if kind is Poisson else np.log(
      np.float32([0.5, 2.0, 10.0]))
  likelihood = kind(library, size=30.0)
  draws = np.asarray(jax.jit(likelihood.sample)(KEY, logits))
  mean = np.asarray(likelihood.mean(logits[:1]))[0]
  variance = mean if kind is Poisson else mean + mean ** 2 / np.exp(
      logits[0, 1])
  assert draws.dtype == np.float32 and np.all(draws == np.floor(draws))
  np.testing.assert_allclose(
      draws.mean(0), mean, atol=5 * np.sqrt(variance.max() / num))
  np.testing.assert_allclose(draws.var(0), variance, rtol=0.1)


@each_kind
@pytest.mark.parametrize('x', [
    np.array([[0, 3], [255, 1]], np.uint8), np.array([[0, 3], [300, 1]]),
    np.array([[0, 3], [300, 1]], np.uint32), np.array([[0.0, 3.0]]),
    np.zeros((0, 2)), np.array([[0.0, 3.0]], np.float16)])
def test_counts_of_any_type_become_floats_as_they_are(kind, x):
  found = kind().prepare(jnp.asarray(x, jax.dtypes.canonicalize_dtype(x.dtype)))
  assert found.dtype == np.float32
  np.testing.assert_array_equal(found, x)
  np.testing.assert_array_equal(kind().prepare(found), found)


@each_kind
@pytest.mark.parametrize('bad, message', [
    ([[True, False]], 'got bool; use Bernoulli for booleans'),
    ([[-1, 2]], 'got negative values, down to -1; .* use Gaussian on standard'),
    ([[-0.5, 2.0]], 'got negative values, down to -0.5'),
    ([[1.5, 2.0]], 'got fractions; pass counts as they were before'),
    ([[np.nan, 2.0]], 'got NaN or infinity; mask these rows'),
    ([[np.inf, 2.0]], 'got NaN or infinity; mask these rows')])
def test_what_is_no_count_is_refused_with_a_remedy(kind, bad, message):
  name = kind.__name__
  with pytest.raises(ValueError, match=f'{name}: expected .*{message}'):
    kind().prepare(jnp.asarray(bad))


@each_kind
def test_one_nan_in_many_rows_is_found(kind):
  x = np.zeros((20_000, 3), np.float32)
  x[12_345, 1] = np.nan
  with pytest.raises(ValueError, match='got NaN'):
    kind().prepare(jnp.asarray(x))


@each_kind
def test_traced_values_are_not_checked(kind):
  def prepare(x):
    assert is_traced(x)
    return kind().prepare(x)

  np.testing.assert_array_equal(jax.jit(prepare)(np.array([[-1.5]])), -1.5)


@each_kind
@pytest.mark.parametrize('size', [0.0, -1.0, np.inf, np.nan])
def test_a_size_that_is_no_total_is_refused(kind, size):
  with pytest.raises(ValueError, match='expected size > 0, got'):
    kind(size=size)


def test_the_encoder_sees_logs():
  x = np.float32([[0.0, 1.0, 1e6]])
  np.testing.assert_allclose(Poisson().encoder_input(x), np.log1p(x), rtol=1e-6)
