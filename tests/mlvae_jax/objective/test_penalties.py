"""Penalties beside the ELBO: contrast and leakage."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlvae_jax.model.factors import parse_factors
from mlvae_jax.objective.elbo import elbo_terms, sum_terms
from mlvae_jax.objective.penalties.contrast import contrastive_loss
from mlvae_jax.objective.penalties.leakage import (
    around_groups,
    discrepancy,
    standardize,
)
from mlvae_jax.objective.penalties.registry import Penalty
from tests.helpers.small_models import (
    KEY,
    MODEL,
    assert_close,
    init_params,
    make_batch,
    penalised_terms,
)


def _contrast_loop(means, ids, mask):
  """The contrast as its formula says, row by row in float64."""
  unit = means / np.linalg.norm(means, axis=1, keepdims=True)
  result, real = np.zeros(len(ids)), np.flatnonzero(mask)
  for i in real:
    logits = {j: unit[i] @ unit[j] / 0.1 for j in real if j != i}
    partners = [j for j in logits if ids[j] == ids[i]]
    if partners:
      log_total = np.log(sum(np.exp(logit) for logit in logits.values()))
      result[i] = -np.mean([logits[j] - log_total for j in partners])
  return result


def _leakage_loop(z, ids, mask):
  """The leakage as its formula says, row by row in float64."""
  result, real = np.zeros(len(ids)), np.flatnonzero(mask)
  dim = z.shape[1]
  for i in real:
    kernel = {
        j: np.mean([np.exp(-0.5 * np.sum((z[i] - z[j]) ** 2) / variance)
                    for variance in (dim / 4, dim, dim * 4)])
        for j in real if j != i}
    same = [k for j, k in kernel.items() if ids[j] == ids[i]]
    others = [k for j, k in kernel.items() if ids[j] != ids[i]]
    if same and others:
      result[i] = np.mean(same) - np.mean(others)
  return result


_LOOPS = {contrastive_loss: _contrast_loop, discrepancy: _leakage_loop}
each_penalty = pytest.mark.parametrize('penalty', list(_LOOPS))


@functools.partial(jax.jit, static_argnums=0)
def _penalty_and_grad(penalty, codes, ids, mask):
  """A penalty per row, and the gradient of its sum."""

  def total(codes):
    values = penalty(codes, ids, mask)
    return jnp.sum(values), values

  grad, values = jax.grad(total, has_aux=True)(codes)
  return values, grad


# Row 2 has no partner, row 4 only one of padding; the last two are padding.
_IDS = np.array([0, 1, 2, 1, 3, 0, 1, 3, 0])
_MASK = np.arange(9) < 7
_CODES = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)


@each_penalty
def test_penalties_and_their_gradients_are_those_of_a_loop(penalty):
  found, grad = _penalty_and_grad(penalty, _CODES, _IDS, _MASK)
  codes, loop = np.float64(_CODES), _LOOPS[penalty]
  np.testing.assert_allclose(
      found, loop(codes, _IDS, _MASK), rtol=1e-4, atol=1e-6)
  expected = np.zeros_like(codes)
  for at in np.ndindex(codes.shape):
    step = np.zeros_like(codes)
    step[at] = 1e-5
    expected[at] = (loop(codes + step, _IDS, _MASK)
                    - loop(codes - step, _IDS, _MASK)).sum() / 2e-5
  np.testing.assert_allclose(
      grad, expected, rtol=1e-4, atol=1e-4 * np.max(np.abs(expected)))


@pytest.mark.parametrize(('dim', 'kind'), [
    (1, 'normal'), (10, 'normal'), (64, 'normal'), (10, 'near'),
    (10, 'outlier'), (10, 'same')])
def test_discrepancies_keep_their_digits(dim, kind):
  """Distances by a matrix product lose digits; not those that matter."""
  rng = np.random.default_rng(dim)
  codes, ids = rng.normal(size=(40, dim)), np.arange(40) % 4
  if kind == 'near':  # Pairs at a distance of some 1e-3.
    codes[20:] = codes[:20] + 1e-3 * rng.normal(size=(20, dim))
  elif kind == 'outlier':
    codes[0] = 100.0
  elif kind == 'same':
    codes[20:] = codes[:20]
  codes, mask = codes.astype(np.float32), np.arange(40) < 38
  found, grad = _penalty_and_grad(discrepancy, codes, ids, mask)
  exact = np.float64(codes)
  np.testing.assert_allclose(
      found, _leakage_loop(exact, ids, mask), atol=2e-6)
  direction = rng.normal(size=codes.shape)
  slope = (_leakage_loop(exact + 1e-5 * direction, ids, mask)
           - _leakage_loop(exact - 1e-5 * direction, ids, mask)).sum() / 2e-5
  np.testing.assert_allclose(
      np.sum(grad * direction), slope, rtol=1e-4, atol=1e-5)


@each_penalty
def test_rows_without_a_partner_and_padding_have_no_penalty(penalty):
  found, grad = _penalty_and_grad(penalty, _CODES, _IDS, _MASK)
  np.testing.assert_array_equal(np.flatnonzero(found), [0, 1, 3, 5, 6])
  # Rows without a partner are others to the rest, padding is nothing.
  assert np.all(np.any(grad[:7] != 0, axis=1))
  np.testing.assert_array_equal(grad[7:], 0.0)


@each_penalty
@pytest.mark.parametrize('ids, mask', [
    (np.arange(9), np.ones(9, bool)),  # Nobody has a partner.
    (np.zeros(9, int), np.arange(9) == 4),  # One row.
    (np.zeros(9, int), np.zeros(9, bool)),  # None.
])
def test_without_pairs_of_a_group_the_penalty_is_zero(penalty, ids, mask):
  for values in _penalty_and_grad(penalty, _CODES, ids, mask):
    np.testing.assert_array_equal(values, 0.0)


@each_penalty
def test_a_batch_of_a_single_row_has_no_penalty(penalty):
  for values in _penalty_and_grad(
      penalty, _CODES[:1], _IDS[:1], np.ones(1, bool)):
    np.testing.assert_array_equal(values, 0.0)


@each_penalty
def test_codes_of_zero_have_finite_gradients(penalty):
  for values in _penalty_and_grad(
      penalty, np.zeros_like(_CODES), _IDS, _MASK):
    assert np.all(np.isfinite(values))


def test_contrast_is_near_zero_where_pairs_are_far_from_each_other():
  ids = np.array([0, 0, 1, 1, 2, 2, 3, 3, 0])
  codes = np.float32(np.eye(4)[ids] * np.arange(1, 10)[:, None])
  mask = np.arange(9) < 8
  found, _ = _penalty_and_grad(contrastive_loss, codes, ids, mask)
  np.testing.assert_allclose(
      found[:8], np.log1p(6 * np.exp(-10.0)), rtol=1e-2)
  # Where each is with another's partner, it is as large as can be.
  swapped = codes[[2, 0, 4, 2, 6, 4, 0, 6, 8]]
  found, _ = _penalty_and_grad(contrastive_loss, swapped, ids, mask)
  assert np.all(found[:8] > 10)


def test_contrast_does_not_know_the_lengths_of_codes():
  scale = np.float32(np.linspace(0.1, 10.0, 9))[:, None]
  np.testing.assert_allclose(
      *(_penalty_and_grad(contrastive_loss, codes, _IDS, _MASK)[0]
        for codes in (_CODES, _CODES * scale)), rtol=1e-4)


def test_leakage_is_zero_on_average_where_codes_do_not_tell_the_group():
  rng = np.random.default_rng(1)
  codes = rng.normal(size=(4000, 9, 3)).astype(np.float32)
  ids = np.arange(9) // 3
  values = jax.jit(jax.vmap(
      lambda z: jnp.mean(discrepancy(z, ids, np.ones(9, bool)))))
  found = np.asarray(values(codes), np.float64)
  error = found.std() / np.sqrt(len(found))
  assert error < 2e-3 and abs(found.mean()) < 4 * error
  told = np.asarray(values(codes + np.float32(ids)[:, None]), np.float64)
  assert told.mean() > 20 * error


def _kernel(z, dim):
  distance = np.square(z[:, None] - z).sum(-1)
  return np.mean([np.exp(-0.5 * distance / variance)
                  for variance in (dim / 4, dim, dim * 4)], axis=0)


def _squared_mmd(z, ids):
  """Of each group's rows and all rows, and half that of pairs of groups."""
  kernel, groups = _kernel(z, z.shape[1]), np.unique(ids)
  weights = np.stack([(ids == g) / np.sum(ids == g) for g in groups])
  everyone = np.full(len(z), 1 / len(z))
  to_all = [(w - everyone) @ kernel @ (w - everyone) for w in weights]
  between = [0.5 * (v - w) @ kernel @ (v - w)
             for i, v in enumerate(weights) for w in weights[:i]]
  return np.array(to_all), np.mean(between)


