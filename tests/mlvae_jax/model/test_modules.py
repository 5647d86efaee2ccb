"""Encoders and decoders of one's own."""

import dataclasses
import functools
import json

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mlvae_jax
from mlvae_jax.data.grouped import GroupedData
from mlvae_jax.inference.encode import encode_group, posteriors
from mlvae_jax.inference.latents import reconstruct
from mlvae_jax.model.factors import Factor, ml_vae
from mlvae_jax.model.likelihoods.categorical import Categorical
from mlvae_jax.model.likelihoods.gaussian import Gaussian
from mlvae_jax.model.model import Model
from mlvae_jax.model.networks import registry
from mlvae_jax.model.networks.mlp import MLP
from mlvae_jax.model.networks.network import Network
from mlvae_jax.training.loading import load

SIZE = 6
KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(24, SIZE)).astype(np.float32)
IDS = np.repeat(np.arange(6), 4)
DATA = GroupedData.from_labels(X, IDS)
# One device, because it compiles faster.
fit = functools.partial(
    mlvae_jax.fit, chunk_steps=2, devices=jax.devices()[:1])


class Encoder(nn.Module):
  """Names its layer as the model names the heads."""

  size: int = 8

  @nn.compact
  def __call__(self, x):
    return nn.tanh(nn.Dense(self.size, name='heads')(x))


def _init_linear(key, x):
  return {'kernel': jax.random.normal(key, (x.shape[-1], 4)), 'scale': [2.0]}


def _init_arrays(key, x):
  return {'kernel': jax.random.normal(key, (x.shape[-1], 4))}


def _apply_linear(params, x):
  return x @ params['kernel']


@dataclasses.dataclass(frozen=True)
class Linear(Network):
  """A network that can be registered."""

  sizes: tuple[int, ...] = (4,)

  def encoder(self, num_outputs, observation_shape):
    return nn.Dense(self.sizes[0])

  def decoder(self, num_outputs, observation_shape):
    return MLP(()).decoder(num_outputs, observation_shape)


def _model(**kwargs):
  return Model(ml_vae(3, 2), (SIZE,), **({'likelihood': Gaussian()} | kwargs))


OWN = {
    'a linen encoder': dict(encoder=Encoder()),
    'a linen decoder': dict(decoder=nn.Dense(SIZE)),
    'lists of layers': dict(
        encoder=nn.Sequential([nn.Dense(8), nn.LayerNorm(), nn.relu]),
        decoder=nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(SIZE)])),
    'a pair': dict(encoder=(_init_arrays, _apply_linear)),
    'both, one a pair': dict(
        encoder=Encoder(), decoder=(
            lambda key, z: jax.random.normal(key, (5, SIZE)),
            lambda params, z: z @ params)),
    'without parameters': dict(encoder=(lambda key, x: {}, lambda _, x: x)),
}


@pytest.mark.slow
@pytest.mark.parametrize('name', OWN)
def test_networks_of_ones_own_train_and_load(name, tmp_path):
  model = _model(**OWN[name])
  assert hash(model) == hash(dataclasses.replace(model)), name
  assert model == dataclasses.replace(model)
  start = model.init(jax.random.split(KEY)[0])
  params, history = fit(model, DATA, steps=4, workdir=tmp_path)
  assert np.isfinite(history[-1]['elbo'])
  assert jax.tree.structure(params) == jax.tree.structure(start)
  with pytest.raises(ValueError, match=r'load\(workdir, model=model\)'):
    load(tmp_path)
  same, loaded = load(tmp_path, model=model)
  assert same is model
  jax.tree.map(np.testing.assert_array_equal, loaded, params)
  assert encode_group(model, loaded, X, IDS, 6).mean.shape == (6, 3)
  with pytest.raises(ValueError, match='differs from .* in dtype'):
    load(tmp_path, model=dataclasses.replace(model, dtype='bfloat16'))


