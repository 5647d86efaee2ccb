"""The networks: fully connected and convolutional."""

import json

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlvae_jax.model.encoder import Encoder
from mlvae_jax.model.factors import ml_vae
from mlvae_jax.model.likelihoods.gaussian import Gaussian
from mlvae_jax.model.model import Model
from mlvae_jax.model.networks.conv import Conv, Downsample, Upsample
from mlvae_jax.model.networks.mlp import MLP
from mlvae_jax.model.networks.network import ACTIVATIONS, Network


def _shapes(params):
  """Kernel shape of every layer."""
  return {name: layer['kernel'].shape for name, layer in params.items()}


class _Heads(nn.Module):
  """The heads of a network's encoder, as a model has them."""

  network: Network
  num_outputs: int

  @nn.compact
  def __call__(self, x):
    encoder = Encoder(
        self.network.encoder(1, x.shape[1:]), self.num_outputs)
    nn.share_scope(self, encoder)
    return encoder.encode(x).heads


def _random(tree, seed=0):
  """Random numbers of the shapes of a tree, biases and scales too."""
  rng = np.random.default_rng(seed)
  return jax.tree.map(
      lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), tree)


def test_encoder_and_decoder_mirror_each_other():
  network = MLP(hidden_sizes=(16, 8))
  key = jax.random.key(0)
  encoder = jax.eval_shape(
      _Heads(network, 6).init, key, jnp.zeros((1, 4, 3, 2)))
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
  module = _Heads(MLP(hidden_sizes=(8,), activation=name), 6)
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
  with pytest.raises(ValueError, match='hidden_sizes >= 1, got 0'):
    MLP(hidden_sizes=(8, 0))
  with pytest.raises(ValueError, match='hidden_sizes as a tuple of .* got 8'):
    MLP(8)
  with pytest.raises(ValueError, match='channels as a static integer, got 8.5'):
    Conv((8.5,))


def test_sizes_may_be_a_list_and_numbers_of_numpy():
  network = MLP([np.int64(8), 4])
  assert hash(network) == hash(MLP((8, 4)))
  assert json.dumps(network.hidden_sizes) == '[8, 4]'


# Convolutions.


def test_convolutions_halve_the_image_and_double_it_again():
  network = Conv((3, 5, 4, 6), (8, 7))
  key = jax.random.key(0)
  heads, encoder = jax.eval_shape(
      _Heads(network, 10).init_with_output, key, jnp.zeros((2, 32, 48, 3)))
  logits, decoder = jax.eval_shape(
      network.decoder(2, (32, 48, 3)).init_with_output, key,
      jnp.zeros((2, 9)))
  assert heads.shape == (2, 10) and logits.shape == (2, 2, 32, 48, 3)
  assert _shapes(encoder['params']) == {
      'down_0': (4, 4, 3, 3), 'down_1': (4, 4, 3, 5), 'down_2': (4, 4, 5, 4),
      'down_3': (4, 4, 4, 6), 'hidden_0': (2 * 3 * 6, 8), 'hidden_1': (8, 7),
      'heads': (7, 10)}
  assert _shapes(decoder['params']) == {
      'hidden_0': (9, 7), 'hidden_1': (7, 8), 'grid': (8, 2 * 3 * 6),
      'up_0': (4, 4, 6, 4), 'up_1': (4, 4, 4, 5), 'up_2': (4, 4, 5, 3),
      'pixels': (4, 4, 3, 2 * 3)}


@pytest.mark.parametrize('layer, flax_layer', [
    (Downsample, nn.Conv), (Upsample, nn.ConvTranspose)])
def test_layers_have_the_parameters_and_the_formula_of_flax(layer, flax_layer):
  x = np.random.default_rng(1).normal(size=(2, 4, 6, 3)).astype(np.float32)
  layers = layer(5), flax_layer(5, (4, 4), (2, 2))
  # Initial values are the same too.
  found, expected = (
      jax.jit(layer.init)(jax.random.key(2), x) for layer in layers)
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, found, expected)
  params = _random(found)
  found, expected = (jax.jit(layer.apply)(params, x) for layer in layers)
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_the_convolutional_decoder_puts_the_numbers_of_a_pixel_first():
  module = Conv((4,), ()).decoder(2, (4, 6, 3))
  z = np.zeros((5, 3), np.float32)
  params = jax.tree.map(
      lambda leaf: np.zeros(leaf.shape, np.float32),
      jax.eval_shape(module.init, jax.random.key(0), z))
  params['params']['pixels']['bias'] = np.arange(6, dtype=np.float32)
  logits = jax.jit(module.apply)(params, z)
  expected = np.arange(6).reshape(2, 1, 1, 3)
  np.testing.assert_array_equal(
      logits, np.broadcast_to(expected, (5, 2, 4, 6, 3)))