@pytest.mark.slow
def test_leakage_is_half_the_mmd_between_two_groups():
  """So G / (G - 1) times that between a group and everyone."""
  rng = np.random.default_rng(0)
  ids = np.repeat(np.arange(3), 400)
  z = rng.normal(size=(1200, 2)) + 0.8 * ids[:, None]
  found = np.mean(discrepancy(
      jnp.asarray(z, jnp.float32), ids, np.ones(1200, bool)))
  to_all, between = _squared_mmd(z, ids)
  np.testing.assert_allclose(found, between, rtol=0.02)
  np.testing.assert_allclose(found, 3 / 2 * np.mean(to_all), rtol=0.02)


def test_members_that_repel_each_other_drive_leakage_below_zero():
  ids, mask = np.repeat(np.arange(6), 2), np.ones(12, bool)
  # Of each pair one stands on either side, whatever its group.
  z = jnp.asarray(np.tile([[3.0], [-3.0]], (6, 1)), jnp.float32)
  assert np.mean(discrepancy(z, ids, mask)) < -0.4


def test_unknown_kinds_and_weights_below_zero_are_refused():
  with pytest.raises(ValueError, match="no penalty 'leakage'; the penalties "
                     'are contrast, mean_leakage, adversary'):
    Penalty('leakage', 'style', 1.0)
  for weight in (-1.0, np.nan, np.inf):
    with pytest.raises(ValueError, match='at least 0 for penalty mean_leak'):
      Penalty('mean_leakage', 'style', weight)
  with pytest.raises(ValueError, match="style as a number, got '1'"):
    Penalty('mean_leakage', 'style', '1')


