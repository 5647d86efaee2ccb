"""The adaptive choice of shared dimensions, beside loops in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlvae_jax.grouping.adaptive import Adaptive, shared_dimensions
from mlvae_jax.grouping.normal import Normal, kl_divergence
from mlvae_jax.grouping.posterior import SAMPLE_PER, Members, row_noise

_KEY = jax.random.key(3)
_choose_jitted = jax.jit(shared_dimensions, static_argnums=3)


@functools.partial(jax.jit, static_argnames='sample_per')
def _sample(members, sample_per='row'):
  return Adaptive().sample(_KEY, members, 5, sample_per=sample_per)


def _kl(mean, var, other_mean=0.0, other_var=1.0):
  ratio = var / other_var
  return 0.5 * (ratio - np.log(ratio) - 1.0
                + (mean - other_mean) ** 2 / other_var)


def _choose(mean, var):
  """Mean and variance of a group's average, and which dimensions it shares."""
  if not len(mean):
    return np.zeros(mean.shape[1]), np.ones(mean.shape[1]), True
  average, average_var = mean.mean(axis=0), var.mean(axis=0)
  delta = np.zeros(mean.shape[1])
  for m, v in zip(mean, var):
    delta += _kl(m, v, average, average_var) / len(mean)
  threshold = (delta.max() + delta.min()) / 2
  is_tie = len(mean) == 1 or len(delta) == 1
  return average, average_var, is_tie | (delta < threshold)


def _expected(members, num_groups):
  """Posteriors of the codes `[N, D]` of real rows, and KLs `[G]`."""
  mean = np.array(members.q.mean, float)
  var = np.exp(np.array(members.q.logvar, float))
  kl = np.zeros(num_groups)
  for group in range(num_groups):
    rows = members.mask & (members.group_ids == group)
    some = rows & members.evidence
    average, average_var, is_shared = _choose(mean[some], var[some])
    if rows.any():
      kl[group] = np.sum(np.where(is_shared, _kl(average, average_var), 0.0))
    for row in np.flatnonzero(rows):
      weight = 1.0 if members.weights is None else members.weights[row]
      kl[group] += weight * np.sum(
          np.where(is_shared, 0.0, _kl(mean[row], var[row])))
      mean[row] = np.where(is_shared, average, mean[row])
      var[row] = np.where(is_shared, average_var, var[row])
  return mean, var, kl


def _ragged(name):
  """Rows of five groups: of 8, 1, 3, 0 and 4 rows, and padding of NaN."""
  rng = np.random.default_rng(2)
  ids = rng.permutation([0] * 8 + [1] + [2] * 3 + [4] * 4 + [0, 1, 3])
  q = [rng.normal(size=(19, 4)).astype(np.float32) for _ in range(2)]
  q[0] *= np.array([0.1, 1.0, 2.0, 0.5], np.float32)  # Some dimensions agree.
  mask, evidence = np.arange(19) < 17, np.ones(19, bool)
  weights = None
  if name != 'all':
    evidence = rng.uniform(size=19) < 0.6
    evidence[ids == 4] = False
  if name == 'weighted':
    weights = rng.uniform(0.5, 3.0, size=19).astype(np.float32)
  q = Normal(*(np.where(mask[:, None], value, np.nan) for value in q))
  return Members(q, ids, mask, evidence, np.arange(19), weights=weights)


@pytest.mark.parametrize('sample_per', SAMPLE_PER)
@pytest.mark.parametrize('name', ['all', 'some evidence', 'weighted'])
def test_codes_and_kls_are_those_of_float64(name, sample_per):
  members = _ragged(name)
  found = _sample(members, sample_per)
  mean, var, kl = _expected(members, 5)
  np.testing.assert_allclose(found.kl, kl, rtol=1e-5, atol=1e-6)
  present = np.isin(np.arange(5), members.group_ids[members.mask])
  np.testing.assert_allclose(found.kl_share, present, rtol=1e-6)
  noise = ((found.codes - mean) / np.sqrt(var))[members.mask]
  if sample_per == 'row':
    expected = row_noise(_KEY, np.arange(19), 4)[members.mask]
    np.testing.assert_allclose(noise, expected, rtol=1e-4, atol=1e-4)
  else:  # In dimensions that are shared, and only there, one code for all.
    ids = members.group_ids[members.mask]
    for group in np.flatnonzero(present):
      codes = found.codes[members.mask][ids == group]
      some = members.mask & members.evidence & (members.group_ids == group)
      *_, is_shared = _choose(
          *(np.array(value, float)[some] for value in (
              members.q.mean, np.exp(members.q.logvar))))
      if len(codes) > 1:
        np.testing.assert_array_equal(
            np.ptp(codes, axis=0) == 0, np.broadcast_to(is_shared, 4))


