"""The ELBO of many images, and its averages."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlvae_jax.data.feed import Feed
from mlvae_jax.data.grouped import GroupedData
from mlvae_jax.data.index_stream import IndexStream
from mlvae_jax.model.factors import Batch, vae
from mlvae_jax.model.model import Model
from mlvae_jax.model.networks.mlp import MLP
from mlvae_jax.objective.elbo import ElboTerms, elbo_terms, sum_terms
from mlvae_jax.training import evaluation
from tests.helpers import small_models

MODEL = small_models.MODEL
PARAMS = small_models.init_params(MODEL)
SIZES = [3, 9, 1, 14, 8, 5]
DATA = GroupedData(
    np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), np.uint8),
    np.concatenate([[0], np.cumsum(SIZES)]), tuple('abcdef'))


def _feed(model=MODEL, on_device=True, **arguments):
  """All the images, in batches of a few groups."""
  return Feed(model, DATA, IndexStream(DATA, ('group',), shuffle=False, **{
      'groups_per_batch': 4, 'max_group_size': 4,
      'row_multiple': jax.local_device_count(), **arguments}),
      on_device=on_device)


def _blind_params(model):
  """Parameters whose decoder ignores the codes, so that noise is nothing."""
  params = small_models.init_params(model)
  return {'encoder': params['encoder'],
          'decoder': jax.tree.map(jnp.zeros_like, params['decoder'])}


@pytest.mark.slow
@pytest.mark.parametrize('model, on_device', [
    (MODEL, True), (MODEL, False),
    (Model(vae(4), (8, 8, 1), network=MLP((16,))), True)])
def test_evaluation_sees_every_image_once(model, on_device):
  params = _blind_params(model)
  feed = _feed(model, on_device, max_group_size=None, groups_per_batch=2)
  found = evaluation.evaluate_elbo(model, params, feed)
  everything = Batch(
      DATA.x, {f.name: DATA.labels for f in model.grouped},
      np.ones(len(DATA), bool), np.arange(len(DATA)))
  num_groups = {f.name: 6 for f in model.grouped}
  sums = jax.jit(lambda params: sum_terms(elbo_terms(
      model, params, jax.random.key(0), everything, num_groups)))(params)
  expected = evaluation.summarize(jax.device_get(sums))
  jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-5),
      found, expected)
  assert (sums.num_rows, sums.num_groups) == (
      len(DATA), 6 if model.grouped else len(DATA))


def test_evaluation_is_a_function_of_its_seed(compilations):
  params = PARAMS
  feed = _feed()
  run = functools.partial(evaluation.evaluate_elbo, MODEL, params, feed)
  first = run(seed=0)
  with compilations() as names:
    assert run(seed=0) == first
    other = run(seed=1)
  assert not names
  assert other['log_lik'] != first['log_lik'] and other['kl'] == first['kl']


def test_evaluation_in_parts_gives_the_same(monkeypatch):
  params, feed = PARAMS, _feed()
  whole = evaluation.evaluate_elbo(MODEL, params, feed)
  assert feed.stream.steps_per_epoch % 2 == 0  # Parts of one shape.
  monkeypatch.setattr(evaluation, '_EVAL_STEPS', 2)
  parts = evaluation.evaluate_elbo(MODEL, params, feed)
  jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-5), parts, whole)


def test_evaluation_of_a_part_takes_the_first_images():
  params, feed = PARAMS, _feed()
  evaluate = evaluation._program(
      MODEL, tuple(feed.num_groups.items()), feed.devices)
  rows = feed.stream.rows_per_batch
  run = functools.partial(evaluation.evaluate_elbo, MODEL, params, feed)
  first = evaluation.summarize(jax.device_get(evaluate(
      params, jax.random.key(0), 0, *feed.chunk(0, 2))))
  assert feed.stream.steps_per_epoch > 2
  assert run(max_images=rows + 1) == first
  assert run(max_images=10 ** 6) == run() != first


@pytest.mark.parametrize('asarray', [np.asarray, jnp.asarray])
def test_summary_averages_over_groups_and_images(asarray):
  sums = ElboTerms(
      np.array([-10.0, -20.0], np.float32),
      {'content': np.array([1.0, 2.0], np.float32)},
      np.array([1.0, 2.0], np.float32), np.array([4.0, 7.0], np.float32),
      {})
  assert evaluation.summarize(jax.tree.map(asarray, sums)) == {
      'elbo': -11.0, 'elbo_per_image': -3.0, 'log_lik': -10.0,
      'kl': {'content': 1.0}}


def test_summary_has_the_penalties_per_image():
  ones = np.ones(2, np.float32)
  sums = ElboTerms(
      -ones, {'content': ones, 'style': ones}, 2 * ones, 5 * ones,
      {'contrast/content': np.array([4.0, 16.0], np.float32),
       'leakage/style': np.array([-1.0, 6.0], np.float32),
       'mean_leakage/style': np.array([5.0, 0.0], np.float32)})
  found = evaluation.summarize(sums)
  assert found['penalties'] == {
      'contrast/content': 2.0, 'leakage/style': 0.5, 'mean_leakage/style': 0.5}
  # They are no part of the ELBO.
  without = evaluation.summarize(sums._replace(penalties={}))
  assert found == without | {'penalties': found['penalties']}
