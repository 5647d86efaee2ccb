"""The fully connected networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlvae_jax.networks import ACTIVATIONS, MLP


def _shapes(params):
  """Kernel shape of every layer."""
  return {name: layer['kernel'].shape for name, layer in params.items()}


def test_encoder_and_decoder_mirror_each_other():
  network = MLP(hidden_sizes=(16, 8))
  key = jax.random.key(0)
  encoder = jax.eval_shape(
      network.encoder(6).init, key, jnp.zeros((1, 4, 3, 2)))
  decoder = jax.eval_shape(
      network.decoder(2, (4, 3, 2)).init, key, jnp.zeros((1, 5)))
  assert _shapes(encoder['params']) == {
      'hidden_0': (24, 16), 'hidden_1': (16, 8), 'heads': (8, 6)}
  assert _shapes(decoder['params']) == {
      'hidden_0': (5, 8), 'hidden_1': (8, 16), 'pixels': (16, 48)}


def test_without_hidden_layers_the_networks_are_linear():
  network = MLP(hidden_sizes=())
  module = network.decoder(1, (2, 2, 1))
  params = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 3)))
  apply = jax.jit(module.apply)
  z = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
  np.testing.assert_allclose(
      apply(params, 2.0 * z), 2.0 * apply(params, z), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('name', list(ACTIVATIONS))
def test_the_encoder_computes_the_formula(name):
  module = MLP(hidden_sizes=(8,), activation=name).encoder(6)
  x = np.random.default_rng(0).random((5, 4, 3, 2), np.float32)
  params = jax.jit(module.init)(jax.random.key(1), x)
  layers = params['params']
  hidden = ACTIVATIONS[name](
      x.reshape(5, -1) @ layers['hidden_0']['kernel']
      + layers['hidden_0']['bias'])
  expected = hidden @ layers['heads']['kernel'] + layers['heads']['bias']
  # atol: outputs of size 1 that may cancel to almost zero.
  np.testing.assert_allclose(
      jax.jit(module.apply)(params, x), expected, rtol=1e-5, atol=1e-6)


def test_the_decoder_puts_all_the_numbers_of_a_pixel_first():
  module = MLP(hidden_sizes=(8,)).decoder(2, (4, 3, 2))
  z = jnp.ones((5, 3))
  found, _ = jax.eval_shape(module.init_with_output, jax.random.key(0), z)
  assert found.shape == (5, 2, 4, 3, 2)


def test_bad_settings_are_refused():
  with pytest.raises(ValueError, match="unknown activation 'nope', expected"):
    MLP(activation='nope')
  with pytest.raises(ValueError, match=r'hidden sizes >= 1, got \[8, 0\]'):
    MLP(hidden_sizes=(8, 0))
