"""Every likelihood with every posterior: encoded, decoded and trained."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mlvae_jax
from mlvae_jax.data.feed import Feed
from mlvae_jax.data.grouped import GroupedData
from mlvae_jax.data.index_stream import IndexStream
from mlvae_jax.grouping.group_posteriors import GROUP_POSTERIORS
from mlvae_jax.model.factors import Batch, ml_vae
from mlvae_jax.model.likelihoods.categorical import Categorical
from mlvae_jax.model.likelihoods.gaussian import Gaussian
from mlvae_jax.model.model import Model
from mlvae_jax.model.networks.conv import Conv
from mlvae_jax.model.networks.mlp import MLP
from mlvae_jax.objective.elbo import elbo_terms, sum_terms
from mlvae_jax.training.evaluation import evaluate_elbo
from mlvae_jax.training.loop import make_chunk, train
from mlvae_jax.training.step import TrainConfig, init_state, train_step
from tests.helpers.observations import EXAMPLES, SIZE, observe

NUM_GROUPS = 4
IDS = np.array([0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 3, 3], np.int32)
MASK = np.arange(len(IDS)) != 4
CONFIG = TrainConfig(learning_rate=3e-3)
KEY = jax.random.key(1)
each_likelihood = pytest.mark.parametrize('name', EXAMPLES)
some_likelihoods = pytest.mark.parametrize(
    'name', ['gaussian', 'poisson', 'negative_binomial', 'categorical'])


def _model(name, posterior='product'):
  """A small model of vectors."""
  return Model(ml_vae(3, 2), (SIZE,), EXAMPLES[name], MLP((16,)),
               GROUP_POSTERIORS[posterior]())


def _batch(name, mask=MASK):
  return Batch(jnp.asarray(observe(name, IDS)), {'content': IDS}, mask,
               np.arange(len(IDS), dtype=np.int32))


@functools.partial(jax.jit, static_argnums=0)
def _step(model, state, batch):
  rows = None if model.has_encoder else {
      'content': jnp.arange(NUM_GROUPS), 'style': jnp.arange(len(IDS))}
  return train_step(model, CONFIG, {'content': NUM_GROUPS}, state, batch,
                    table_rows=rows)


@pytest.mark.slow
# Every likelihood learns; with the other posteriors, `test_every_combination`
# takes two steps.
@pytest.mark.parametrize('name, posterior', [
    *((name, 'product') for name in EXAMPLES),
    *(('gaussian', posterior) for posterior in GROUP_POSTERIORS
      if posterior != 'product')])
def test_it_trains(name, posterior):
  model, batch = _model(name, posterior), _batch(name)
  sizes = {'content': NUM_GROUPS, 'style': len(IDS)}
  state = init_state(model, CONFIG, None if model.has_encoder else sizes)
  start, elbos = jax.device_get(state), []
  for _ in range(60):
    state, metrics = _step(model, state, batch)
    elbos.append(float(metrics.sums.elbo()))
  assert np.all(np.isfinite(elbos)) and np.isfinite(metrics.grad_norm)
  assert np.mean(elbos[-10:]) > np.mean(elbos[:10])
  assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))
  moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), start.params,
                       state.params)
  assert all(jax.tree.leaves(moved)), moved


@pytest.mark.slow
@some_likelihoods
def test_a_masked_row_may_hold_anything(name):
  model, batch = _model(name), _batch(name)
  params = model.init(jax.random.key(0))
  anything = np.array(batch.x)
  anything[4] = np.nan if anything.dtype == np.float32 else anything[0]
  found = [jax.jit(jax.value_and_grad(
      lambda params, x: sum_terms(elbo_terms(
          model, params, KEY, batch._replace(x=x),
          {'content': NUM_GROUPS})).elbo()))(params, x)
           for x in (batch.x, jnp.asarray(anything))]
  for a, b in zip(*map(jax.tree.leaves, found)):
    np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@each_likelihood
def test_codes_and_observations_have_their_shapes(name):
  model, x = _model(name), observe(name, IDS)
  params, likelihood = model.init(jax.random.key(0)), model.likelihood
  codes = mlvae_jax.infer(model, params, x, IDS, NUM_GROUPS, mask=MASK)
  assert {n: c.shape for n, c in codes.items()} == {
      'content': (12, 3), 'style': (12, 2)}
  mean = mlvae_jax.decode(model, params, codes)
  prepared = model.prepare(x)
  assert mean.shape == likelihood.as_mean(prepared).shape
  assert likelihood.shown(mean).shape == x.shape
  assert likelihood.sample(
      KEY, model.decode(params, codes)).dtype == likelihood.dtype
  grid = mlvae_jax.swap(model, params, codes, codes)
  assert grid.shape == (12, 12, *mean.shape[1:])
  q = mlvae_jax.encode_group(model, params, x.tolist(), IDS, NUM_GROUPS)
  assert np.all(np.isfinite(q.mean)) and q.mean.shape == (4, 3)
  none = mlvae_jax.reconstruct(model, params, x[:0])
  assert none.shape == (0, *mean.shape[1:])


@some_likelihoods
def test_it_computes_in_bfloat16(name):
  model, batch = _model(name), _batch(name)
  params = model.init(jax.random.key(0))
  high, low = (
      sum_terms(elbo_terms(m, params, KEY, batch, {'content': NUM_GROUPS}))
      for m in (model, dataclasses.replace(model, dtype='bfloat16')))
  assert low.log_lik.dtype == np.float32
  np.testing.assert_allclose(low.log_lik, high.log_lik, rtol=0.05)


@each_likelihood
def test_it_survives_json(name):
  model = _model(name)
  again = Model.from_dict(json.loads(json.dumps(model.to_dict())))
  assert again == model and hash(again) == hash(model)


@pytest.mark.parametrize('dtype', [np.int64, np.uint64])
def test_large_integers_do_not_wrap_around(dtype):
  x = np.full((1, SIZE), 2 ** 32 + 1, dtype)
  np.testing.assert_allclose(_model('poisson').prepare(x), 2.0 ** 32)
  with pytest.raises(ValueError, match='expected integers, got float32'):
    _model('categorical').prepare(x)


@pytest.mark.slow
def test_images_of_tokens_go_through_convolutions():
  model = Model(ml_vae(3, 2), (8, 8, 2), Categorical(5), Conv((4,), (8,)))
  params = model.init(jax.random.key(0))
  x = np.random.default_rng(0).integers(-1, 5, (3, 8, 8, 2))
  assert mlvae_jax.reconstruct(model, params, x).shape == (3, 8, 8, 2, 5)
  found = elbo_terms(model, params, KEY, Batch(
      x, {'content': np.zeros(3, np.int32)}, np.ones(3, bool), np.arange(3)),
      {'content': 1})
  assert np.all(np.isfinite(found.log_lik))


@pytest.mark.slow
@pytest.mark.parametrize('on_device', [True, False])
@pytest.mark.parametrize('name', ['categorical', 'negative_binomial'])
def test_integers_go_through_a_feed(name, on_device):
  model = _model(name)
  data = GroupedData.from_labels(observe(name, IDS), IDS)
  stream = IndexStream(data, ('group',), groups_per_batch=4, max_group_size=3,
                       row_multiple=jax.local_device_count())
  feed = Feed(model, data, stream, on_device=on_device)
  (state, metrics), = train(
      init_state(model, CONFIG), feed,
      make_chunk(model, CONFIG, feed.num_groups), num_steps=2, chunk_steps=2)
  assert np.all(np.isfinite(metrics.grad_norm))
  found = evaluate_elbo(model, jax.device_get(state.params), feed)
  assert np.isfinite(found['elbo'])


@pytest.mark.slow
def test_a_learned_variance_finds_that_of_the_noise():
  rng = np.random.default_rng(0)
  ids = np.repeat(np.arange(32), 8).astype(np.int32)
  centres = rng.normal(size=(32, 3)) @ rng.normal(size=(3, 12))
  x = (centres[ids] + 0.4 * rng.normal(size=(256, 12))).astype(np.float32)
  model = Model(ml_vae(3, 1), (12,), Gaussian(1.0, learn=True), MLP((32,)))
  config = TrainConfig(learning_rate=5e-3)
  batch = Batch(x, {'content': ids}, np.ones(256, bool), np.arange(256))

  @jax.jit
  def steps(state):
    return jax.lax.scan(
        lambda state, _: (train_step(
            model, config, {'content': 32}, state, batch)[0], None),
        state, length=1500)[0]

  state = steps(init_state(model, config))
  sigma = np.exp(0.5 * np.asarray(state.params['shared']))
  np.testing.assert_allclose(sigma, 0.4, rtol=0.1)
