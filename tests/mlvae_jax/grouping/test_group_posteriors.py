"""Group posteriors: products and mixtures, their samples and their KLs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlvae_jax.grouping.adaptive import Adaptive
from mlvae_jax.grouping.free import Free
from mlvae_jax.grouping.group_posteriors import GROUP_POSTERIORS
from mlvae_jax.grouping.mixture import Mixture
from mlvae_jax.grouping.moments import Moments
from mlvae_jax.grouping.normal import Normal, kl_divergence
from mlvae_jax.grouping.posterior import SAMPLE_PER, GroupPosterior, Members
from mlvae_jax.grouping.product import (
    Harmonic,
    PriorProduct,
    Product,
    product_of_normals,
)

_MEAN = np.array([[-1.0], [0.4], [1.5]], np.float32)
_LOGVAR = np.array([[-1.0], [-2.5], [0.3]], np.float32)
_ENCODED = [kind() for kind in GROUP_POSTERIORS.values() if kind.has_encoder]
_KEYS = jax.random.split(jax.random.key(0), 4000)


def _members(q, ids, mask=None, rows=None, **more):
  ids = jnp.asarray(ids)
  mask = jnp.ones(len(ids), bool) if mask is None else jnp.asarray(mask)
  rows = jnp.arange(len(ids)) if rows is None else jnp.asarray(rows)
  return Members(q, ids, mask, more.pop('evidence', mask), rows, **more)


def _random(num_rows, dim, seed=0):
  rng = np.random.default_rng(seed)
  return Normal(rng.normal(size=(num_rows, dim)).astype(np.float32),
                rng.normal(size=(num_rows, dim)).astype(np.float32))


def _integrate(mean, logvar):
  """KL(mixture || N(0, 1)) in one dimension, by quadrature."""
  c = np.linspace(-12, 12, 200_001)
  std = np.exp(0.5 * logvar)
  density = np.mean(
      np.exp(-0.5 * ((c - mean) / std) ** 2) / std / np.sqrt(2 * np.pi),
      axis=0)
  log_q = np.log(np.maximum(density, 1e-300))
  log_p = -0.5 * (c ** 2 + np.log(2 * np.pi))
  return np.trapezoid(density * (log_q - log_p), c)


def _mean_kl(mean, logvar, sample_per='row'):
  """The estimated KL of one group, averaged over many keys."""
  def one(key):
    members = _members(Normal(mean, logvar), [0] * len(mean))
    return Mixture().sample(key, members, 1, sample_per=sample_per).kl[0]
  return jnp.mean(jax.vmap(one)(_KEYS))


@pytest.mark.parametrize('sample_per', ['row', 'group'])
def test_the_mixtures_kl_agrees_with_numerical_integration(sample_per):
  value = jax.jit(_mean_kl, static_argnums=2)(_MEAN, _LOGVAR, sample_per)
  expected = _integrate(_MEAN.astype(float), _LOGVAR.astype(float))
  np.testing.assert_allclose(value, expected, atol=0.03)


@pytest.mark.slow
def test_the_mixtures_kl_has_the_right_gradient():
  found = jax.jit(jax.grad(_mean_kl, argnums=(0, 1)))(_MEAN, _LOGVAR)
  for which, grad in enumerate(found):
    for i in range(3):
      step = np.zeros((3, 1))
      step[i] = 1e-4
      up, down = (
          [value.astype(float) + sign * step * (which == j)
           for j, value in enumerate((_MEAN, _LOGVAR))] for sign in (1, -1))
      slope = (_integrate(*up) - _integrate(*down)) / 2e-4
      np.testing.assert_allclose(grad[i, 0], slope, atol=0.03)


def test_members_draw_from_every_component_once():
  # Components so narrow that a code tells its component.
  q = Normal(np.arange(6, dtype=np.float32)[:, None],
             np.full((6, 1), -18, np.float32))
  ids = [0, 1, 0, 0, 1, 2]
  draw = jax.jit(lambda key: Mixture().sample(
      key, _members(q, ids), 3).codes[:, 0])
  first = []
  for key in _KEYS[:60]:
    component = np.round(np.asarray(draw(key))).astype(int)
    for group in range(3):
      rows = [i for i, g in enumerate(ids) if g == group]
      assert sorted(component[rows]) == rows
    first.append(component[0])
  count = np.bincount(first, minlength=4)
  assert min(count[[0, 2, 3]]) >= 10  # Each with probability 1/3.


@pytest.mark.slow
def test_codes_are_distributed_as_the_mixture():
  draw = jax.vmap(lambda key: Mixture().sample(
      key, _members(Normal(_MEAN, _LOGVAR), [0] * 3), 1
  ).codes[1, 0])
  codes = np.asarray(jax.jit(draw)(_KEYS))
  q = Mixture().combine(Normal(_MEAN, _LOGVAR), np.zeros(3, int), 1)
  np.testing.assert_allclose(codes.mean(), q.mean[0, 0], atol=0.08)
  np.testing.assert_allclose(
      codes.var(), np.exp(q.logvar[0, 0]), rtol=0.1)


@pytest.mark.parametrize(
    'kind', [kind for kind in _ENCODED if kind != PriorProduct()])
def test_a_group_of_one_is_its_members_normal(kind):
  q = _random(4, 3)
  group = kind.combine(q, np.array([2, 0, 3, 1]), 4)
  for ours, own in zip(group.take(jnp.array([2, 0, 3, 1])), q):
    np.testing.assert_allclose(ours, own, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('kind', _ENCODED)
def test_a_row_alone_is_a_group_of_one(kind):
  q = _random(4, 3)
  for ours, group in zip(kind.alone(q), kind.combine(q, np.arange(4), 4)):
    np.testing.assert_allclose(ours, group, rtol=1e-5, atol=1e-6)


def _expected(kind, mean, logvar):
  """Mean and variance of a group's posterior, in float64."""
  mean, var = mean.astype(float), np.exp(logvar.astype(float))
  precision = (1 / var).sum(0)
  product = (mean / var).sum(0) / precision
  average, spread = (mean.mean(0), var.mean(0)), mean.var(0)
  ratio = var / var.mean(0)
  delta = np.mean(ratio - np.log(ratio) - 1.0, axis=0) + spread / var.mean(0)
  is_shared = delta < (delta.max() + delta.min()) / 2
  return {
      Product(): (product, 1 / precision),
      PriorProduct(): ((mean / var).sum(0) / (1 + precision),
                       1 / (1 + precision)),
      Harmonic(): (product, 1 / (1 / var).mean(0)),
      Moments(): average,
      Adaptive(): (average[0], average[1] + np.where(is_shared, 0.0, spread)),
      Mixture(): (average[0], average[1] + spread),
  }[kind]


