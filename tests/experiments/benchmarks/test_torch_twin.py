"""The PyTorch twin is the same function as the model, and trains the same."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import training
from mlvae_jax.grouping import posterior
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.grouping.product import product_of_normals
from mlvae_jax.model.factors import Batch, Factor, ml_vae
from mlvae_jax.model.likelihoods.bernoulli import Bernoulli
from mlvae_jax.model.likelihoods.gaussian import Gaussian, LearnedGaussian
from mlvae_jax.model.model import Model
from mlvae_jax.model.networks.conv import Conv
from mlvae_jax.model.networks.mlp import MLP
from mlvae_jax.objective.elbo import elbo_terms, sum_terms
from mlvae_jax.training.loop import make_chunk, train
from mlvae_jax.training.step import TrainConfig, init_state

# Sides and channels that differ, for a layout that is mixed up to show.
_MODELS = {
    'conv': Model(
        ml_vae(3, 2), (8, 4, 3), Gaussian(0.15), Conv((5, 4), (6,))),
    'conv of two outputs': Model(
        (Factor('style', 2), Factor('content', 3, 'group')), (4, 6, 2),
        LearnedGaussian(), Conv((4,), (8, 5))),
    'mlp': Model(
        ml_vae(3, 2), (4, 6, 3), LearnedGaussian(), MLP((16, 8))),
}
_IDS = np.array([2, 0, 1, 1, 0, 2, 2], np.int32)
_NUM_GROUPS = 3

each_model = pytest.mark.parametrize('name', list(_MODELS))


@pytest.fixture(scope='module')
def torch_twin():
  """The module that needs PyTorch."""
  pytest.importorskip(
      'torch', reason='PyTorch is not installed; it is optional')
  from experiments.benchmarks import torch_twin
  return torch_twin


def _params(model):
  """Random parameters, biases among them."""
  rng = np.random.default_rng(1)
  return jax.tree.map(
      lambda p: np.float32(0.2 * rng.normal(size=p.shape)),
      jax.eval_shape(model.init, jax.random.key(0)))


def _images(model):
  return np.random.default_rng(0).integers(
      0, 256, (len(_IDS), *model.observation_shape), np.uint8)


def _tensor(torch_twin, value):
  return torch_twin.torch.tensor(np.asarray(value))


def _assert_close(found, expected):
  # Sums in another order, of numbers whose scale the largest one tells.
  expected = np.asarray(expected)
  np.testing.assert_allclose(
      found.detach().numpy(), expected, rtol=1e-5,
      atol=1e-5 * np.abs(expected).max())


@each_model
def test_the_twin_encodes_and_decodes_the_same(torch_twin, name):
  model, params = _MODELS[name], _params(_MODELS[name])
  images = _images(model)
  twin = torch_twin.Twin(model, params)
  x = torch_twin.prepare(_tensor(torch_twin, images))

  @jax.jit
  def ours(params, images):
    q = model.encode(params, images)
    logits = model.decode(params, {key: q[key].mean for key in q})
    return q, logits, model.likelihood.log_prob(
        logits, model.prepare(images))

  expected, logits, log_prob = ours(params, images)
  found = twin.encode(x)
  assert set(found) == set(expected)
  for factor, q in expected.items():
    for our, their in zip(q, found[factor]):
      _assert_close(their, our)
  found = twin.decode({key: mean for key, (mean, _) in found.items()})
  _assert_close(found.movedim(2, -1), logits)
  _assert_close(twin.log_prob(found, x), log_prob)


@pytest.mark.slow
@each_model
def test_the_twin_computes_in_bfloat16_as_well(torch_twin, name):
  params = _params(_MODELS[name])
  model = dataclasses.replace(_MODELS[name], dtype='bfloat16')
  x = torch_twin.prepare(_tensor(torch_twin, _images(model)))
  twins = [torch_twin.Twin(m, params) for m in (_MODELS[name], model)]
  exact, low = (
      twin.decode({key: mean for key, (mean, _) in twin.encode(x).items()}
                  ).detach() for twin in twins)
  assert low.dtype == torch_twin.torch.float32
  # Eight bits: other numbers, and not far off.
  difference = (low - exact).abs().max() / exact.abs().max()
  assert 1e-4 < difference < 0.05
  expected = model.decode(params, {
      key: q.mean for key, q in model.encode(params, _images(model)).items()})
  np.testing.assert_allclose(
      low.movedim(2, -1).numpy(), expected, rtol=0,
      atol=0.05 * float(exact.abs().max()))


def _zero_noise(monkeypatch):
  monkeypatch.setattr(
      posterior, 'row_noise', lambda key, rows, dim: jnp.zeros(
          (len(rows), dim)))


@each_model
def test_the_twin_has_the_same_elbo_and_gradient(
    torch_twin, name, monkeypatch):
  _zero_noise(monkeypatch)
  model, params = _MODELS[name], _params(_MODELS[name])
  images = _images(model)
  batch = Batch(images, {'content': _IDS}, np.ones(len(_IDS), bool),
                np.arange(len(_IDS)))

  def elbo(params):
    return sum_terms(elbo_terms(
        model, params, jax.random.key(0), batch,
        {'content': _NUM_GROUPS})).elbo()

  expected, gradient = jax.jit(jax.value_and_grad(elbo))(params)
  twin = torch_twin.Twin(model, params)
  found = twin.elbo(
      torch_twin.prepare(_tensor(torch_twin, images)),
      _tensor(torch_twin, _IDS).long(), _NUM_GROUPS,
      torch_twin.torch.zeros_like)
  _assert_close(found, expected)
  found.backward()
  # A twin of the gradient has its numbers where the twin's own are.
  of_gradient = dict(torch_twin.Twin(model, gradient).named_parameters())
  assert of_gradient
  for key, parameter in twin.named_parameters():
    _assert_close(parameter.grad, of_gradient[key].detach().numpy())


@pytest.mark.slow
def test_the_twin_trains_the_same(torch_twin, monkeypatch):
  _zero_noise(monkeypatch)
  monkeypatch.setattr(
      torch_twin.Twin.elbo, '__defaults__', (torch_twin.torch.zeros_like,))
  model = _MODELS['mlp']
  data = training.noise_images(6, 4, model)
  feed = training.make_feed(model, data, 3)
  config = TrainConfig(learning_rate=1e-2)
  state = init_state(model, config)
  twin = torch_twin.Twin(model, state.params)
  trainer = torch_twin.Trainer(twin, data.x, feed.stream, 1e-2)
  chunk = make_chunk(model, config, feed.num_groups)
  *_, (_, metrics) = train(
      state, feed, chunk, num_steps=4, chunk_steps=2)
  trainer.chunk(0, 2)
  # Four steps of Adam amplify rounding.
  np.testing.assert_allclose(
      trainer.chunk(2, 4),
      metrics.sums.elbo()[-1] / metrics.sums.num_groups[-1], rtol=1e-4)


@pytest.mark.parametrize('function', [
    'product_of_normals', 'product_of_normals_in_loop'])
def test_the_twin_multiplies_the_same_normals(torch_twin, function):
  rng = np.random.default_rng(3)
  q = Normal(*rng.normal(size=(2, len(_IDS), 4)).astype(np.float32))
  expected = product_of_normals(q, _IDS, _NUM_GROUPS)
  found = getattr(torch_twin, function)(
      tuple(_tensor(torch_twin, value) for value in q),
      _tensor(torch_twin, _IDS).long(), _NUM_GROUPS)
  for theirs, ours in zip(found, expected):
    _assert_close(theirs, ours)


@pytest.mark.parametrize('likelihood, network', [
    (Bernoulli(), Conv((4,))),
    (Gaussian(), Conv((4,), activation='relu')),
    (Gaussian(), Conv((4,), norm_groups=2)),
])
def test_a_model_without_a_twin_is_refused(torch_twin, likelihood, network):
  model = Model(ml_vae(3, 2), (8, 8, 1), likelihood, network)
  with pytest.raises(ValueError, match='no twin of'):
    torch_twin.Twin(model, {})