@pytest.mark.slow
def test_a_run_resumes_with_networks_of_ones_own(tmp_path, caplog):
  model = _model(**OWN['both, one a pair'])
  whole, _ = fit(model, DATA, steps=4)
  fit(model, DATA, steps=2, workdir=tmp_path)
  resumed, _ = fit(model, DATA, steps=4, workdir=tmp_path)
  jax.tree.map(np.testing.assert_array_equal, resumed, whole)
  assert not caplog.records  # Orbax does not ask for metrics.


@pytest.mark.slow
def test_layers_may_have_the_names_of_heads():
  params = _model(encoder=Encoder()).init(KEY)['encoder']
  assert params['own']['heads']['kernel'].shape == (SIZE, 8)
  assert params['heads']['kernel'].shape == (8, 10)


def test_the_encoder_is_applied_as_it_is():
  model = _model(encoder=Encoder(), dtype='float32')
  params = model.init(KEY)
  features = Encoder().apply({'params': params['encoder']['own']}, X)
  heads = params['encoder']['heads']
  expected = features @ heads['kernel'] + heads['bias']
  found = posteriors(model, params, X)
  np.testing.assert_allclose(found['content'].mean, expected[:, :3], rtol=1e-5,
                             atol=1e-6)
  np.testing.assert_allclose(found['style'].logvar, expected[:, 8:], rtol=1e-5,
                             atol=1e-6)


def _outputs(z):
  """Two numbers for each element of (3, 2, 4), `[N, 2, 3, 2, 4]`."""
  return jnp.sin(z.sum(-1)[:, None] * jnp.arange(1, 49)).reshape(-1, 2, 3, 2, 4)


@pytest.mark.parametrize('layout', [
    lambda whole: whole,
    lambda whole: jnp.concatenate([whole[:, 0], whole[:, 1]], axis=-1),
    lambda whole: whole.reshape(-1, 48)])
def test_outputs_may_lie_in_three_ways(layout):
  model = Model(ml_vae(3, 2), (3, 2, 4), decoder=(
      lambda key, z: {}, lambda _, z: layout(_outputs(z))))
  codes = {'content': jnp.arange(6.0).reshape(2, 3), 'style': jnp.ones((2, 2))}
  found = model.decode(model.init(KEY), codes)
  np.testing.assert_array_equal(found, _outputs(
      jnp.concatenate(list(codes.values()), axis=-1)))


@pytest.mark.slow
def test_an_encoder_of_ones_own_sees_tokens():
  seen = []

  def apply(params, x):
    seen.append((x.dtype, x.shape))
    return jnp.take(params, jnp.maximum(x, 0), axis=0)

  model = Model(ml_vae(3, 2), (SIZE,), Categorical(5), encoder=(
      lambda key, x: jax.random.normal(key, (5, 4)), apply))
  tokens = np.random.default_rng(0).integers(-1, 5, (4, SIZE))
  assert reconstruct(model, model.init(KEY), tokens).shape == (4, SIZE, 5)
  assert {dtype for dtype, _ in seen} == {np.dtype(np.int32)}


@pytest.mark.slow
def test_a_given_factor_has_its_head_on_features_of_ones_own():
  model = Model((Factor('content', 3, 'group'),
                 Factor('style', 2, given=('content',))), (SIZE,), Gaussian(),
                encoder=Encoder())
  params, _ = fit(model, DATA, steps=2)
  assert posteriors(model, params, X)['style'].mean.shape == (24, 2)