@pytest.mark.parametrize('norm', [0.0, 1e-20, 1e-6])
def test_contrast_pulls_no_harder_where_means_are_near_zero(norm):
  means = norm * np.random.default_rng(0).normal(size=(6, 4)).astype('f')
  grad = jax.grad(lambda m: jnp.sum(contrastive_loss(
      m, np.arange(6) // 2, np.ones(6, bool))))(jnp.asarray(means))
  assert np.all(np.isfinite(grad)) and np.max(np.abs(grad)) < 2e4


@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16])
def test_moments_of_low_precision_are_those_of_float32(dtype):
  ids, mask = np.zeros(3000, int), np.ones(3000, bool)
  values = jnp.full((3000, 2), 1.5, dtype).at[::2].set(0.5)
  expected = np.where(np.arange(3000) % 2, 1.0, -1.0)
  np.testing.assert_allclose(
      standardize(values, mask)[:, 0], expected, rtol=1e-3)
  np.testing.assert_allclose(
      around_groups(values, ids, mask, 1)[:, 0], 0.5 * expected, rtol=1e-3)


def test_leakage_of_a_single_group_is_zero():
  for values in _penalty_and_grad(
      discrepancy, _CODES, np.zeros(9, int), np.ones(9, bool)):
    np.testing.assert_array_equal(values, 0.0)


_NAMES = ('contrast/content', 'mean_leakage/style')


def _penalties(*names):
  return [Penalty(*name.split('/'), 1.0) for name in names]


@jax.jit
def _penalised(params, batch):
  """Terms of MODEL with both penalties, and the penalties' gradient."""

  def total(params):
    terms = penalised_terms(
        MODEL, params, KEY, batch, {'content': 5}, _penalties(*_NAMES))
    sums = sum_terms(terms)
    return sum(sums.penalties[name] for name in _NAMES), terms

  grad, terms = jax.grad(total, has_aux=True)(params)
  return terms, grad


@pytest.mark.slow
def test_penalties_are_of_means_and_change_no_elbo():
  params = init_params(MODEL)
  batch = make_batch(MODEL, [0, 1, 1, 2, 0, 1, 4, 4])
  found, _ = _penalised(params, batch)
  expected = jax.jit(lambda params: elbo_terms(
      MODEL, params, KEY, batch, {'content': 5}))(params)
  assert expected.penalties == {}
  assert_close(found._replace(penalties={}), expected)
  assert sum_terms(found).elbo() == pytest.approx(
      float(sum_terms(expected).elbo()), rel=1e-5)
  q = jax.jit(MODEL.encode)(params, batch.x)
  ids = batch.group_ids['content']
  assert set(found.penalties) == set(_NAMES)
  np.testing.assert_allclose(
      found.penalties['contrast/content'],
      _contrast_loop(_float64(q['content'].mean), ids, batch.mask),
      rtol=1e-3, atol=1e-5)
  np.testing.assert_allclose(
      found.penalties['mean_leakage/style'], _leakage_loop(
          _standardized(q['style'].mean), ids, batch.mask),
      rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('garbage', [0.5, np.nan, np.inf])
def test_pixels_of_padding_touch_no_penalty(garbage):
  params = init_params(MODEL)
  mask = np.array([True, False, True, True, True, False, True, False])
  ids = np.array([0, 1, 4, 0, 4, 0, 2, 3])
  batch = make_batch(MODEL, ids, mask=mask)
  black = batch._replace(x=np.where(mask[:, None, None, None], batch.x, 0))
  batch.x[~mask] = garbage
  terms, grad = _penalised(params, batch)
  expected = _penalised(params, black)
  assert_close((terms, grad), expected)
  for values in terms.penalties.values():
    np.testing.assert_array_equal(np.flatnonzero(values), [0, 2, 3, 4])
  assert np.any(np.asarray(grad['encoder']['heads']['kernel']) != 0)
  for value in jax.tree.leaves(grad['decoder']):
    np.testing.assert_array_equal(value, 0.0)


def test_a_factor_may_leak_the_groups_of_every_other_factor():
  model = dataclasses.replace(
      MODEL, factors=parse_factors('who:3:person,light:2:lamp,style:2'))
  params = init_params(model)
  batch = make_batch(model, [0] * 8)._replace(group_ids={
      'who': np.array([0, 0, 1, 1, 2, 2, 3, 3]),
      'light': np.array([0, 1, 0, 1, 0, 1, 1, 1])})

  @jax.jit
  def run(params):
    return penalised_terms(
        model, params, KEY, batch, {'who': 4, 'light': 2},
        _penalties('mean_leakage/who', 'mean_leakage/light',
                   'mean_leakage/style')).penalties

  found = run(params)
  q = jax.jit(model.encode)(params, batch.x)
  ids = batch.group_ids
  for name, others in (
      ('who', ['light']), ('light', ['who']), ('style', ['who', 'light'])):
    mean = _float64(q[name].mean)
    if name != 'style':  # Less the mean of the row's own group.
      mean -= np.stack([mean[ids[name] == i].mean(0) for i in ids[name]])
    expected = sum(
        _leakage_loop(_standardized(mean), ids[other], batch.mask)
        for other in others)
    np.testing.assert_allclose(
        found[f'mean_leakage/{name}'], expected, rtol=1e-3, atol=1e-4)


def test_standardized_values_of_a_batch_and_of_its_devices():
  mask = np.array([True] * 6 + [False] * 2)
  values = np.random.default_rng(0).normal(3.0, 2.0, (8, 3)).astype(np.float32)
  values[:, 2] = 7.0  # Says nothing.
  values[~mask] = 1e6
  found = jax.jit(standardize)(values, mask)
  np.testing.assert_allclose(
      found[:6, :2], _standardized(values[:6, :2]), rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(found[6:], 0.0)
  np.testing.assert_allclose(found[:, 2], 0.0, atol=1e-3)
  spread = jax.vmap(
      functools.partial(standardize, axis_name='devices'),
      axis_name='devices')(values.reshape(4, 2, 3), mask.reshape(4, 2))
  np.testing.assert_allclose(
      spread.reshape(8, 3)[:, :2], found[:, :2], rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(spread.reshape(8, 3)[:, 2], 0.0, atol=1e-3)


def test_values_around_their_groups_of_a_batch_and_of_its_devices():
  rng = np.random.default_rng(0)
  mask, ids = rng.random(8) < 0.7, np.array([0, 2, 0, 2, 2, 3, 0, 2])
  values = rng.normal(size=(8, 3)).astype(np.float32)
  values[~mask] = 1e6
  expected = np.zeros((8, 3))
  for i in np.flatnonzero(mask):
    expected[i] = values[i] - values[mask & (ids == ids[i])].mean(0)
  found = jax.jit(around_groups, static_argnums=3)(values, ids, mask, 5)
  np.testing.assert_allclose(found, expected, atol=1e-5)
  spread = jax.vmap(
      lambda *v: around_groups(*v, 5, axis_name='devices'),
      axis_name='devices')(
          values.reshape(4, 2, 3), ids.reshape(4, 2), mask.reshape(4, 2))
  np.testing.assert_allclose(spread.reshape(8, 3), expected, atol=1e-5)


def _float64(values):
  return np.asarray(values, np.float64)


def _standardized(values):
  values = _float64(values)
  return (values - values.mean(0)) / values.std(0)


@pytest.mark.slow
@each_penalty
def test_nan_in_padding_reaches_no_gradient(penalty):
  z = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), jnp.float32)
  ids, mask = np.array([0, 0, 1, 1, 0, 1]), np.arange(6) < 4
  bad = z.at[4:].set(jnp.nan)
  value, grad = jax.value_and_grad(
      lambda z: jnp.sum(penalty(z, ids, mask)))(bad)
  expected, clean = jax.value_and_grad(
      lambda z: jnp.sum(penalty(z, ids, mask)))(z)
  np.testing.assert_allclose(value, expected)
  np.testing.assert_allclose(grad[:4], clean[:4])
