"""A group's members in a batch are a piece: the bound it gives, and its cost.

The model can be solved exactly: x = a w_1 + b w_2 + s w_3 + 1/2 + noise with
orthogonal w, so that the posterior of every group of both groupings is a
Normal of its own. Members of precision p each give a group of n a precision
n p; the exact one is 1 + n beta.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlvae_jax.data.index_stream import IndexStream
from mlvae_jax.model.factors import Batch, Factor
from mlvae_jax.model.likelihoods.gaussian import Gaussian
from mlvae_jax.model.model import Model
from mlvae_jax.model.networks.mlp import MLP
from mlvae_jax.objective.elbo import elbo_terms, sum_terms
from tests.helpers.groups import labelled_rows

_SIGMA = 0.3
_W = 0.15 * np.array([
    [1.0, 1.0, 1.0, 1.0], [1.0, -1.0, 1.0, -1.0], [1.0, 1.0, -1.0, -1.0]])
_BETA = np.square(_W[0]).sum() / _SIGMA ** 2  # What an image says of a code.
_DRAWS = 1000


def _model(order):
  return Model((*(Factor(name, 1, name) for name in order), Factor('s', 1)),
               (2, 2, 1), Gaussian(_SIGMA), MLP(()))


def _params(precisions):
  """Encoder and decoder with these precisions of single images' codes."""
  precision = np.array([*precisions, 1.0 + _BETA])
  kernel = _W.T / _SIGMA ** 2 / precision
  heads, bias = np.zeros((4, 6)), np.zeros(6)
  heads[:, ::2], bias[::2] = kernel, -0.5 * kernel.sum(axis=0)
  bias[1::2] = -np.log(precision)
  return jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), {
      'encoder': {'heads': {'kernel': heads, 'bias': bias}},
      'decoder': {'pixels': {'kernel': _W, 'bias': np.full(4, 0.5)}}})


def _images(labels):
  """Images `[N, 2, 2, 1]` of the model, near enough to 1/2 to be images."""
  rng = np.random.default_rng(3)
  codes = [rng.normal(size=ids.max() + 1)[ids] for ids in labels.values()]
  codes.append(rng.normal(size=len(codes[0])))
  x = 0.5 + np.stack(codes, axis=1) @ _W
  x += 0.2 * _SIGMA * rng.normal(size=x.shape)
  return np.clip(x, 0, 1).reshape(-1, 2, 2, 1).astype(np.float32)


def _log_evidence(x, ids):
  """log p of images where these are their groups: one Normal of all pixels."""
  residual = x.reshape(-1).astype(float) - 0.5
  same = [i[:, None] == i for i in (*ids, np.arange(len(x)))]
  covariance = _SIGMA ** 2 * np.eye(len(residual)) + sum(
      np.kron(pairs, np.outer(w, w)) for pairs, w in zip(same, _W))
  _, logdet = np.linalg.slogdet(2 * np.pi * covariance)
  return -0.5 * (logdet + residual @ np.linalg.solve(covariance, residual))


@functools.partial(jax.jit, static_argnums=0)
def _elbos(model, params, batch, seed):
  """Estimates of a batch's ELBO, and the KLs `[G]` that it paid."""
  num_rows = batch.mask.shape[0]
  sizes = {f.name: num_rows for f in model.grouped}

  def one(key):
    terms = elbo_terms(model, params, key, batch, sizes)
    return sum_terms(terms).elbo(), terms.kl

  return jax.vmap(one)(jax.random.split(jax.random.key(seed), _DRAWS))


def _batches(labels, num_steps=None, **settings):
  """Batches of a stream; x is that of the model."""
  stream = IndexStream(labelled_rows(labels), tuple(labels), **settings)
  index = stream.batches(0, num_steps or stream.steps_per_epoch)
  assert index.kl_share == {}
  images = _images(labels)
  for i in range(len(index.rows)):
    yield Batch(images[index.rows[i]],
                {name: ids[i] for name, ids in index.group_ids.items()},
                index.mask[i], np.arange(len(index.rows[i])))


def _gap(labels, precisions, **settings):
  """ELBO less log p over all batches, and its standard error."""
  model, params = _model(labels), _params(precisions)
  gaps, variances = [], []
  for seed, batch in enumerate(_batches(labels, **settings)):
    elbo, _ = _elbos(model, params, batch, seed)
    ids = [batch.group_ids[name][batch.mask] for name in labels]
    gaps.append(np.mean(elbo) - _log_evidence(batch.x[batch.mask], ids))
    variances.append(np.var(elbo) / _DRAWS)
  return sum(gaps), np.sqrt(sum(variances))