@pytest.mark.parametrize('kwargs, message', [
    (dict(encoder=nn.Sequential([nn.Dense(4), nn.BatchNorm(False)])),
     'encoder keeps state .*batch_stats.*GroupNorm or nn.LayerNorm'),
    (dict(decoder=nn.Sequential([nn.BatchNorm(False), nn.Dense(SIZE)])),
     'decoder keeps state .*batch_stats'),
    (dict(encoder=nn.Dropout(0.5, deterministic=False)),
     'encoder draws random numbers, as dropout does'),
    (dict(decoder=nn.Dense(SIZE + 1)),
     r'decoder to return \[N, 1, 6\], \[N, 6\], with P = 1 '),
    (dict(encoder=nn.Dense), 'an instance and not a class'),
    (dict(encoder=lambda x: x), 'pair of pure functions'),
    (dict(encoder=(lambda key, x: {}, lambda _, x: (x, x))),
     'one array of floats, got tuple'),
    (dict(encoder=(lambda key, x: {}, lambda _, x: x > 0)),
     'one array of floats, got bool'),
    (dict(encoder=(lambda key, x: {}, lambda _, x: x.mean(0))),
     'one row of features per observation'),
    (dict(encoder=(_init_linear, _apply_linear)), 'pytree of arrays'),
])
def test_what_is_no_network_is_refused_at_once(kwargs, message):
  with pytest.raises(ValueError, match=message):
    _model(**kwargs)


@pytest.mark.slow
def test_a_registered_network_is_loaded_by_its_name(tmp_path, monkeypatch):
  monkeypatch.setattr(registry, 'NETWORKS', dict(registry.NETWORKS))
  model = _model(network=Linear((5,)))
  assert model.to_dict()['network']['name'] is None
  mlvae_jax.register_network('linear', Linear)
  mlvae_jax.register_network('linear', Linear)  # As when a module is reloaded.
  assert Model.from_dict(json.loads(json.dumps(model.to_dict()))) == model
  params, _ = fit(model, DATA, steps=2, workdir=tmp_path)
  found, loaded = load(tmp_path)
  assert found == model
  jax.tree.map(np.testing.assert_array_equal, loaded, params)
  with pytest.raises(ValueError, match='differs from .* in network'):
    load(tmp_path, model=_model(network=Linear((6,))))
  registry.NETWORKS.pop('linear')
  with pytest.raises(ValueError, match='register_network first'):
    load(tmp_path)


@pytest.mark.parametrize('name, cls, message', [
    ('mlp', Linear, 'is the name of MLP'),
    ('mine', nn.Dense, 'subclass of mlvae_jax.Network'),
    ('mine', Linear(), 'subclass of mlvae_jax.Network'),
    ('mine', MLP, 'registered under another name')])
def test_bad_registrations_are_refused(name, cls, message):
  with pytest.raises(ValueError, match=message):
    mlvae_jax.register_network(name, cls)
  assert 'mine' not in registry.NETWORKS


@dataclasses.dataclass(frozen=True)
class Flat(Network):
  """A network whose decoder gives `[N, size]`."""

  def encoder(self, num_outputs, observation_shape):
    return nn.Dense(4)

  def decoder(self, num_outputs, observation_shape):
    return nn.Dense(SIZE)


def test_outputs_of_another_network_are_checked():
  with pytest.raises(ValueError, match=r'outputs of \[N, 1, 6\] .* of Flat'):
    _model(network=Flat())


@pytest.mark.parametrize('encoder', [
    nn.Dense(8, param_dtype=jnp.bfloat16),
    (lambda key, x: {'w': jnp.ones((SIZE, 2)), 'n': jnp.int32(3)},
     lambda params, x: x @ params['w'])])
def test_parameters_of_another_type_are_refused(encoder):
  with pytest.raises(ValueError, match='parameters of float32 in the encoder'):
    _model(encoder=encoder)


@pytest.mark.parametrize('args, message', [
    ((6, Gaussian()), 'observation_shape to be a tuple'),
    (((6.5,), Gaussian()), 'observation_shape to be a tuple'),
    (((6,), Gaussian), r'likelihood .* such as mlvae_jax.Gaussian\(\)'),
    (((6,), 'gaussian'), 'likelihood'),
    (((6,), Gaussian(), MLP), r'network .* such as mlvae_jax.MLP\(\(64,\)\)'),
])
def test_parts_of_another_kind_are_refused(args, message):
  with pytest.raises(ValueError, match=message):
    Model(ml_vae(3, 2), *args)
