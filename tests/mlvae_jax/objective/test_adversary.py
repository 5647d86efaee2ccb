"""The adversary: critics that are trained to find what codes reveal."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mlvae_jax.data.batches import make_feed
from mlvae_jax.data.feed import DEVICES, all_devices, local_batch
from mlvae_jax.data.grouped import GroupedData
from mlvae_jax.data.plan import Settings
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.model.factors import Factor, parse_factors
from mlvae_jax.objective.draws import draw_codes
from mlvae_jax.objective.penalties import adversary
from mlvae_jax.objective.penalties.registry import (
    Penalty,
    init_critics,
    penalty_terms,
)
from mlvae_jax.objective.penalties.rows import Other, Rows
from mlvae_jax.training.step import TrainConfig, init_state, train_step
from tests.helpers.small_models import (
    KEY,
    MODEL,
    SHAPE,
    assert_close,
    init_params,
    make_batch,
)

_CONFIG = TrainConfig(
    penalties=(Penalty('adversary', 'style', 30.0),), learning_rate=5e-3)


# Group 2 is absent, group 4 has only padding; the last two rows are padding.
_IDS = np.array([0, 1, 3, 1, 3, 0, 1, 4, 0], np.int32)
_MASK = np.arange(9) < 7
_CODES = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
_NUMBERS = np.array([7, 2, 5, 4096 + 3, 1, -1], np.int32)
_CRITIC = adversary.init_critics(KEY, Factor('style', 3), ['c'])['c']
_CRITIC = _CRITIC._replace(biases=jax.random.normal(
    KEY, _CRITIC.biases.shape))


def _predicted(codes, ids=_IDS, mask=_MASK, axis_name=None):
  return adversary.predicted(_CRITIC, codes, Other(ids, 6, _NUMBERS), mask,
                   axis_name=axis_name)


def test_prediction_is_that_of_a_loop():
  found, z = jax.jit(_predicted)(_CODES), np.float64(_CODES)
  layers = [{k: np.float64(v) for k, v in layer.items()}
            for layer in _CRITIC.network['params'].values()]
  for layer in layers[:2]:
    z = np.maximum(z @ layer['kernel'] + layer['bias'], 0.0)
  z = z @ layers[2]['kernel'] + layers[2]['bias']
  expected = np.zeros(9)
  for i in np.flatnonzero(_MASK):
    # Numbers of the groups 0, 1 and 3, which the batch has rows of.
    logit = {group: z[i] @ np.float64(_CRITIC.weights[number])
                    + float(_CRITIC.biases[number])
             for group, number in ((0, 7), (1, 2), (3, 3))}
    share = {group: np.mean(_IDS[_MASK] == group) for group in logit}
    probability = share[_IDS[i]] * np.exp(logit[_IDS[i]]) / sum(
        share[group] * np.exp(logit[group]) for group in logit)
    expected[i] = np.log(probability / share[_IDS[i]])
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_single_group_or_none_is_not_predicted():
  for mask in (_IDS == 0, np.zeros(9, bool)):
    value, grad = jax.jit(jax.value_and_grad(
        lambda z, mask=mask: jnp.sum(_predicted(z, mask=mask))))(_CODES)
    assert abs(value) < 1e-6
    np.testing.assert_allclose(grad, 0.0, atol=1e-6)


def test_padding_reaches_neither_value_nor_gradient():
  total = jax.jit(jax.value_and_grad(lambda z: jnp.sum(_predicted(z))))
  value, grad = total(_CODES)
  assert np.all(np.isfinite(grad)) and np.all(grad[7:] == 0.0)
  other = np.where(_MASK[:, None], _CODES, 1e3).astype(np.float32)
  np.testing.assert_array_equal(value, total(other)[0])


def test_groups_spread_over_devices_are_predicted_as_on_one():
  rng = np.random.default_rng(1)
  codes = rng.normal(size=(4, 6, 3)).astype(np.float32)
  ids = rng.choice(np.array([0, 1, 3]), (4, 6))
  mask = rng.random((4, 6)) < 0.8
  found = jax.jit(jax.vmap(
      lambda *rows: _predicted(*rows, axis_name='d'), axis_name='d'))(
          codes, ids, mask)
  expected = jax.jit(_predicted)(*(
      v.reshape(24, *v.shape[2:]) for v in (codes, ids, mask)))
  np.testing.assert_allclose(
      found.reshape(-1), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('num_devices', [1, 2])
def test_a_critic_that_knows_nothing_scores_0_whatever_the_groups(num_devices):
  ids = np.repeat(np.array([0, 1, 3]), [1, 4, 15])
  mask = np.append(np.ones(20, bool), np.zeros(4, bool))
  order = np.random.default_rng(0).permutation(24)
  ids, mask = (np.reshape(v[order], (num_devices, -1)) for v in (
      np.append(ids, [3, 3, 3, 4]), mask))
  codes = np.ones((*ids.shape, 3), np.float32)

  def values(biases):
    critic = _CRITIC._replace(
        weights=jnp.zeros_like(_CRITIC.weights), biases=biases)
    return jax.jit(jax.vmap(lambda *rows: adversary.predicted(
        critic, rows[0], Other(rows[1], 6, _NUMBERS), rows[2], axis_name='d'),
        axis_name='d'))(codes, ids, mask)

  none = jnp.zeros_like(_CRITIC.biases)
  np.testing.assert_allclose(values(none), 0.0, atol=1e-6)
  # Nor does it help to prefer one group, even the largest.
  for number in (7, 2, 3):
    assert np.sum(values(none.at[number].set(0.5))) < -0.1


@pytest.mark.slow
def test_there_is_a_critic_for_every_other_grouping():
  model = dataclasses.replace(MODEL, factors=parse_factors(
      'c:3:digit,light:2:light,style:2'))
  critics = init_critics(model, [
      Penalty('adversary', 'style', 1.0), Penalty('contrast', 'c', 1.0),
      Penalty('adversary', 'light', 1.0)], KEY)
  assert {name: list(of) for name, of in critics.items()} == {
      'adversary/style': ['c', 'light'], 'adversary/light': ['c']}
  assert init_critics(model, [Penalty('contrast', 'c', 1.0)], KEY) is None


def _inputs(mean, ids=(0, 0, 1, 1, 0, 1, 1, 0)):
  q = Normal(jnp.asarray(mean), jnp.zeros_like(mean)).masked(np.arange(8) < 7)
  return adversary._inputs(Rows(
      q, np.arange(8) < 7, np.array(ids), 2, {}))


@pytest.mark.slow
def test_critics_of_grouped_codes_are_told_the_mean_of_the_group():
  mean = np.random.default_rng(0).normal(size=(8, 2)).astype(np.float32)
  found = np.asarray(jax.jit(_inputs)(mean))
  ids, real = np.array([0, 0, 1, 1, 0, 1, 1]), mean[:7].astype(np.float64)
  of_group = np.stack([real[ids == g].mean(0) for g in (0, 1)])[ids]
  for part, expected in ((found[:, :2], real - of_group),
                         (found[:, 2:], of_group)):
    expected = (expected - expected.mean(0)) / expected.std(0)
    np.testing.assert_allclose(part[:7], expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(part[7], 0.0)
  # The group's mean is what the code is for: no gradient of it.
  weights = np.random.default_rng(1).normal(size=(8, 4)).astype(np.float32)

  def grad(weights):
    return jax.grad(lambda m: jnp.sum(_inputs(m) * weights))(mean)

  np.testing.assert_allclose(
      grad(weights), grad(weights * [1, 1, 0, 0]), rtol=1e-5)
  np.testing.assert_array_equal(grad(weights * [0, 0, 1, 1]), 0.0)


@pytest.mark.slow
def test_the_penalty_needs_its_critics():
  batch = make_batch(MODEL, _IDS % 4)
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


@pytest.mark.slow
def test_critics_learn_and_the_encoder_escapes_them():
  state = init_state(MODEL, _CONFIG)
  frozen, values = state, []
  for _ in range(60):  # The critic alone learns: the encoder is put back.
    moved, metrics = _step(frozen)
    values.append(float(metrics.sums.penalties['adversary/style']))
    frozen = frozen._replace(critics=moved.critics)
  assert values[-1] > values[0] + 12  # Nats of 48 rows.
  state, caught, values = frozen, values[-1], []
  for _ in range(240):
    state, metrics = _step(state)
    values.append(float(metrics.sums.penalties['adversary/style']))
  # The critic keeps learning too, so it is sometimes ahead.
  assert np.mean(values) < 0.8 * caught


@pytest.mark.slow
def test_the_ascent_is_on_the_penalty_whatever_its_weight():
  state = init_state(MODEL, _CONFIG)

  def value(critics):
    drawn = draw_codes(MODEL, state.params, KEY, _separated_batch(),
                       {'content': 4})
    return jnp.sum(penalty_terms(
        MODEL, _CONFIG.penalties, drawn, {'content': 4}, critics)[
            'adversary/style'])

  grad = jax.jit(jax.grad(value))(state.critics.params)
  for weight in (0.01, 3.0):
    config = TrainConfig(penalties=(Penalty('adversary', 'style', weight),))
    after = jax.jit(functools.partial(train_step, MODEL, config, {
        'content': 4}))(state, _separated_batch())[0]
    change = jax.tree.map(
        lambda new, old: new - old, after.critics.params, state.critics.params)
    assert optax.tree.vdot(change, grad) > 0
    # Adam's first step is as long for any gradient; its average of gradients,
    # of which the first has a share of 0.1, is not. There are 4 groups.
    assert_close(after.critics.opt_state[0].mu, jax.tree.map(
        lambda g: -0.1 * g / 4, grad))


@pytest.mark.slow
def test_critics_of_weight_0_learn_and_the_model_does_not_notice():
  def after(*penalties):
    config = TrainConfig(penalties=penalties)
    return jax.jit(functools.partial(train_step, MODEL, config, {
        'content': 4}))(init_state(MODEL, config), _separated_batch())[0]

  start = init_state(MODEL, _CONFIG).critics.params['adversary/style']
  measured, plain = after(Penalty('adversary', 'style', 0.0)), after()
  moved = measured.critics.params['adversary/style']
  # The first step of Adam is the learning rate, whatever the gradient.
  np.testing.assert_allclose(np.max(np.abs(
      moved['content'].weights - start['content'].weights)), 1e-3, rtol=0.01)
  assert_close(measured.params, plain.params)


def test_a_penalty_has_one_weight():
  with pytest.raises(ValueError, match='every penalty once, got adversary/st'):
    TrainConfig(penalties=_CONFIG.penalties * 2)


def test_critics_know_a_group_by_its_number_within_the_data():
  data = GroupedData.from_labels(
      np.random.default_rng(0).random((30, *SHAPE), np.float32),
      np.repeat(np.arange(10), 3))
  feed = make_feed(MODEL, data, Settings(
      4, 3, visit='groups'), devices=all_devices()[:2])
  x, index, _ = feed.chunk(0, 2)
  for step in range(2):
    batch = jax.vmap(
        lambda i: local_batch(MODEL, x, i, None), axis_name=DEVICES)(
            jax.tree.map(lambda leaf, step=step: leaf[:, step], index))
    numbers, ids = (np.asarray(of['content']) for of in (
        batch.group_numbers, batch.group_ids))
    for device in range(len(ids)):
      real = np.asarray(batch.mask[device])
      rows = np.asarray(index.rows)[device, step]
      np.testing.assert_array_equal(
          numbers[device][ids[device]][real], data.labels[rows][real])
