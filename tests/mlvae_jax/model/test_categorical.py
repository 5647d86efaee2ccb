"""Tokens: probabilities, padding, and values allowed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from mlvae_jax.model.likelihoods.categorical import Categorical

TOKENS = Categorical(4)
X = np.array([[0, 3, 1], [-1, 2, -1], [-1, -1, -1]], np.int32)
LOGITS = np.random.default_rng(0).normal(
    0.0, 2.0, (3, 4, 3)).astype(np.float32)


def test_log_prob_is_of_the_tokens_without_padding():
  log_p = scipy.special.log_softmax(LOGITS.astype(np.float64), axis=1)
  expected = [sum(log_p[n, token, i] for i, token in enumerate(row)
                  if token >= 0) for n, row in enumerate(X)]
  np.testing.assert_allclose(
      jax.jit(TOKENS.log_prob)(LOGITS, X), expected, rtol=1e-5)


def test_gradients_are_one_hot_minus_probabilities():
  found = jax.jit(jax.grad(
      lambda logits: TOKENS.log_prob(logits, X).sum()))(LOGITS)
  expected = np.moveaxis(
      TOKENS.as_mean(X) - TOKENS.mean(LOGITS), -1, 1) * (X >= 0)[:, None]
  np.testing.assert_allclose(found, expected, atol=1e-6)
  assert not np.any(found[2])


def test_probabilities_add_up_to_one():
  every = np.stack(np.meshgrid(*[range(4)] * 3), -1).reshape(-1, 3)
  log_prob = TOKENS.log_prob(
      np.broadcast_to(LOGITS[:1], (len(every), 4, 3)), every)
  np.testing.assert_allclose(np.exp(log_prob).sum(), 1.0, rtol=1e-5)


@pytest.mark.parametrize('size', [0.0, 1e3, 1e6])
def test_extremes_are_finite(size):
  value, grad = jax.value_and_grad(
      lambda logits: TOKENS.log_prob(logits, X).sum())(size * np.sign(LOGITS))
  assert np.isfinite(value) and np.all(np.isfinite(grad))


def test_mean_and_what_is_shown():
  mean = TOKENS.mean(LOGITS)
  assert mean.shape == (3, 3, 4) and TOKENS.num_outputs == 4
  np.testing.assert_allclose(mean.sum(-1), 1.0, rtol=1e-6)
  shown = TOKENS.shown(mean)
  assert shown.dtype == np.int32
  np.testing.assert_array_equal(shown, LOGITS.argmax(1))
  np.testing.assert_array_equal(
      TOKENS.shown(TOKENS.as_mean(X))[X >= 0], X[X >= 0])


def test_draws_have_the_probabilities():
  logits = np.broadcast_to(LOGITS[:1], (20_000, 4, 3))
  draws = jax.jit(TOKENS.sample)(jax.random.key(0), logits)
  assert draws.dtype == np.int32 and draws.shape == (20_000, 3)
  np.testing.assert_allclose(
      TOKENS.encoder_input(draws).mean(0), TOKENS.mean(LOGITS)[0], atol=0.02)


def test_padding_is_not_encoded():
  found = TOKENS.encoder_input(X)
  assert found.dtype == np.float32 and found.shape == (3, 3, 4)
  np.testing.assert_array_equal(found.sum(-1), X >= 0)


@pytest.mark.parametrize('dtype', [np.uint8, np.int8, np.int16, np.int32,
                                   np.uint32])
def test_integers_of_any_type_are_tokens(dtype):
  found = TOKENS.prepare(jnp.asarray(np.array([[0, 3]], dtype)))
  assert found.dtype == np.int32
  np.testing.assert_array_equal(found, [[0, 3]])


@pytest.mark.parametrize('bad, message', [
    ([[0, 4]], 'below 4, got 4; pass num_categories=5 or more'),
    ([[0, -2]], r'from 0, or -1 for padding, got -2; number them from 0'),
    ([[0.0, 1.0]], 'expected integers, got float32; number the categories'),
    ([[True, False]], 'got bool; .* use Bernoulli for booleans')])
def test_what_is_no_token_is_refused_with_a_remedy(bad, message):
  with pytest.raises(ValueError, match=f'Categorical: .*{message}'):
    TOKENS.prepare(jnp.asarray(bad))


def test_one_category_is_too_few():
  with pytest.raises(ValueError, match='num_categories >= 2, got 1'):
    Categorical(1)