@pytest.mark.parametrize('scale', [1.0, 20.0])
@pytest.mark.parametrize('kind', _ENCODED)
def test_a_groups_posterior_is_that_of_float64(kind, scale):
  rng = np.random.default_rng(3)
  q = Normal(*(rng.normal(size=(200, 4)).astype(np.float32) * size
               for size in (3.0, scale)))  # Variances from e-80 to e80.
  ids = np.concatenate([rng.integers(0, 9, 199), [10]])
  mask = (rng.uniform(size=200) < 0.9) | (ids == 10)
  found = kind.combine(q, ids, 12, mask)
  for group in range(12):
    rows = (ids == group) & mask
    mean, var = (np.zeros(4), np.ones(4)) if not rows.any() else _expected(
        kind, q.mean[rows], q.logvar[rows])
    # A mean is accurate relative to the members' means.
    np.testing.assert_allclose(found.mean[group], mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.logvar[group], np.log(var), rtol=1e-5,
                               atol=1e-5)


def test_with_the_prior_no_variance_exceeds_its_own():
  q = Normal(jnp.zeros((3, 1)), jnp.array([[80.0], [0.0], [-80.0]]))
  found = PriorProduct().combine(q, np.arange(3), 3)
  np.testing.assert_allclose(
      found.logvar[:, 0], [0.0, -np.log(2.0), -80.0], rtol=1e-6, atol=1e-30)


def test_the_mixture_has_the_moments_of_its_members():
  q = _random(5, 2)
  group = Mixture().combine(q, np.array([1, 1, 0, 1, 0]), 3,
                  np.array([True, True, True, False, True]))
  for g, rows in ((1, [0, 1]), (0, [2, 4])):
    mean = q.mean[rows].mean(0)
    second = (np.exp(q.logvar[rows]) + q.mean[rows] ** 2).mean(0)
    np.testing.assert_allclose(group.mean[g], mean, rtol=1e-5)
    np.testing.assert_allclose(
        jnp.exp(group.logvar[g]), second - mean ** 2, rtol=1e-4)
  np.testing.assert_array_equal(group.mean[2], 0)
  np.testing.assert_array_equal(group.logvar[2], 0)


