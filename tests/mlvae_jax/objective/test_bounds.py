"""The importance-weighted bound on log p(X_G), on a model solved exactly."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlvae_jax import group_likelihood_bound
from mlvae_jax.grouping.adaptive import Adaptive
from mlvae_jax.grouping.free import Free
from mlvae_jax.grouping.mixture import Mixture
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.model.factors import Batch, Factor, parse_factors, vae
from mlvae_jax.model.likelihoods.bernoulli import Bernoulli
from mlvae_jax.model.model import Model
from mlvae_jax.model.networks.mlp import MLP
from mlvae_jax.objective.elbo import elbo_terms
from tests.helpers.exact_model import (
  LINEAR,
  SIGMA,
  exact_heads,
  linear_params,
  log_evidence,
  other_heads,
  posterior_gap,
  sample_groups,
  weights,
)
from tests.helpers.small_models import KEY, MODEL, SHAPE, init_params

IDS = np.array([2, 0, 2, 2, 0, 4])  # Groups 1 and 3 have no rows.


def _rows(count, seed=0):
  return np.random.default_rng(seed).random((count, *SHAPE), np.float32)


@functools.partial(jax.jit, static_argnums=(0, 4, 5, 6))
def _draw(model, params, x, keys, sizes, num_outer, num_inner):
  """Draws `[num_draws, G]` of the bound for groups of these sizes."""
  ids = np.repeat(np.arange(len(sizes)), sizes)
  return jax.vmap(lambda key: group_likelihood_bound(
      model, params, x, ids, len(sizes), key=key, num_outer=num_outer,
      num_inner=num_inner))(keys)


def _draws(heads, num_outer, num_inner, model=LINEAR, num_draws=1000,
           groups=None):
  """Draws of log p_hat(X_G) - log p(X_G), `[num_draws, G]`.

  Groups are `[n, pixels]` each, by default two of three rows. The noise depends
  on the numbers of samples.
  """
  groups = sample_groups(2, 3) if groups is None else groups
  keys = jax.random.split(
      jax.random.fold_in(KEY, 100 * num_outer + num_inner), num_draws)
  found = _draw(
      model, linear_params(*heads),
      np.concatenate(groups).reshape(-1, *SHAPE).astype('f4'), keys,
      tuple(map(len, groups)), num_outer, num_inner)
  exact = [log_evidence(group[None]) for group in groups]
  return np.asarray(found, np.float64) - exact


def _mean(values):
  return values.mean(axis=0), values.std(axis=0) / np.sqrt(len(values))


@pytest.mark.slow
@pytest.mark.parametrize(('num_outer', 'num_inner'), [
    (1, 1), (4, 1), (1, 4), (4, 4), (2, 8)])
def test_the_estimate_of_the_likelihood_is_unbiased_for_every_size_of_group(
    num_outer, num_inner):
  groups = [sample_groups(1, size)[0] for size in (1, 2, 5)]
  # Wider than the exact posteriors, most of all for the smaller groups, which
  # lack a part of the prior: weights have a finite variance.
  kernel, bias, logvar = exact_heads(5)
  mean, error = _mean(np.exp(_draws(
      (kernel, bias + 0.05, logvar + 0.4), num_outer, num_inner,
      num_draws=4000, groups=groups)))
  assert np.all(error < 0.02)
  assert np.all(np.abs(mean - 1) < 4 * error)


@pytest.mark.slow
def test_several_bounds_share_samples_and_each_is_unbiased():
  kernel, bias, logvar = exact_heads(3)
  heads = kernel, bias + 0.05, logvar + 0.4
  groups = sample_groups(2, 3)
  params, x = linear_params(*heads), groups.reshape(-1, *SHAPE).astype('f4')
  ids = np.repeat(np.arange(2), 3)

  def bound(key, num_outer, num_inner):
    return group_likelihood_bound(
        LINEAR, params, x, ids, 2, key=key, num_outer=num_outer,
        num_inner=num_inner)

  found = jax.jit(jax.vmap(lambda key: bound(key, (1, 4, 2), [1, 2, 3])))(
      jax.random.split(KEY, 4000))
  exact = [log_evidence(group[None]) for group in groups]
  mean, error = _mean(np.exp(np.asarray(found, np.float64) - exact))
  assert mean.shape == (3, 2)
  assert np.all(np.abs(mean - 1) < 4 * error)
  np.testing.assert_allclose(
      bound(KEY, (4, 1), (3, 2))[0], bound(KEY, 4, 3), rtol=1e-6)


@pytest.mark.slow
def test_a_mixture_is_weighted_by_what_codes_are_drawn_from():
  model = dataclasses.replace(LINEAR, group_posterior=Mixture())
  # Means and variance of single images, each as if it were the group.
  mean, error = _mean(np.exp(_draws(exact_heads(1), 8, 2, model)))
  assert np.all(error < 0.1)
  assert np.all(np.abs(mean - 1) < 4 * error)


@pytest.mark.slow
def test_the_bound_rises_with_both_numbers_and_stays_below():
  kernel, bias, logvar = exact_heads(3)
  heads = kernel, bias + 0.1, logvar + 1.0
  values = {numbers: _mean(_draws(heads, *numbers).sum(axis=1))
            for numbers in [(1, 1), (4, 1), (1, 4), (4, 4), (16, 16)]}
  for low, high in [((1, 1), (4, 1)), ((1, 1), (1, 4)), ((4, 1), (4, 4)),
                    ((1, 4), (4, 4)), ((4, 4), (16, 16))]:
    (below, error), (above, other_error) = values[low], values[high]
    assert above - below > 3 * np.hypot(error, other_error), (low, high)
  mean, error = values[16, 16]
  assert mean + 3 * error < 0 < mean + 1
  # At K = L = 1 its mean is the ELBO.
  mean, error = values[1, 1]
  assert abs(mean + posterior_gap(sample_groups(2, 3), heads)) < 4 * error


@pytest.mark.slow
@pytest.mark.parametrize(('num_outer', 'num_inner'), [(1, 1), (3, 2)])
def test_at_the_exact_posterior_every_draw_is_the_log_likelihood(
    num_outer, num_inner):
  draws = _draws(exact_heads(3), num_outer, num_inner, num_draws=4)
  np.testing.assert_allclose(draws, 0.0, atol=2e-3)  # Of some 30 nats a row.


GIVEN = Model(parse_factors('content:3:group,style:2|content'), SHAPE,
              Bernoulli(), MLP((16,)))


@pytest.mark.slow
def test_at_one_sample_its_mean_is_the_elbo():
  params, x = init_params(GIVEN), _rows(6)
  batch = Batch(x, {'content': IDS}, np.ones(6, bool), np.arange(6))

  @jax.jit
  @jax.vmap
  def both(key):
    terms = elbo_terms(
        GIVEN, params, key, batch, {'content': 5}, sample_per='group')
    rows = terms.log_lik - terms.kl['style']
    elbo = jax.ops.segment_sum(rows, IDS, 5) - terms.kl['content']
    return elbo, group_likelihood_bound(
        GIVEN, params, x, IDS, 5, key=key, num_outer=1, num_inner=1)

  (elbo, error), (bound, other_error) = map(
      _mean, both(jax.random.split(KEY, 2000)))
  assert np.all(np.abs(elbo - bound) <= 4 * np.hypot(error, other_error))
  np.testing.assert_array_equal(bound[np.array([1, 3])], 0.0)


@pytest.mark.slow
@pytest.mark.parametrize('model', [GIVEN, dataclasses.replace(
    GIVEN, group_posterior=Mixture())])
def test_groups_and_padding_do_not_touch_each_other(model):
  params, x = init_params(model), _rows(6)
  bound = functools.partial(
      group_likelihood_bound, model, params, key=KEY, num_outer=3, num_inner=2)
  found = bound(x, IDS, 5)
  padded = np.concatenate([x, np.full((2, *SHAPE), np.nan, np.float32)])
  again = bound(padded, [*IDS, 4, -1], 5, mask=np.arange(8) < 6)
  np.testing.assert_allclose(again, found, rtol=1e-5)
  np.testing.assert_allclose(  # The group of a single row.
      found[4], bound(x, np.where(IDS == 4, 4, 0), 5)[4], rtol=1e-5)


@pytest.mark.slow
def test_gradients_are_finite_with_padding():
  x = np.concatenate([_rows(3), np.full((1, *SHAPE), np.nan, np.float32)])
  grad = jax.jit(jax.grad(lambda params: group_likelihood_bound(
      MODEL, params, x, [0, 0, 1, 1], 2, key=KEY, num_outer=2, num_inner=2,
      mask=np.arange(4) < 3).sum()))(init_params(MODEL))
  for leaf in jax.tree.leaves(grad):
    assert np.all(np.isfinite(leaf)) and np.any(leaf)


@pytest.mark.slow
def test_without_groups_every_row_has_its_own():
  plain = Model(vae(4), SHAPE, Bernoulli(), MLP((16,)))
  grouped = dataclasses.replace(plain, factors=(Factor('z', 4, 'g'),))
  params, x = init_params(plain), _rows(6)

  def mean(model, *groups):
    return _mean(jax.jit(jax.vmap(lambda key: group_likelihood_bound(
        model, params, x, *groups, key=key, num_outer=4, num_inner=1)))(
            jax.random.split(KEY, 500)))

  (found, error), (expected, other_error) = mean(plain), mean(
      grouped, np.arange(6), 6)
  assert found.shape == (6,)
  assert np.all(np.abs(found - expected) < 4 * np.hypot(error, other_error))


@pytest.mark.slow
def test_free_posteriors_are_given():
  model = dataclasses.replace(LINEAR, group_posterior=Free())
  heads, groups = other_heads('content variance', 3), sample_groups(1, 3)
  params, x = linear_params(*heads), groups.reshape(-1, *SHAPE)
  alone = LINEAR.encode(params, x)
  free = {'content': LINEAR.group_posterior.combine(
      alone['content'], np.zeros(3, int), 2), 'style': alone['style']}
  # A group without rows keeps its start, which is not the prior.
  free['content'] = Normal(
      free['content'].mean, free['content'].logvar.at[1].set(-2.0))
  arguments = x, [0, 0, 0], 2
  found, expected = (
      group_likelihood_bound(m, params, *arguments, key=KEY, free=f,
                             num_outer=2, num_inner=2)
      for m, f in ((model, free), (LINEAR, None)))
  np.testing.assert_allclose(found, expected, rtol=1e-6)
  assert found[1] == 0


@pytest.mark.parametrize(('factors', 'arguments', 'message'), [
    ('a:2:one,b:2:two', ([0, 0], 1),
     r'no bound for this model: groups of several groupings \(one, two\)'),
    ('s:2,c:2:one|s', ([0, 0], 1), "factor 'c' is given s, which differs"),
    ('c:2:one', (), 'group_ids and num_groups if a factor is grouped'),
    ('z:2', ([0, 0], 1), 'otherwise neither'),
    ('c:2:one', ([0, 3], 2), r'group ids in \[0, 2\)'),
])
def test_what_has_no_bound_is_refused(factors, arguments, message):
  model = Model(parse_factors(factors), SHAPE, Bernoulli(), MLP((4,)))
  with pytest.raises(ValueError, match=message):
    group_likelihood_bound(
        model, init_params(model), _rows(2), *arguments, key=KEY)


def test_bad_numbers_and_free_posteriors_are_refused():
  params = init_params(MODEL)
  with pytest.raises(ValueError, match='expected num_inner >= 1, got 0'):
    group_likelihood_bound(
        MODEL, params, _rows(2), [0, 1], 2, key=KEY, num_inner=0)
  for numbers in [((1, 2), 3), ((1, 2), (1, 2, 3)), ((), ())]:
    with pytest.raises(ValueError, match='two numbers, or equally many'):
      group_likelihood_bound(
          MODEL, params, _rows(2), [0, 1], 2, key=KEY, num_outer=numbers[0],
          num_inner=numbers[1])
  with pytest.raises(ValueError, match='none for others'):
    group_likelihood_bound(MODEL, params, _rows(2), [0, 1], 2, key=KEY,
                           free={})
  with pytest.raises(ValueError, match=r'with Adaptive\(\) .* share only'):
    group_likelihood_bound(
        dataclasses.replace(MODEL, group_posterior=Adaptive()), params,
        _rows(2), [0, 1], 2, key=KEY)


@pytest.mark.parametrize('shapes', [
    {'content': (2, 2)}, {'content': (1, 2), 'style': (3, 1)},
    {'content': (2, 2), 'style': (1, 1)}])
def test_free_posteriors_that_do_not_fit_are_refused(shapes):
  model = dataclasses.replace(LINEAR, group_posterior=Free())
  free = {name: Normal(np.zeros(shape), np.zeros(shape))
          for name, shape in shapes.items()}
  with pytest.raises(ValueError, match='expected free posteriors of .* got'):
    group_likelihood_bound(model, linear_params(*exact_heads(3)), _rows(3),
                           [0, 0, 1], 2, key=KEY, free=free)


@pytest.mark.slow
def test_long_groups_of_unlikely_images_keep_the_digits_of_float32():
  params, near = linear_params(*exact_heads(1000)), sample_groups(1, 1000)[0]
  # A direction in which images of the model differ by noise alone.
  away = np.linalg.qr(np.concatenate([weights(), np.ones((1, 64))]).T)[0][:, 3]
  far = near + 89.0 * away  # -1e5 nats a row.

  def bounds(x, count):
    return np.array([group_likelihood_bound(
        LINEAR, params, x.reshape(-1, *SHAPE).astype('f4'),
        np.zeros(len(x), int), 1, key=jax.random.key(i), num_outer=4,
        num_inner=1)[0] for i in range(count)], float)

  expected = bounds(near, 1) - 0.5 / SIGMA ** 2 * np.sum(
      np.square((far - 0.5) @ away) - np.square((near - 0.5) @ away))
  np.testing.assert_allclose(bounds(far, 5), expected[0], rtol=2e-7)


@pytest.mark.slow
def test_the_density_of_codes_is_theirs_before_rounding():
  kernel, _, _ = exact_heads(1)
  # Beside a mean of 100, float32 has no digits for a deviation of 3e-7.
  params = linear_params(
      0 * kernel, np.array([100.0, 0, 0]), np.array([-30.0, 0, 0]))
  params['decoder'] = jax.tree.map(jnp.zeros_like, params['decoder'])
  x = np.zeros((1, *SHAPE), 'f4')
  mean, error = _mean(np.array(jax.vmap(lambda key: group_likelihood_bound(
      LINEAR, params, x, [0], 1, key=key, num_outer=1, num_inner=1))(
          jax.random.split(KEY, 400))))
  log_lik = -32 * np.log(2 * np.pi * SIGMA ** 2)
  assert abs(mean - log_lik - 0.5 * (1 - 30 - 100 ** 2)) < 4 * error
