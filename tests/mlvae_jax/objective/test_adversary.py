"""The adversary: critics that are trained to find what codes reveal."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlvae_jax.model.factors import parse_factors
from mlvae_jax.objective.draws import draw_codes
from mlvae_jax.objective.penalties.adversary import predicted
from mlvae_jax.objective.penalties.registry import (
    Penalty,
    init_critics,
    penalty_terms,
)
from mlvae_jax.training.step import TrainConfig, init_state, train_step
from tests.helpers.small_models import (
    KEY,
    MODEL,
    init_params,
    make_batch,
)

_CONFIG = TrainConfig(penalties=(Penalty('adversary', 'style', 3.0),))


def _loop(features, ids, mask, num_groups):
  """`predicted` as its docstring says, row by row in float64."""
  result, real = np.zeros(len(ids)), np.flatnonzero(mask)
  for i in real:
    logit = {}
    for group in range(num_groups):
      members = [j for j in real if ids[j] == group and (j != i)]
      if members:
        centre = features[members].mean(axis=0)
        logit[group] = -np.sum((features[i] - centre) ** 2)
    if ids[i] in logit:
      result[i] = logit[ids[i]] - np.log(
          sum(np.exp(v) for v in logit.values())) + np.log(len(logit))
  return result


# Row 2 has no partner, row 4 only one of padding; the last two are padding.
_IDS = np.array([0, 1, 2, 1, 3, 0, 1, 3, 0])
_MASK = np.arange(9) < 7
_FEATURES = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)


def test_prediction_is_that_of_a_loop():
  found = predicted(_FEATURES, _IDS, _MASK, 6)
  np.testing.assert_allclose(
      found, _loop(np.float64(_FEATURES), _IDS, _MASK, 6), rtol=1e-5,
      atol=1e-6)
  np.testing.assert_array_equal(np.flatnonzero(found), [0, 1, 3, 5, 6])


def test_padding_reaches_neither_value_nor_gradient():
  features = np.where(_MASK[:, None], _FEATURES, np.nan)

  def total(f):
    return jnp.sum(predicted(f, _IDS, _MASK, 6))

  value, grad = jax.value_and_grad(total)(features)
  np.testing.assert_allclose(value, total(_FEATURES), rtol=1e-6)
  assert np.all(np.isfinite(grad))
  np.testing.assert_array_equal(grad[7:], 0.0)


@pytest.mark.parametrize('ids, mask', [
    (np.arange(9), np.ones(9, bool)),  # Nobody has a partner.
    (np.zeros(9, int), np.arange(9) == 4),  # One row.
    (np.zeros(9, int), np.zeros(9, bool))])  # None.
def test_rows_alone_in_their_groups_are_not_predicted(ids, mask):
  def total(f):
    return jnp.sum(predicted(f, ids, mask, 9))

  value, grad = jax.value_and_grad(total)(_FEATURES)
  assert value == 0.0
  np.testing.assert_array_equal(grad, 0.0)


def test_groups_far_apart_are_predicted_and_equal_ones_are_not():
  ids = np.repeat(np.arange(4), 8)
  apart = 20.0 * np.eye(4, dtype=np.float32)[ids]
  mask = np.ones(32, bool)
  np.testing.assert_allclose(
      predicted(apart, ids, mask, 4), np.log(4.0), rtol=1e-5)
  np.testing.assert_allclose(
      predicted(np.ones_like(apart), ids, mask, 4), 0.0, atol=1e-6)


def test_groups_spread_over_devices_are_predicted_as_on_one():
  n = 4
  rng = np.random.default_rng(1)
  features = rng.normal(size=(n, 6, 3)).astype(np.float32)
  ids, mask = rng.integers(0, 5, (n, 6)), rng.random((n, 6)) < 0.8
  found = jax.vmap(lambda f, i, m: predicted(f, i, m, 5, axis_name='d'),
                   axis_name='d')(features, ids, mask)
  expected = predicted(*(v.reshape(n * 6, *v.shape[2:])
                         for v in (features, ids, mask)), 5)
  np.testing.assert_allclose(
      found.reshape(-1), expected, rtol=1e-5, atol=1e-6)


def test_there_is_a_critic_for_every_other_grouping():
  model = dataclasses.replace(MODEL, factors=parse_factors(
      'c:3:digit,light:2:light,style:2'))
  critics = init_critics(model, [
      Penalty('adversary', 'style', 1.0), Penalty('contrast', 'c', 1.0),
      Penalty('adversary', 'light', 1.0)], KEY)
  assert {name: list(of) for name, of in critics.items()} == {
      'adversary/style': ['c', 'light'], 'adversary/light': ['c']}
  assert init_critics(model, [Penalty('contrast', 'c', 1.0)], KEY) is None


def test_the_penalty_needs_its_critics():
  batch = make_batch(MODEL, _IDS)
  drawn = draw_codes(MODEL, init_params(MODEL), KEY, batch, {'content': 4})
  with pytest.raises(ValueError, match='penalty adversary/style needs critics'):
    penalty_terms(MODEL, _CONFIG.penalties, drawn, {'content': 4})


def _separated_batch():
  """Images whose mean is their group's: an encoder reveals the group."""
  ids = np.repeat(np.arange(4), 12).astype(np.int32)
  batch = make_batch(MODEL, ids)
  return batch._replace(
      x=np.float32(0.2 * batch.x + 0.2 * ids[:, None, None, None]))


@jax.jit
def _step(state):
  return train_step(MODEL, _CONFIG, {'content': 4}, state, _separated_batch())


def test_critics_learn_and_the_encoder_escapes_them():
  state = init_state(MODEL, _CONFIG)
  frozen, values = state, []
  for _ in range(60):  # The critic alone learns: the encoder is put back.
    moved, metrics = _step(frozen)
    values.append(float(metrics.sums.penalties['adversary/style']))
    frozen = frozen._replace(critics=moved.critics)
  assert values[-1] > values[0] + 12  # Nats of 48 rows.
  state, caught = frozen, values[-1]
  for _ in range(300):
    state, metrics = _step(state)
  assert float(metrics.sums.penalties['adversary/style']) < 0.5 * caught


def test_the_ascent_is_on_the_penalty_whatever_its_weight():
  state = init_state(MODEL, _CONFIG)

  def value(critics):
    drawn = draw_codes(MODEL, state.params, KEY, _separated_batch(),
                       {'content': 4})
    return jnp.sum(penalty_terms(
        MODEL, _CONFIG.penalties, drawn, {'content': 4}, critics)[
            'adversary/style'])

  grad = jax.jit(jax.grad(value))(state.critics.params)
  changes = []
  for weight in (0.01, 3.0):
    config = TrainConfig(penalties=(Penalty('adversary', 'style', weight),))
    after = jax.jit(functools.partial(train_step, MODEL, config, {
        'content': 4}))(state, _separated_batch())[0]
    changes.append(jax.tree.map(
        lambda new, old: new - old, after.critics.params,
        state.critics.params)['adversary/style']['content'])
    assert optax.tree.vdot(
        changes[-1], grad['adversary/style']['content']) > 0
  # Not the last bias: all features may move together, so it has no gradient.
  first, last = (c['params']['Dense_0']['kernel'] for c in changes)
  np.testing.assert_allclose(first, last, atol=1e-5)