@pytest.mark.parametrize('kind', _ENCODED)
def test_padding_changes_nothing_even_where_it_is_nan(kind):
  q, ids = _random(6, 2), np.array([0, 1, 0, 1, 1, 0])
  mask = np.array([True] * 4 + [False] * 2)

  def total(mean, logvar, rows):
    members = _members(Normal(mean[:rows], logvar[:rows]), ids[:rows],
                       mask[:rows])
    found = kind.sample(_KEYS[0], members, 2)
    return jnp.sum(jnp.where(mask[:rows, None], found.codes, 0)) + jnp.sum(
        found.kl), found.kl_share

  short, long = (
      jax.jit(jax.value_and_grad(total, argnums=(0, 1), has_aux=True),
              static_argnums=2)(*q, rows) for rows in (4, 6))
  np.testing.assert_allclose(short[0][0], long[0][0], rtol=1e-5)
  np.testing.assert_array_equal(long[0][1], [1, 1])
  for ours, theirs in zip(short[1], long[1]):
    np.testing.assert_allclose(ours[:4], theirs[:4], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(theirs[4:], 0)


@pytest.mark.parametrize('sample_per', SAMPLE_PER)
@pytest.mark.parametrize('kind', _ENCODED)
def test_devices_draw_what_one_device_draws(kind, sample_per):
  num_devices = min(4, jax.local_device_count())
  num_rows = 4 * num_devices
  q = _random(num_rows, 2)
  ids = np.arange(num_rows) % 3  # Groups straddle devices.
  mask = np.arange(num_rows) < num_rows - 2

  def run(axis_name, mean, logvar, ids, mask, rows):
    return kind.sample(
        _KEYS[1], _members(Normal(mean, logvar), ids, mask, rows), 3,
        sample_per=sample_per, axis_name=axis_name)

  inputs = (*q, ids, mask, np.arange(num_rows))
  one = jax.jit(lambda *v: run(None, *v))(*inputs)
  many = jax.pmap(lambda *v: run('devices', *v), axis_name='devices')(
      *(v.reshape(num_devices, 4, *v.shape[1:]) for v in inputs))
  np.testing.assert_allclose(
      many.codes.reshape(num_rows, 2)[mask], one.codes[mask], rtol=1e-4,
      atol=1e-5)
  np.testing.assert_allclose(many.kl.sum(0), one.kl, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(many.kl_share.sum(0), one.kl_share, rtol=1e-5)


# Where no dimension is shared, rows have codes of their own: test_adaptive.py.
@pytest.mark.parametrize(
    'kind', [kind for kind in _ENCODED if kind != Adaptive()])
def test_only_evidence_makes_up_the_posterior(kind):
  q, ids = _random(5, 2), np.array([0, 0, 0, 1, 1])
  evidence = jnp.array([True, False, True, True, False])
  moved = Normal(np.where(evidence[:, None], q.mean, 50.0), q.logvar)
  first, second = (
      kind.sample(_KEYS[2], _members(v, ids, evidence=evidence), 2)
      for v in (q, moved))
  np.testing.assert_allclose(first.codes, second.codes, rtol=1e-5)
  np.testing.assert_allclose(first.kl, second.kl, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('kind', _ENCODED)
@pytest.mark.parametrize('sample_per', ['row', 'group'])
def test_a_group_without_evidence_has_the_prior(kind, sample_per):
  q = Normal(*(jnp.asarray(v + 7.0) for v in _random(5, 2)))
  ids, evidence = np.array([0, 0, 1, 1, 2]), np.array([1, 1, 0, 0, 0], bool)

  def draw(q, key):
    return kind.sample(key, _members(q, ids, evidence=evidence), 4,
                        sample_per=sample_per)

  found = jax.jit(jax.vmap(draw, (None, 0)))(q, _KEYS)
  np.testing.assert_array_equal(found.kl[:, 1:], 0)
  np.testing.assert_array_equal(found.kl_share[0], [1, 1, 1, 0])
  codes = np.asarray(found.codes[:, 2:])
  np.testing.assert_allclose(codes.mean((0, 1)), 0, atol=0.05)
  np.testing.assert_allclose(codes.std((0, 1)), 1, atol=0.03)
  grads = jax.grad(lambda q: jnp.sum(draw(q, _KEYS[0]).codes ** 2))(q)
  assert all(np.all(np.asarray(g)[2:] == 0) and np.all(np.isfinite(g))
             for g in grads)


def test_many_members_of_low_precision_are_all_counted():
  q = Normal(jnp.full((600, 1), 2.0, jnp.bfloat16),
             jnp.zeros((600, 1), jnp.bfloat16))
  ids = np.zeros(600, int)
  found = Mixture().combine(q, ids, 1)
  np.testing.assert_allclose(found.mean, 2.0, rtol=1e-3)
  np.testing.assert_allclose(found.logvar, 0.0, atol=1e-3)
  np.testing.assert_allclose(
      Product().combine(q, ids, 1).logvar, -np.log(600), rtol=1e-3)


def test_shares_weigh_the_kl_and_the_count():
  q, ids = _random(3, 2), np.array([0, 0, 1])
  shares = jnp.array([0.25, 0.25, 0.125])
  found = Product().sample(_KEYS[0], _members(q, ids, kl_share=shares), 2)
  kl = kl_divergence(product_of_normals(q, ids, 2))
  np.testing.assert_allclose(found.kl_share, [0.5, 0.125])
  np.testing.assert_allclose(found.kl, kl * np.array([0.5, 0.125]), rtol=1e-5)


@pytest.mark.parametrize('kind', GROUP_POSTERIORS)
def test_another_sample_per_is_refused(kind):
  members = _members(_random(2, 1), [0, 0])
  with pytest.raises(ValueError, match='row'):
    GROUP_POSTERIORS[kind]().sample(_KEYS[0], members, 1, sample_per='pixel')


def test_every_group_posterior_is_static_and_one_of_a_kind():
  kinds = [kind() for kind in GROUP_POSTERIORS.values()]
  assert all(isinstance(kind, GroupPosterior) for kind in kinds)
  assert len(set(kinds)) == len(kinds)
  assert kinds == [kind() for kind in GROUP_POSTERIORS.values()]


def test_free_posteriors_are_those_of_the_groups_given():
  q_group, ids = _random(3, 2), np.array([2, 0, 2, 0])
  members = _members(q_group, ids, kl_share=jnp.array([1.0, 0.5, 0.0, 0.5]))
  draw = jax.vmap(lambda key: Free().sample(key, members, 3))
  found = jax.jit(draw)(_KEYS)
  np.testing.assert_allclose(found.kl_share[0], [1.0, 0.0, 1.0])
  np.testing.assert_allclose(
      found.kl[0], kl_divergence(q_group) * np.array([1.0, 0.0, 1.0]),
      rtol=1e-6)
  own = q_group.take(ids)
  np.testing.assert_allclose(found.codes.mean(0), own.mean, atol=0.1)
  np.testing.assert_allclose(found.codes.std(0), own.std, rtol=0.05)


def test_wide_members_are_averaged_without_overflow():
  q = Normal(jnp.zeros((20_000, 1)), jnp.full((20_000, 1), 80.0))
  np.testing.assert_allclose(
      Mixture().combine(q, np.zeros(20_000, int), 1).logvar, 80.0, rtol=1e-5)


@pytest.mark.parametrize('kind', _ENCODED)
def test_ids_out_of_range_are_refused(kind):
  q = _random(3, 2)
  with pytest.raises(ValueError, match='ids from 0 to 7'):
    kind.combine(q, np.array([0, 1, 7]), 2)
  with pytest.raises(ValueError, match='ids from 0 to 7'):
    kind.sample(_KEYS[0], _members(q, [0, 1, 7]), 2)


@pytest.mark.parametrize('kind', _ENCODED)
def test_nan_in_padding_reaches_no_gradient(kind):
  q = Normal(*(jnp.asarray(v).at[3:].set(jnp.nan) for v in _random(5, 2)))
  members = _members(q, [0, 0, 1, 1, 0], mask=np.arange(5) < 3)

  def total(q):
    found = kind.sample(_KEYS[0], members._replace(q=q), 2)
    return jnp.sum(found.kl) + jnp.sum(found.codes[:3] ** 2)

  for grad in jax.grad(total)(q):
    assert np.all(np.isfinite(np.asarray(grad)[:3]))


@pytest.mark.parametrize('size', [1, 2, 10, 300])
def test_posteriors_of_rows_without_an_encoder_share_one_prior(size):
  """Exact where each row's posterior is exact, also where rows say nothing."""
  precision = np.array([0.0, 0.05, 1.0, 10.0, 1000.0])
  ids = np.repeat(np.arange(3), size)
  eta = np.random.default_rng(0).normal(size=(3 * size, 5)) * np.sqrt(precision)
  alone = Normal((eta / (1 + precision)).astype(np.float32), np.broadcast_to(
      -np.log1p(precision), eta.shape).astype(np.float32))
  found = jax.jit(Free().combine, static_argnums=2)(alone, ids, 4)
  exact = 1 + size * precision
  np.testing.assert_allclose(
      found.mean[:3], eta.reshape(3, size, 5).sum(axis=1) / exact, atol=1e-3)
  np.testing.assert_allclose(
      np.exp(found.logvar[:3]) * exact, 1.0, rtol=1e-3)
  # The last group has no rows.
  np.testing.assert_array_equal([found.mean[3], found.logvar[3]], 0.0)


@pytest.mark.parametrize('logvar', [
    [0.2, 0.1, 0.3], [200.0, -200.0, 0.0], [1.0, 1.0]])
def test_posteriors_of_rows_that_are_wider_than_the_prior_stay_finite(logvar):
  """Noise of their inference: without a limit precisions could be negative."""
  q = Normal(np.ones((len(logvar), 1), np.float32),
             np.array(logvar, np.float32)[:, None])
  found = Free().combine(q, np.zeros(len(logvar), int), 1)
  assert np.all(np.isfinite(found))
  # No wider than the product, or than the prior.
  product = product_of_normals(q, np.zeros(len(logvar), int), 1)
  assert found.logvar <= max(0.0, product.logvar[0, 0]) + 1e-6
