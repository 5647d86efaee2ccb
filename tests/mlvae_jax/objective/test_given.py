"""Factors that are given others: an exact model, codes, layouts, bad input.

x = W'z + 1/2 + noise, where the rows of W are not orthogonal. Then the exact
posterior of a style depends on its content: q(s | x) has a gap, q(s | x, c)
has none.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlvae_jax.grouping.free import Free
from mlvae_jax.grouping.mixture import Mixture
from mlvae_jax.inference.encode import encode_group, infer, posteriors
from mlvae_jax.inference.latents import reconstruct, swap
from mlvae_jax.model.factors import Batch, Factor, ml_vae, parse_factors
from mlvae_jax.model.likelihoods.gaussian import Gaussian
from mlvae_jax.model.model import Model
from mlvae_jax.model.networks.mlp import MLP
from mlvae_jax.objective.elbo import elbo_terms, sum_terms
from mlvae_jax.objective.penalties.registry import Penalty
from tests.helpers.small_models import init_params, penalised_terms

_SIZE, _SIGMA = 6, 0.4
_FACTORS = parse_factors('content:1:group,style:1|content')
_MODEL = Model(_FACTORS, (_SIZE,), Gaussian(_SIGMA), MLP(()))
_RNG = np.random.default_rng(0)
_C, _S = 0.5 * _RNG.normal(size=(2, _SIZE)) + 0.3


def _exact_params(group_size):
  """Parameters of the model and of its exact posterior."""
  of_x = np.linalg.inv(np.outer(_S, _S) + _SIGMA ** 2 * np.eye(_SIZE))
  evidence = _C @ of_x @ _C  # Of a member, its style integrated out.
  precision = evidence + 1.0 / group_size  # The prior's counts once.
  kernel = (of_x @ _C / precision)[:, None]
  content = {
      'kernel': np.hstack([kernel, 0.0 * kernel]),
      'bias': np.array([-0.5 * kernel.sum(), -np.log(precision)])}
  style_precision = 1.0 + _S @ _S / _SIGMA ** 2
  of_both = np.append(_S, -_S @ _C) / _SIGMA ** 2 / style_precision
  # silu(a) - silu(-a) = a: two hidden units are a linear one.
  hidden = np.zeros((_SIZE + 1, 256))
  hidden[:, 0], hidden[:, 1] = of_both, -of_both
  shift = np.zeros(256)
  shift[0], shift[1] = np.array([-1.0, 1.0]) * 0.5 * of_both[:-1].sum()
  heads = np.zeros((256, 2))
  heads[0, 0], heads[1, 0] = 1.0, -1.0
  return jax.tree.map(jnp.float32, {
      'encoder': {
          'heads': content,
          'head_of_style': {
              'hidden': {'kernel': hidden, 'bias': shift},
              'heads': {'kernel': heads,
                        'bias': np.array([0.0, -np.log(style_precision)])}}},
      'decoder': {'pixels': {
          'kernel': np.stack([_C, _S]), 'bias': np.full(_SIZE, 0.5)}}})


def _groups(num_groups, group_size):
  rng = np.random.default_rng(1)
  c, s, noise = (rng.normal(size=shape) for shape in (
      (num_groups, 1, 1), (num_groups, group_size, 1),
      (num_groups, group_size, _SIZE)))
  return 0.5 + c * _C + s * _S + _SIGMA * noise


def _log_evidence(group):
  n = len(group)
  covariance = np.kron(np.ones((n, n)), np.outer(_C, _C)) + np.kron(
      np.eye(n), np.outer(_S, _S) + _SIGMA ** 2 * np.eye(_SIZE))
  residual = group.ravel() - 0.5
  return -0.5 * (residual @ np.linalg.solve(covariance, residual)
                 + np.linalg.slogdet(2 * np.pi * covariance)[1])


def _batch(groups):
  num_groups, n, _ = groups.shape
  return Batch(
      np.float32(groups.reshape(-1, _SIZE)),
      {'content': np.repeat(np.arange(num_groups), n)},
      np.ones(num_groups * n, bool), np.arange(num_groups * n))


@pytest.mark.slow
@pytest.mark.parametrize('sample_per', ['row', 'group'])
@pytest.mark.parametrize('group_size', [1, 2, 5])
def test_the_elbo_at_the_exact_posterior_is_the_log_evidence(
    group_size, sample_per):
  groups, params = _groups(3, group_size), _exact_params(group_size)
  shapes = jax.eval_shape(_MODEL.init, jax.random.key(0))
  assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, shapes)
  mean, error = _mean_elbo(_MODEL, params, groups, sample_per)
  assert error < 0.1
  assert abs(mean - sum(map(_log_evidence, groups))) < 4 * error


@pytest.mark.slow
def test_without_what_it_is_given_the_best_style_has_a_gap():
  groups, params = _groups(3, 4), _exact_params(4)
  hidden = params['encoder']['head_of_style']['hidden']
  # Its mean sees the content's mean, a function of x, instead of the sample.
  blind = jax.tree.map(jnp.copy, params)
  of_c = hidden['kernel'][-1]
  heads = params['encoder']['heads']
  blind['encoder']['head_of_style']['hidden'] = {
      'kernel': hidden['kernel'].at[-1].set(0.0).at[:-1].add(
          heads['kernel'][:, :1] * of_c),
      'bias': hidden['bias'] + heads['bias'][0] * of_c}
  mean, error = _mean_elbo(_MODEL, blind, groups, 'row')
  assert mean + 4 * error < sum(map(_log_evidence, groups)) - 0.1


def _mean_elbo(model, params, groups, sample_per):
  """The summed ELBOs averaged over draws, and the standard error."""
  batch, sizes = _batch(groups), {'content': len(groups)}
  draws = jax.jit(jax.vmap(lambda key: sum_terms(elbo_terms(
      model, params, key, batch, sizes, sample_per=sample_per)).elbo()))(
          jax.random.split(jax.random.key(0), 4000))
  return np.mean(draws), np.std(draws) / np.sqrt(len(draws))


@pytest.mark.slow
def test_codes_are_inferred_from_means_or_from_samples_of_the_given():
  params, groups = _exact_params(3), _groups(2, 3)
  x, ids = np.float32(groups.reshape(-1, _SIZE)), np.repeat([0, 1], 3)
  q = encode_group(_MODEL, params, x, ids, 2)

  def style_mean(content):
    precision = 1.0 + _S @ _S / _SIGMA ** 2
    residual = x - 0.5 - np.asarray(content) * _C
    return (residual @ _S / _SIGMA ** 2 / precision)[:, None]

  found = posteriors(_MODEL, params, x, ids, 2)
  np.testing.assert_allclose(found['content'].mean, q.mean[ids], rtol=1e-5)
  np.testing.assert_allclose(
      found['style'].mean, style_mean(q.mean[ids]), rtol=1e-4, atol=1e-5)
  alone = posteriors(_MODEL, params, x)
  np.testing.assert_allclose(
      alone['style'].mean, style_mean(alone['content'].mean), rtol=1e-4,
      atol=1e-5)
  key = jax.random.key(3)
  codes = infer(_MODEL, params, x, ids, 2, key=key)
  noise = jax.random.normal(jax.random.split(key, 2)[1], (6, 1))
  std = (1.0 + _S @ _S / _SIGMA ** 2) ** -0.5
  np.testing.assert_allclose(
      codes['style'], style_mean(codes['content']) + std * noise, rtol=1e-4,
      atol=1e-5)


def test_a_swap_keeps_style_codes():
  params, x = _exact_params(1), np.float32(_groups(3, 1)[:, 0])
  codes = infer(_MODEL, params, x)
  grid = swap(_MODEL, params, codes, codes)
  expected = 0.5 + codes['content'] * _C + codes['style'][:, None] * _S
  np.testing.assert_allclose(grid, expected, rtol=1e-5)
  np.testing.assert_allclose(
      grid[np.arange(3), np.arange(3)], reconstruct(_MODEL, params, x),
      rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('posterior', [None, Mixture()])
def test_gradients_reach_every_head_and_padding_none(posterior):
  model = dataclasses.replace(
      _MODEL, factors=parse_factors('c:2:a,light:1:b|c,style:2|light|c'),
      network=MLP((5,)))
  if posterior is not None:
    model = dataclasses.replace(model, group_posterior=posterior)
  params = init_params(model)
  x = np.float32(_groups(4, 2).reshape(-1, _SIZE))
  x[6:] = np.nan
  ids = np.repeat(np.arange(4), 2)
  batch = Batch(x, {'c': ids, 'light': ids[::-1].copy()}, np.arange(8) < 6,
                np.arange(8))
  penalties = (Penalty('contrast', 'c', 1.0),
               Penalty('mean_leakage', 'style', 1.0),
               Penalty('mean_leakage', 'light', 1.0))

  def loss(params):
    terms = sum_terms(penalised_terms(
        model, params, jax.random.key(0), batch, {'c': 4, 'light': 4},
        penalties))
    return sum(terms.penalties.values()) - terms.elbo()

  for leaf in jax.tree.leaves(jax.jit(jax.grad(loss))(params)):
    assert np.all(np.isfinite(leaf)) and np.any(leaf != 0)


@pytest.mark.slow
def test_a_model_without_given_factors_has_the_parameters_of_before():
  model = Model(ml_vae(3, 2), (4,), network=MLP((5,)))
  params = jax.jit(model.init)(jax.random.key(0))
  assert set(params['encoder']) == {'hidden_0', 'heads'}
  given = dataclasses.replace(model, factors=parse_factors(
      'content:3:group,style:2|content'))
  # A head that is not there changes no other's initial values.
  again = jax.jit(given.init)(jax.random.key(0))
  np.testing.assert_array_equal(
      params['encoder']['hidden_0']['kernel'],
      again['encoder']['hidden_0']['kernel'])


def test_given_goes_through_json_and_text():
  assert _FACTORS[1] == Factor('style', 1, None, ('content',))
  assert Model.from_dict(_MODEL.to_dict()) == _MODEL
  assert parse_factors('a:1:g,b:2:h,s:3|a|b')[2].given == ('a', 'b')


@pytest.mark.parametrize('text, match', [
    ('style:2|content,content:2:g', 'only factors that come before it'),
    ('content:2:g,style:2|style', 'only factors that come before it'),
    ('content:2:g,style:2|light', 'only factors that come before it'),
    ('content:2:g,style:2|', r'NAME:DIM\[:GROUPING\]\[\|GIVEN\]'),
])
def test_factors_that_are_given_what_is_not_there_are_refused(text, match):
  with pytest.raises(ValueError, match=match):
    parse_factors(text)


def test_free_posteriors_are_given_nothing():
  with pytest.raises(ValueError, match='style given other factors need an'):
    Model(_FACTORS, (4,), group_posterior=Free())
  with pytest.raises(ValueError, match='tuple of names'):
    Factor('style', 2, None, 'content')