def test_members_share_the_dimensions_in_which_they_agree():
  # The members' means lie 0.2, 0.8 and 2 apart: KLs of 0.02, 0.32 and 2.
  q = Normal(jnp.array([[0.1, 0.4, 1.0], [-0.1, -0.4, -1.0]]),
             jnp.zeros((2, 3)))
  members = Members(q, np.zeros(2, int), np.ones(2, bool), np.ones(2, bool),
                    np.arange(2))
  found = _sample(members)
  # Once N(0, 1), twice; and N(1, 1) and N(-1, 1).
  np.testing.assert_allclose(found.kl, [1.0, 0, 0, 0, 0], rtol=1e-6)
  group = jax.jit(Adaptive().combine, static_argnums=2)(
      q, members.group_ids, 1)
  np.testing.assert_allclose(group.mean, 0.0, atol=1e-7)
  # Shared variances are averaged; own ones are those of a mixture.
  np.testing.assert_allclose(
      group.logvar, [[0.0, 0.0, np.log(2.0)]], atol=1e-6)


@pytest.mark.parametrize('mean', [
    [[0.3, -7.0, 1e4]],  # One member.
    7 * [[0.1, -7.3, 123.4]],  # Members that are equal.
    [[0.5], [-3.0], [0.1]],  # One dimension.
    [[0.5, 0.5], [-3.0, -3.0], [0.1, 0.1]],  # As far apart in each.
    [[-3e20, -3e20], [3e20, 3e20]],  # KLs that overflow.
])
def test_everything_is_shared_where_no_dimension_stands_out(mean):
  mean = np.array(mean, np.float32)
  logvar = np.full(mean.shape, -1.3, np.float32)
  average, is_shared = _choose_jitted(
      Normal(mean, logvar), np.zeros(len(mean), int), np.ones(len(mean), bool),
      2)
  assert np.all(is_shared)
  np.testing.assert_allclose(
      average.mean[0], mean.mean(axis=0), rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(average.logvar[0], -1.3, rtol=1e-5)
  np.testing.assert_array_equal(average, jnp.zeros_like(
      jnp.stack(average)).at[:, 0].set(jnp.stack(average)[:, 0]))


def test_rows_without_evidence_keep_their_own_codes_where_none_is_shared():
  members = _ragged('some evidence')
  own = members.mask & ~members.evidence
  moved = members._replace(q=members.q._replace(
      mean=np.where(own[:, None], 50.0, members.q.mean)))
  first, second = _sample(members), _sample(moved)
  # They choose and move nothing: other rows' codes stay.
  others = members.mask & members.evidence
  np.testing.assert_array_equal(first.codes[others], second.codes[others])
  _, is_shared = _choose_jitted(members.q, members.group_ids, others, 5)
  np.testing.assert_array_equal(
      (first.codes == second.codes)[own], is_shared[members.group_ids][own])
  assert np.any(~is_shared[members.group_ids][own])


def test_the_choice_is_a_constant_for_gradients():
  rng = np.random.default_rng(5)
  mean, logvar = rng.normal(size=(2, 6, 3)).astype(np.float32)
  members = Members(Normal(mean, logvar), np.zeros(6, int), np.ones(6, bool),
                    np.ones(6, bool), np.arange(6))
  *_, is_shared = _choose(mean.astype(float), np.exp(logvar.astype(float)))
  assert 0 < np.sum(is_shared) < 3
  noise = row_noise(_KEY, np.arange(6), 3)

  def ours(q):
    found = Adaptive().sample(_KEY, members._replace(q=q), 1)
    return jnp.sum(found.kl) + jnp.sum(jnp.sin(found.codes))

  def fixed(q):
    """As if the dimensions had been given."""
    average = Normal(q.mean.mean(0), jnp.log(jnp.exp(q.logvar).mean(0)))
    row = Normal(*(jnp.where(is_shared, a, b) for a, b in zip(average, q)))
    kl = kl_divergence(Normal(*(v[..., None] for v in row))).sum(0)
    return jnp.sum(jnp.where(is_shared, kl / 6, kl)) + jnp.sum(
        jnp.sin(row.reparameterize(noise)))

  for found, expected in zip(jax.jit(jax.grad(ours))(members.q),
                             jax.jit(jax.grad(fixed))(members.q)):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('num_devices', [2, 8])
def test_groups_may_be_spread_over_any_number_of_devices(num_devices):
  if jax.local_device_count() < num_devices:
    pytest.skip(f'there are no {num_devices} devices')
  members = _ragged('weighted')
  # Padded to 24 rows.
  padded = jax.tree.map(lambda v: np.concatenate([v, v[:5]]), members)
  padded = padded._replace(
      rows=np.arange(24), mask=np.arange(24) < 17)
  one = _sample(padded)
  many = jax.pmap(lambda members: Adaptive().sample(
      _KEY, members, 5, axis_name='devices'), axis_name='devices')(
          jax.tree.map(
              lambda v: v.reshape(num_devices, -1, *v.shape[1:]), padded))
  np.testing.assert_allclose(
      many.codes.reshape(24, 4)[:17], one.codes[:17], rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(many.kl.sum(0), one.kl, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(many.kl_share.sum(0), one.kl_share, rtol=1e-6)
