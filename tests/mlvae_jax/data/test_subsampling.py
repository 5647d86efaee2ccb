"""Groups that are cut: the paper's estimate has a bias, the other has none.

The model can be solved exactly: x = W'z + 1/2 + noise with orthogonal rows of
W, so that every posterior is a diagonal Normal.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlvae_jax.data.index_stream import IndexStream
from mlvae_jax.grouping.normal import Normal, kl_divergence
from mlvae_jax.model.factors import Batch, ml_vae
from mlvae_jax.model.likelihoods.gaussian import Gaussian
from mlvae_jax.model.model import Model
from mlvae_jax.model.networks.mlp import MLP
from mlvae_jax.objective.elbo import elbo_terms, sum_terms
from tests.helpers.groups import labelled_rows, sorted_groups

_SIGMA, _SIZE, _MAX = 0.3, 8, 4  # Groups of 8 images, of which 4 are visited.
_MODEL = Model(ml_vae(1, 1), (2, 2, 1), Gaussian(_SIGMA), MLP(()))
_W = 0.15 * np.array([[1.0, 1.0, 1.0, 1.0], [1.0, -1.0, 1.0, -1.0]])
_A = np.square(_W).sum(axis=1) / _SIGMA ** 2  # What an image says of c, s.
# Content of 2 images, a subset's, has the exact posterior given these.
_PRECISION = _A + np.array([0.5, 1.0])
_STEPS = 4000


def _stream(sizes, **settings):
  """A stream over groups of these sizes."""
  return IndexStream(sorted_groups(sizes), ('group',), **settings)


def _params():
  kernel = _W.T / _SIGMA ** 2 / _PRECISION
  bias = -0.5 * kernel.sum(axis=0)
  heads = np.zeros((4, 4))
  heads[:, [0, 2]] = kernel
  return jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), {
      'encoder': {'heads': {'kernel': heads, 'bias': np.array([
          bias[0], -np.log(_PRECISION[0]), bias[1], -np.log(_PRECISION[1])])}},
      'decoder': {'pixels': {'kernel': _W, 'bias': np.full(4, 0.5)}}})


def _images():
  """One group `[8, 2, 2, 1]`, inside [0, 1] so that nothing is cut."""
  rng = np.random.default_rng(5)
  z = np.stack([np.full(_SIZE, 1.3), rng.normal(size=_SIZE)], axis=1)
  x = 0.5 + z @ _W + 0.05 * rng.normal(size=(_SIZE, 4))
  return np.clip(x, 0, 1).reshape(_SIZE, 2, 2, 1).astype(np.float32)


def _log_evidence(x):
  """log p of a whole group: a Normal over all its pixels."""
  n = len(x)
  content = np.kron(np.ones((n, n)), np.outer(_W[0], _W[0]))
  style = np.kron(np.eye(n), np.outer(_W[1], _W[1]))
  covariance = content + style + _SIGMA ** 2 * np.eye(4 * n)
  residual = x.reshape(-1).astype(float) - 0.5
  _, logdet = np.linalg.slogdet(2 * np.pi * covariance)
  return -0.5 * (logdet + residual @ np.linalg.solve(covariance, residual))


def _bound(x, subset):
  """E log p(X_G, c, s) - log q with q(c) made of the subset: exact."""
  n = len(x)
  flat = x.reshape(n, 4).astype(float) - 0.5
  evidence = flat @ _W.T / _SIGMA ** 2
  q_precision = len(subset) * _PRECISION[0]
  exact_precision = 1.0 + n * _A[0]
  q = Normal(np.array([evidence[subset, 0].sum() / q_precision]),
             -np.log([q_precision]))
  exact = Normal(np.array([evidence[:, 0].sum() / exact_precision]),
                 -np.log([exact_precision]))
  # The styles' posteriors are exact, so that the content's gap is all.
  return _log_evidence(x) - float(kl_divergence(q, exact))


def _estimates(**settings):
  """The ELBO of the group as the stream's batches estimate it."""
  images = _images()
  stream = _stream([_SIZE], groups_per_batch=1, max_group_size=_MAX,
                   **settings)
  index = stream.batches(0, _STEPS)
  keys = jax.random.split(jax.random.key(0), _STEPS)
  params = _params()

  def one(key, index):
    batch = Batch(
        images[index.rows], {'content': index.group_ids['group']}, index.mask,
        jnp.arange(stream.rows_per_batch),
        {'content': index.evidence['group']} if index.evidence else None,
        index.weights)
    sums = sum_terms(elbo_terms(_MODEL, params, key, batch, {'content': 1}))
    return sums.elbo(), sums.num_rows

  images = jnp.asarray(images)
  return map(np.asarray, jax.jit(jax.vmap(one))(keys, index))


