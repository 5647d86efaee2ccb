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
from mlvae_jax.objective.penalties import leakage
from mlvae_jax.objective.penalties.contrast import contrastive_loss
from mlvae_jax.objective.penalties.leakage import (
    discrepancy,
    mean_leakage,
    standardize,
)
from mlvae_jax.objective.penalties.registry import (
    SEPARATING,
    SEPARATING_SEVERAL,
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


@pytest.mark.slow
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


@pytest.mark.parametrize('offset', [0.0, 5.0, 30.0])
def test_the_ratio_of_means_far_from_zero(offset):
  narrow = np.float32(_RNG.normal(offset, 1e-2, (8, 3)))
  np.testing.assert_allclose(
      _rows(narrow).signal_to_noise(),
      _ratio(narrow[_MASK], _LOGVARS[_MASK]), rtol=1e-3)


_PAIRS = np.repeat(np.arange(3), 2)


def _total_leakage(mean, groupings, mask=None, axis_name=None):
  others = {str(i): Other(g, len(mean), jnp.arange(len(mean)))
            for i, g in enumerate(groupings)}
  mask = np.ones(len(mean), bool) if mask is None else mask
  rows = _rows(mean, jnp.zeros(mean.shape), mask, axis_name)
  return jnp.sum(mean_leakage(dataclasses.replace(rows, others=others)))


def _with_average(average):
  """Codes `[6, 1]` of `_PAIRS` whose leakage has this average."""
  def means(repulsion):
    attract = np.repeat([3.0, -3.0, 1.0], 2)[:, None]
    return jnp.asarray(repulsion * np.tile([3.0, -3.0], 3)[:, None] + attract)

  low, high = 0.0, 10.0
  for _ in range(40):
    middle = (low + high) / 2
    above = _total_leakage(means(middle), (_PAIRS,)) > 6 * average
    low, high = (middle, high) if above else (low, middle)
  return means(low)


@pytest.mark.parametrize('average, has_gradient', [
    (0.05, True), (-0.005, True), (-0.009, True),
    (-0.012, False), (-0.1, False)])
def test_leakage_below_its_floor_has_no_gradient(average, has_gradient):
  means = _with_average(average)
  value, grad = jax.value_and_grad(_total_leakage)(means, (_PAIRS,))
  assert value == pytest.approx(6 * average, abs=1e-3)
  assert np.any(grad) == has_gradient
  # Nor does padding change that.
  padded = jnp.concatenate([means, jnp.linspace(-9, 9, 60)[:, None]])
  grad = jax.grad(_total_leakage)(
      padded, (np.concatenate([_PAIRS, np.zeros(60, int)]),),
      np.arange(66) < 6)
  assert np.any(grad) == has_gradient


@pytest.mark.slow
def test_rows_that_cannot_be_compared_do_not_lift_leakage_above_its_floor():
  """A pair that repels each other, among rows that are alone."""
  means = np.linspace(-1, 1, 64, dtype=np.float32)[:, None]
  means[:2, 0] = 3, -3
  ids = np.arange(64)
  ids[1] = 0
  value, grad = jax.value_and_grad(_total_leakage)(jnp.asarray(means), (ids,))
  assert -0.01 < value / 64 < 0 and value / 2 < -0.05
  assert not np.any(grad)


@pytest.mark.slow
@pytest.mark.parametrize('average', [-0.005, -0.02])
def test_the_floor_is_one_for_all_devices(average):
  means = _with_average(average)
  values, _ = leakage._discrepancy(
      standardize(means, np.ones(6, bool)), _PAIRS, np.ones(6, bool), None)
  order = np.argsort(values)
  # By themselves one device would be above the floor, and the other below.
  assert np.mean(values[order[:3]]) < -0.01 < np.mean(values[order[3:]])
  spread = jax.vmap(
      lambda mean, ids: jax.grad(_total_leakage)(mean, (ids,), None, 'devices'),
      axis_name='devices')(
          means[order].reshape(2, 3, 1), _PAIRS[order].reshape(2, 3))
  whole = jax.grad(_total_leakage)(means, (_PAIRS,))[order]
  np.testing.assert_allclose(spread.reshape(6, 1), whole, atol=1e-5)
  assert np.any(whole) == (average > -0.01)


def test_groupings_have_floors_of_their_own():
  repel, sides = _with_average(-0.1), np.tile([0, 1], 3)
  both, alone = (
      jax.grad(_total_leakage)(repel, groupings)
      for groupings in ((_PAIRS, sides), (sides,)))
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


def test_recommended_weights_depend_on_the_number_of_groupings():
  def weights(factors):
    model = dataclasses.replace(MODEL, factors=parse_factors(factors))
    return {p.kind: p.weight for p in separating_penalties(model)}

  assert weights('a:2:x,b:2') == SEPARATING
  # Two factors of the same grouping are still one grouping.
  assert weights('a:2:x,b:2:x,c:2') == SEPARATING
  assert weights('a:2:x,b:2:y,c:2') == SEPARATING_SEVERAL
