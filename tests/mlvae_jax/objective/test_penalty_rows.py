"""What penalties get of a batch: gradients in units of the codes' noise."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlvae_jax.grouping.free import Free
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.model.factors import parse_factors, vae
from mlvae_jax.objective.draws import draw_codes
from mlvae_jax.objective.penalties.contrast import contrastive_loss
from mlvae_jax.objective.penalties.leakage import (
    discrepancy,
    mean_leakage,
    standardize,
)
from mlvae_jax.objective.penalties.registry import (
    SEPARATING,
    Penalty,
    penalty_terms,
    separating_penalties,
)
from mlvae_jax.objective.penalties.rows import Other, Rows
from tests.helpers.small_models import KEY, MODEL, init_params, make_batch

_MASK = np.array([True] * 6 + [False] * 2)
_RNG = np.random.default_rng(0)
_MEANS = _RNG.normal(2.0, [0.1, 1.0, 3.0], (8, 3)).astype(np.float32)
_LOGVARS = _RNG.normal(-2.0, 1.0, (8, 3)).astype(np.float32)


def _rows(mean=_MEANS, logvar=_LOGVARS, mask=_MASK, axis_name=None):
  q = Normal(jnp.asarray(mean), jnp.asarray(logvar)).masked(mask)
  return Rows(q, jnp.asarray(mask), None, None, {}, axis_name)


def _ratio(mean, logvar):
  """The signal-to-noise ratio as its formula says, in float64."""
  mean, logvar = np.float64(mean), np.float64(logvar)
  return np.sqrt(np.mean(
      np.minimum(mean.var(0), 1.0) / np.exp(logvar.mean(0))))


def test_the_ratio_is_that_of_the_real_rows():
  found = jax.jit(lambda mean: _rows(mean).signal_to_noise())(_MEANS)
  np.testing.assert_allclose(
      found, _ratio(_MEANS[_MASK], _LOGVARS[_MASK]), rtol=1e-4)
  spread = jax.vmap(
      lambda *given: _rows(*given, axis_name='devices').signal_to_noise(),
      axis_name='devices')(
          _MEANS.reshape(4, 2, 3), _LOGVARS.reshape(4, 2, 3),
          _MASK.reshape(4, 2))
  np.testing.assert_allclose(spread, found, rtol=1e-5)


def test_means_wider_than_the_prior_do_not_count_for_more():
  narrow = _RNG.normal(0.0, 1e-3, (8, 3)).astype(np.float32)
  for scale, share in ((10.0, 10.0), (1e6, 1 / narrow[_MASK].std(0))):
    np.testing.assert_allclose(
        _rows(scale * narrow).signal_to_noise(),
        _ratio(share * narrow[_MASK], _LOGVARS[_MASK]), rtol=1e-3)


@pytest.mark.parametrize('mask', [
    np.arange(8) == 3, np.zeros(8, bool)])  # One row, or none.
def test_a_code_that_says_nothing_has_no_signal(mask):
  assert _rows(mask=mask).signal_to_noise() == pytest.approx(0.0, abs=1e-2)
  same = np.broadcast_to(_MEANS[:1], (8, 3))
  assert _rows(same).signal_to_noise() == pytest.approx(0.0, abs=1e-2)


def test_the_ratio_of_a_variance_near_zero_is_finite():
  assert np.isfinite(_rows(logvar=np.full((8, 3), -200.0, np.float32))
                     .signal_to_noise())


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_values_stay_and_gradients_are_multiplied(dtype):
  means = _MEANS.astype(dtype)

  def total(mean, scale):
    scaled = _rows(mean).with_gradients(scale).q
    return jnp.sum(jnp.sin(scaled.mean.astype(jnp.float32))), scaled

  for scale in (0.0, 1.0, 7.5):
    grad, scaled = jax.grad(total, has_aux=True)(means, scale)
    assert scaled.mean.dtype == dtype
    np.testing.assert_array_equal(scaled.mean, _rows(means).q.mean)
    np.testing.assert_array_equal(scaled.logvar, _rows().q.logvar)
    np.testing.assert_allclose(
        np.float32(grad), np.where(
            _MASK[:, None], scale * np.cos(np.float32(means)), 0.0),
        rtol=1e-2 if dtype == jnp.bfloat16 else 1e-5, atol=1e-5)


def test_what_a_code_should_not_reveal_pulls_in_proportion_to_the_ratio():
  """The values are those of the plain functions, the gradients multiples."""
  params = init_params(MODEL)
  batch = make_batch(MODEL, [0, 1, 1, 2, 0, 1, 2, 4])
  drawn = draw_codes(MODEL, params, KEY, batch, {'content': 5})
  ids = batch.group_ids['content']
  plain = {
      'contrast/content': functools.partial(
          contrastive_loss, group_ids=ids, mask=batch.mask),
      'mean_leakage/style': lambda m: discrepancy(
          standardize(m, batch.mask), ids, batch.mask)}
  for name, function in plain.items():
    kind, factor = name.split('/')
    q = drawn.q[factor]

    def value(mean, weight, kind=kind, factor=factor, q=q, name=name):
      changed = drawn._replace(
          q=drawn.q | {factor: Normal(mean, q.logvar)})
      return jnp.sum(penalty_terms(
          MODEL, [Penalty(kind, factor, weight)], changed,
          {'content': 5})[name])

    expected, expected_grad = jax.value_and_grad(
        lambda mean, function=function: jnp.sum(function(mean)))(q.mean)
    for weight in (3.0, 0.0):
      scale = weight
      if kind != 'contrast':  # Even a code without any signal is to learn.
        scale *= _ratio(q.mean, q.logvar)
      found, grad = jax.value_and_grad(
          functools.partial(value, weight=weight))(q.mean)
      np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
      np.testing.assert_allclose(
          grad, scale * expected_grad, rtol=1e-3,
          atol=1e-3 * scale * np.max(np.abs(expected_grad)) + 1e-9)
      assert np.any(grad != 0) == bool(weight)


def test_members_are_not_paid_for_repelling_each_other():
  attract = jnp.asarray(np.repeat([3.0, -3.0, 1.0], 2)[:, None])
  repel = jnp.asarray(np.tile([3.0, -3.0], 3)[:, None]) + 0.1 * attract
  ids, sides = np.repeat(np.arange(3), 2), np.tile([0, 1], 3)

  def total(mean, groupings, axis_name=None):
    others = {str(i): Other(g, 3, jnp.arange(3))
              for i, g in enumerate(groupings)}
    rows = _rows(mean, jnp.zeros(mean.shape), np.ones(len(mean), bool),
                 axis_name)
    return jnp.sum(mean_leakage(dataclasses.replace(rows, others=others)))

  for means, positive in ((attract, True), (repel, False)):
    value, grad = jax.value_and_grad(total)(means, (ids,))
    assert (value > 0) == positive
    assert np.any(grad) == positive
    # Over three devices the sign is that of the whole batch.
    spread = jax.vmap(
        lambda mean, ids: jax.grad(total)(mean, (ids,), 'devices'),
        axis_name='devices')(means.reshape(3, 2, 1), ids.reshape(3, 2))
    assert np.any(spread) == positive
  # Groupings are judged one by one.
  both, alone = (
      jax.grad(total)(repel, groupings) for groupings in (
          (ids, sides), (sides,)))
  np.testing.assert_allclose(both, alone, rtol=1e-6)
  assert np.any(alone)


def test_recommended_penalties_are_those_that_fit():
  def names(factors):
    model = dataclasses.replace(MODEL, factors=factors)
    return [p.name for p in separating_penalties(model)]

  assert names(MODEL.factors) == [
      'contrast/content', 'mean_leakage/style', 'adversary/style']
  assert names(parse_factors('a:2:x,b:2:y')) == [
      'contrast/a', 'contrast/b', 'mean_leakage/a', 'mean_leakage/b',
      'adversary/a', 'adversary/b']
  assert names(vae(3)) == []
  # With free posteriors only what is not grouped has codes of rows.
  free = dataclasses.replace(MODEL, group_posterior=Free())
  assert {p.factor for p in separating_penalties(free)} == {'style'}
  assert {p.weight for p in separating_penalties(MODEL)} == set(
      SEPARATING.values())