def _expected(subset_size):
  return np.mean([
      _bound(_images(), list(subset))
      for subset in itertools.combinations(range(_SIZE), subset_size)])


@pytest.mark.slow
def test_the_unbiased_estimate_is_the_bound_of_the_whole_group():
  elbo, num_rows = _estimates(visit='groups', subsampling='unbiased')
  np.testing.assert_allclose(num_rows, _SIZE, rtol=1e-5)
  error = elbo.std() / np.sqrt(_STEPS)
  assert abs(elbo.mean() - _expected(2)) < 4 * error
  assert elbo.mean() - 4 * error < _log_evidence(_images())


@pytest.mark.slow
def test_the_papers_estimate_is_biased():
  elbo, num_rows = _estimates(visit='groups')
  np.testing.assert_array_equal(num_rows, _MAX)
  # Scaled up from 4 images to 8, it pays the content's KL twice.
  elbo = elbo * _SIZE / _MAX
  error = elbo.std() / np.sqrt(_STEPS)
  assert abs(elbo.mean() - _expected(_MAX)) > 20 * error


def test_whole_groups_are_whole_either_way():
  stream = _stream([3, 2], groups_per_batch=2, max_group_size=4,
                   visit='groups', subsampling='unbiased')
  batch = stream.batch(0)
  assert batch.evidence['group'][batch.mask].all()
  np.testing.assert_array_equal(batch.weights[batch.mask], 1)
  assert sorted(batch.rows[batch.mask]) == [0, 1, 2, 3, 4]


def test_halves_are_independent_and_weighted():
  stream = _stream([10, 7], groups_per_batch=2, max_group_size=5,
                   visit='groups', subsampling='unbiased', seed=3)
  overlap = 0
  for step in range(50):
    batch = stream.batch(step)
    for slot, group in enumerate(batch.groups['group']):
      here = batch.mask & (batch.group_ids['group'] == slot)
      size = (10, 7)[group]
      assert batch.evidence['group'][here].sum() == 3
      np.testing.assert_allclose(batch.weights[here].sum(), size)
      assert np.all((batch.rows[here] < 10) == (group == 0))
      assert len(set(batch.rows[here])) == here.sum()
      overlap += (batch.evidence['group'] & (batch.weights > 0))[here].sum()
    assert not batch.evidence['group'][~batch.mask].any()
  assert 30 < overlap < 120  # Expected 50 (3 * 2 / 10 + 3 * 2 / 7) = 73.


def test_batches_are_functions_of_seed_and_step():
  streams = [_stream([30, 10], groups_per_batch=2, max_group_size=6,
                     visit='groups', subsampling='unbiased', seed=seed)
             for seed in (1, 1, 2)]
  first, again, other = (stream.batches(3, 6) for stream in streams)
  jax.tree.map(np.testing.assert_array_equal, first, again)
  assert not np.array_equal(first.rows, other.rows)
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[1], b),
               first, streams[0].batch(4))


@pytest.mark.parametrize('settings', [
    {'visit': 'images'}, {'visit': 'groups', 'max_group_size': 1},
    {'visit': 'groups', 'subsampling': 'random'}])
def test_settings_that_make_no_sense_are_refused(settings):
  with pytest.raises(ValueError, match='subsampling'):
    _stream([5], groups_per_batch=1, **{
        'subsampling': 'unbiased', 'max_group_size': 3, **settings})


def test_groups_may_have_their_rows_anywhere():
  ids = np.array([1, 0, 0, 1, 1, 0, -1, 1, 0, 1, 0, 1])
  stream = IndexStream(
      labelled_rows({'light': ids}), ('light',), groups_per_batch=3,
      max_group_size=4, visit='groups', subsampling='unbiased', seed=1)
  for step in range(20):
    batch = stream.batch(step)
    here = batch.mask
    real = ids[batch.rows[here]]
    for group, size in ((0, 5), (1, 6), (-1, 1)):
      assert batch.weights[here][real == group].sum() == size
      evidence = batch.evidence['light'][here]
      assert evidence[real == group].sum() == min(size, 2)
    assert len(set(batch.rows[here])) == here.sum()


def test_several_groupings_are_refused():
  data = labelled_rows({'a': np.arange(4) % 2, 'b': np.arange(4) // 2})
  with pytest.raises(ValueError, match='only one grouping'):
    IndexStream(data, ('a', 'b'), groups_per_batch=2, max_group_size=2,
                visit='groups', subsampling='unbiased')