@pytest.fixture(scope='module', params=[0, 2], ids=['plain', 'group norm'])
def codec(request):
  """Functions of encoder and decoder, which images and codes go through."""
  network = Conv((4, 6), (5,), norm_groups=request.param)
  modules = _Heads(network, 3), network.decoder(2, (4, 8, 1))
  result = []
  for i, (module, shape) in enumerate(zip(modules, ((4, 8, 1), (3,)))):
    inputs = np.random.default_rng(i).random((4, *shape), np.float32)
    params = _random(
        jax.eval_shape(module.init, jax.random.key(0), inputs))
    result.append((jax.jit(module.apply), params, inputs))
  return network, result


def test_no_row_depends_on_the_others(codec):
  for apply, params, inputs in codec[1]:
    others = inputs.copy()
    others[1:] = 100.0 * others[:0:-1] + 7.0
    whole, changed = (apply(params, value) for value in (inputs, others))
    np.testing.assert_allclose(whole[0], changed[0], rtol=1e-6)
    assert np.all(np.abs(whole[1:] - changed[1:]).max(axis=0) > 0)


def test_a_group_norm_takes_the_scale_of_a_convolution_out(codec):
  network, (encoder, _) = codec
  apply, params, x = encoder
  scaled = jax.tree.map(lambda value: value, params)
  scaled['params']['down_1'] = {
      name: 8.0 * value for name, value in params['params']['down_1'].items()}
  same = np.allclose(
      apply(params, x), apply(scaled, x), rtol=1e-3, atol=1e-3)
  assert same == bool(network.norm_groups)


def test_every_convolution_but_the_last_has_its_group_norm():
  network = Conv((4, 6), (5,), norm_groups=2)
  key = jax.random.key(0)
  encoder = jax.eval_shape(
      _Heads(network, 3).init, key, jnp.zeros((1, 4, 8, 1)))['params']
  decoder = jax.eval_shape(
      network.decoder(2, (4, 8, 1)).init, key, jnp.zeros((1, 3)))['params']
  for params, sizes in ((encoder, (4, 6)), (decoder, (6, 4))):
    norms = {name: layer['scale'].shape for name, layer in params.items()
             if name.startswith('norm')}
    assert norms == {f'norm_{i}': (size,) for i, size in enumerate(sizes)}


@pytest.mark.parametrize('side', [8, 24, 28, 63])
@pytest.mark.parametrize('axis', [0, 1])
def test_sides_that_do_not_halve_so_often_are_refused(side, axis):
  shape = [32, 32, 1]
  shape[axis] = side
  with pytest.raises(
      ValueError, match=rf'4 convolutions.*multiples of 16, got.*\b{side}\b'):
    Model(ml_vae(3, 2), tuple(shape), network=Conv())


def test_bad_settings_of_convolutions_are_refused():
  with pytest.raises(
      ValueError, match=r'that divide the channels \[4, 6\], got 4'):
    Conv((4, 6), norm_groups=4)
  with pytest.raises(ValueError, match='norm_groups.*got -1'):
    Conv(norm_groups=-1)
  with pytest.raises(ValueError, match='at least one convolution'):
    Conv(())
  with pytest.raises(ValueError, match='channels >= 1, got 0'):
    Conv((0, 4), (8,))
  with pytest.raises(ValueError, match="unknown activation 'nope', expected"):
    Conv(activation='nope')


@pytest.mark.parametrize('network', [
    Conv(), Conv((6, 4), (), 'relu', 2), MLP((8, 4), 'gelu')])
def test_a_model_survives_json_with_its_network(network):
  model = Model(ml_vae(3, 2), (32, 16, 3), Gaussian(0.1), network)
  text = json.dumps(model.to_dict())
  found = Model.from_dict(json.loads(text))
  assert found == model and hash(found) == hash(model)