_GRID = {'a': np.arange(16) // 4, 'b': np.arange(16) % 4}
_LAMP = {'a': np.arange(16), 'b': np.zeros(16, int)}  # Of all 16 images.
_UNEVEN = {'a': np.repeat(np.arange(4), (1, 2, 5, 8)), 'b': np.arange(16) % 3}
_WHOLE = {'groups_per_batch': 32}
_ROW_BY_ROW = {'groups_per_batch': 1, 'max_group_size': 1, 'shuffle': False}
_CUT = {'groups_per_batch': 4, 'max_group_size': 2, 'num_steps': 10}


def _turned(labels):
  return dict(reversed(labels.items()))


@pytest.mark.parametrize('labels', [_GRID, _LAMP, _UNEVEN])
@pytest.mark.parametrize('turn', [dict, _turned])
@pytest.mark.parametrize('settings', [_WHOLE, _ROW_BY_ROW, _CUT])
def test_the_elbo_of_a_batch_is_at_most_log_p(labels, turn, settings):
  for scale in (0.3, 1.5), (2.0, 11.7), (11.7, 2.0):
    gap, error = _gap(turn(labels), np.array(scale) * _BETA, **settings)
    assert gap < 4 * error, scale


# Labels, settings, and how many members the pieces of each grouping have.
_EVEN = [(_GRID, _WHOLE, (4, 4)), (_LAMP, _WHOLE, (1, 16)),
         (_GRID, _ROW_BY_ROW, (1, 1)), (_LAMP, _ROW_BY_ROW, (1, 1))]


@pytest.mark.parametrize('turn', [lambda v: v, reversed])
@pytest.mark.parametrize('labels, settings, sizes', _EVEN)
def test_it_is_log_p_at_the_exact_posterior(labels, settings, sizes, turn):
  labels, sizes = dict(turn(list(labels.items()))), list(turn(sizes))
  gap, error = _gap(labels, _BETA + 1 / np.array(sizes), **settings)
  assert abs(gap) < 4 * error


@pytest.mark.slow
@pytest.mark.parametrize('turn', [lambda v: v, reversed])
@pytest.mark.parametrize('labels, settings, sizes', _EVEN)
def test_training_finds_the_exact_precision(labels, settings, sizes, turn):
  """What an encoder would be trained to is within 5 % of the exact one."""
  labels, sizes = dict(turn(list(labels.items()))), list(turn(sizes))
  model, batches = _model(labels), list(_batches(labels, **settings))
  batches = jax.tree.map(lambda *values: np.stack(values), *batches)

  def loss(log_precision):
    # The evidence of an image stays, eta; its precision moves.
    params = _params(np.ones(2))
    heads, scale = params['encoder']['heads'], jnp.exp(-log_precision)
    kernel, bias = heads['kernel'], heads['bias']
    for i in (0, 1):
      kernel = kernel.at[:, 2 * i].multiply(scale[i])
      bias = bias.at[2 * i].multiply(scale[i])
      bias = bias.at[2 * i + 1].set(-log_precision[i])
    params['encoder']['heads'] = {'kernel': kernel, 'bias': bias}
    elbo, _ = jax.vmap(functools.partial(_elbos, model, params))(
        batches, jnp.arange(len(batches.mask)))
    return -jnp.mean(jnp.sum(elbo, axis=0))

  slope = jax.jit(jax.grad(loss))
  exact = np.log(_BETA + 1 / np.array(sizes))
  # Downhill on either side of the exact one, in each coordinate alone.
  for i in (0, 1):
    for side in (-1, 1):
      at = exact + side * np.log(1.05) * (np.arange(2) == i)
      assert side * slope(jnp.asarray(at, jnp.float32))[i] > 0, (i, side)


@pytest.mark.parametrize('settings', [_WHOLE, _ROW_BY_ROW, _CUT])
def test_equal_groupings_differ_in_their_names_only(settings):
  ids = _UNEVEN['a']
  found = []
  for names in ('ab', 'ba'):
    model = _model(names)
    params = _params([2.0, 2.0])
    heads = params['encoder']['heads']  # Of both factors those of the first.
    params['encoder']['heads'] = jax.tree.map(
        lambda v: v[..., np.array([0, 1, 0, 1, 4, 5])], heads)
    labels = dict.fromkeys(names, ids)
    found.append([_elbos(model, params, batch, 0)
                  for batch in _batches(labels, **settings)])
  for (elbo, kl), (other, other_kl) in zip(*found, strict=True):
    np.testing.assert_array_equal(elbo, other)
    np.testing.assert_array_equal(kl['a'], other_kl['b'])
    np.testing.assert_array_equal(kl['b'], other_kl['a'])
    # Both say the same of the same pieces, and neither is cheaper.
    np.testing.assert_array_equal(kl['a'], kl['b'])
