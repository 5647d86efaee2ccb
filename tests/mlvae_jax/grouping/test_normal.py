"""Normals against float64 formulas, quadrature and Monte Carlo."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlvae_jax.grouping.normal import Normal, kl_divergence, standard_normal


def _random_normal(seed, shape):
  """A Normal of float32 moments of ordinary size."""
  rng = np.random.default_rng(seed)
  return Normal(
      rng.normal(size=shape).astype(np.float32),
      rng.uniform(-2.0, 2.0, size=shape).astype(np.float32))


def _log_prob64(q, x):
  """Log density of N(mean, exp(logvar)) in float64."""
  mean, logvar = (np.asarray(value, np.float64) for value in q)
  return -0.5 * (np.log(2.0 * np.pi) + logvar
                 + np.square(x - mean) / np.exp(logvar))


def _kl64(q, p):
  """KL(q || p) per element in float64, by the textbook formula."""
  (m_q, s_q), (m_p, s_p) = (
      (np.asarray(n.mean, np.float64), np.asarray(n.logvar, np.float64))
      for n in (q, p))
  return 0.5 * (s_p - s_q - 1.0
                + (np.exp(s_q) + np.square(m_q - m_p)) / np.exp(s_p))


def test_log_prob_equals_the_float64_density():
  q = _random_normal(0, (50, 3))
  x = np.random.default_rng(1).normal(0.0, 3.0, (50, 3)).astype(np.float32)
  found = jax.jit(Normal.log_prob)(q, x)
  # Where the terms cancel, relative to their size of about 1.
  np.testing.assert_allclose(found, _log_prob64(q, x), rtol=1e-5, atol=1e-5)


def test_density_integrates_to_one():
  q = Normal(np.float32(0.7), np.float32(-1.3))
  x = np.linspace(-8.0, 8.0, 4001, dtype=np.float32)
  density = np.exp(np.asarray(jax.jit(q.log_prob)(x), np.float64))
  np.testing.assert_allclose(np.trapezoid(density, x), 1.0, rtol=1e-5)


@pytest.mark.parametrize('logvar', [-80.0, -3.0, 0.0, 80.0])
def test_std_and_precision_follow_logvar(logvar):
  q = Normal(jnp.zeros(1), jnp.full(1, logvar))
  np.testing.assert_allclose(q.std, np.exp(logvar / 2), rtol=1e-5)
  np.testing.assert_allclose(q.precision, np.exp(-logvar), rtol=1e-5)


def test_samples_have_the_moments_and_follow_the_key():
  q = Normal(jnp.full((200_000,), 1.5), jnp.full((200_000,), -0.8))
  draw = jax.jit(lambda key: q.sample(key))
  sample = np.asarray(draw(jax.random.key(0)), np.float64)
  variance = np.exp(-0.8)
  # Four standard errors of the mean and of the variance.
  assert abs(sample.mean() - 1.5) < 4 * np.sqrt(variance / sample.size)
  assert abs(sample.var() - variance) < 4 * variance * np.sqrt(
      2.0 / sample.size)
  np.testing.assert_array_equal(sample, draw(jax.random.key(0)))
  assert np.any(sample != np.asarray(draw(jax.random.key(1))))


def test_reparameterize_is_mean_plus_std_noise():
  q, noise = _random_normal(2, (4, 3)), np.float32(1.7)
  np.testing.assert_allclose(
      jax.jit(Normal.reparameterize)(q, noise),
      q.mean + np.exp(q.logvar / 2) * noise, rtol=1e-5)


def test_take_selects_rows():
  q, rows = _random_normal(3, (5, 2)), np.array([4, 0, 4])
  taken = jax.jit(Normal.take)(jax.tree.map(jnp.asarray, q), rows)
  np.testing.assert_array_equal(taken.mean, q.mean[rows])
  np.testing.assert_array_equal(taken.logvar, q.logvar[rows])


@pytest.mark.parametrize('p', [None, _random_normal(5, (20, 4))])
def test_kl_equals_the_float64_formula(p):
  q = _random_normal(4, (20, 4))
  expected = _kl64(q, standard_normal((20, 4)) if p is None else p)
  np.testing.assert_allclose(
      jax.jit(kl_divergence)(q, p), expected.sum(axis=-1), rtol=1e-5)


def test_kl_equals_numeric_integration():
  q, p = _random_normal(6, (1,)), _random_normal(7, (1,))
  x = np.linspace(-30.0, 30.0, 200_001)
  log_q, log_p = _log_prob64(q, x), _log_prob64(p, x)
  integral = np.trapezoid(np.exp(log_q) * (log_q - log_p), x)
  np.testing.assert_allclose(jax.jit(kl_divergence)(q, p), integral, rtol=1e-5)


def test_kl_and_its_gradient_equal_monte_carlo():
  q, p = _random_normal(8, (3,)), _random_normal(9, (3,))
  p = jax.tree.map(jnp.asarray, p)

  def log_ratio(q, noise):
    x = q.reparameterize(noise)
    return jnp.sum(q.log_prob(x) - p.log_prob(x))

  noise = jax.random.normal(jax.random.key(0), (100_000, 3))
  draws = jax.jit(jax.vmap(jax.value_and_grad(log_ratio), (None, 0)))(q, noise)
  exact = jax.jit(jax.value_and_grad(kl_divergence))(q, p)
  for found, draw in zip(jax.tree.leaves(exact), jax.tree.leaves(draws)):
    draw = np.asarray(draw, np.float64)
    error = draw.std(axis=0) / np.sqrt(len(draw))
    assert np.all(np.abs(draw.mean(axis=0) - found) < 4 * error)


def test_kl_gradient_equals_the_float64_formula():
  q, p = _random_normal(10, (20, 4)), _random_normal(11, (20, 4))
  grad = jax.jit(jax.grad(lambda q: kl_divergence(q, p).sum()))(q)
  m_q, s_q, m_p, s_p = (np.asarray(v, np.float64) for v in (*q, *p))
  np.testing.assert_allclose(
      grad.mean, (m_q - m_p) * np.exp(-s_p), rtol=1e-5)
  # exp(t) - 1 cancels near t = 0, hence the absolute term.
  np.testing.assert_allclose(
      grad.logvar, 0.5 * np.expm1(s_q - s_p), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16])
def test_moments_of_few_digits_are_summed_in_float32(dtype):
  q = Normal(*(jnp.asarray(v, dtype) for v in _random_normal(9, (50, 600))))
  wide = Normal(*(np.asarray(v, np.float32) for v in q))
  x = np.random.default_rng(1).normal(size=(50, 600)).astype(np.float32)
  for function in (
      kl_divergence, lambda n: kl_divergence(n, n), lambda n: n.log_prob(x),
      lambda n: n.sample(jax.random.key(0)), lambda n: n.std,
      lambda n: n.precision, lambda n: n.reparameterize(x)):
    found = jax.jit(function)(q)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, function(wide), rtol=1e-5, atol=1e-6)


def test_kl_to_itself_is_zero_and_never_negative():
  q = _random_normal(12, (200, 4))
  assert np.all(np.asarray(jax.jit(kl_divergence)(q, q)) == 0.0)
  assert np.all(np.asarray(jax.jit(kl_divergence)(q)) >= 0.0)
  assert np.all(np.asarray(
      jax.jit(kl_divergence)(standard_normal((5, 2)))) == 0.0)


def test_kl_of_nearly_equal_variances_keeps_its_digits():
  t = np.array([[1e-3], [-1e-3]])
  q = Normal(jnp.zeros((2, 1)), jnp.asarray(t, jnp.float32))
  exact = 0.5 * (np.expm1(t) - t)[:, 0]
  # The result, t²/4, is a millionth of a nat: the naive formula, whose terms
  # are of size 1, would miss it by a tenth.
  np.testing.assert_allclose(jax.jit(kl_divergence)(q), exact, rtol=1e-3)
