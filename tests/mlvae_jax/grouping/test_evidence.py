"""Products of Normals over groups: what defines them, at any size and layout.

The reference is eq. 7 in float64, NumPy.
"""

import jax
from jax import export
import jax.numpy as jnp
from jax.sharding import PartitionSpec
import numpy as np
import pytest

from mlvae_jax.grouping.evidence import Evidence, evidence, merge, remove
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.grouping.product import product_of_normals
from mlvae_jax.grouping.segment_sum import segment_sum

RTOL = 1e-5
product = jax.jit(product_of_normals, static_argnums=2)
accumulate = jax.jit(evidence, static_argnums=2)
to_normal = jax.jit(Evidence.to_normal)


def _random_rows(seed, num_rows, dim, num_groups, limit=2.0):
  """Rows of float32 moments, and ids in no particular order."""
  rng = np.random.default_rng(seed)
  q = Normal(
      rng.normal(size=(num_rows, dim)).astype(np.float32),
      rng.uniform(-limit, limit, (num_rows, dim)).astype(np.float32))
  return q, rng.integers(0, num_groups, num_rows).astype(np.int32)


def _take(tree, rows):
  """Some rows, or one, of every array."""
  return jax.tree.map(lambda value: value[rows], tree)


def _reference(q, ids, num_groups):
  """Precision, eta and sum |eta| of every group, `[G, D]` in float64."""
  precision = np.exp(-np.asarray(q.logvar, np.float64))
  eta = precision * np.asarray(q.mean, np.float64)
  return [
      np.stack([np.bincount(ids, column, num_groups) for column in value.T],
               axis=1) for value in (precision, eta, np.abs(eta))]


def _assert_is_product(found, q, ids, num_groups):
  """Holds group posteriors of groups that are not empty against eq. 7."""
  precision, eta, abs_eta = _reference(q, ids, num_groups)
  some = np.bincount(ids, minlength=num_groups) > 0
  precision, eta, abs_eta = precision[some], eta[some], abs_eta[some]
  mean, logvar = (np.asarray(v, np.float64)[some] for v in found)
  # The relative error of the variance.
  assert np.max(np.abs(np.expm1(logvar + np.log(precision)))) <= RTOL
  # Means of either sign cancel: relative to what was added up.
  assert np.max(
      np.abs(mean - eta / precision) * precision / abs_eta) <= RTOL


def _assert_same(found, expected):
  """Two trees of arrays are equal to float32, elementwise."""
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
    np.testing.assert_allclose(a, b, rtol=RTOL, atol=1e-6)


# What defines a product.


def test_sum_of_log_densities_minus_that_of_the_product_is_constant():
  q, ids = _random_rows(0, 12, 3, 4)
  q_group = product(q, ids, 4)
  c = np.linspace(-3.0, 3.0, 41)[:, None, None]

  def log_prob(n):
    mean, logvar = (np.asarray(value, np.float64) for value in n)
    return -0.5 * (np.square(c - mean) / np.exp(logvar) + logvar)

  log_rows = log_prob(q)
  for group in np.unique(ids):
    total = log_rows[:, ids == group].sum(axis=1)
    spread = np.ptp(total - log_prob(q_group)[:, group], axis=0)
    assert np.all(spread <= RTOL * np.abs(total).max(axis=0))


def test_product_has_the_moments_of_the_multiplied_densities():
  q, ids = _random_rows(1, 5, 1, 1)
  c = np.linspace(-12.0, 12.0, 20_001)
  density = np.ones_like(c)
  for mean, logvar in zip(q.mean[:, 0], q.logvar[:, 0]):
    density *= np.exp(-0.5 * np.square(c - mean) / np.exp(float(logvar)))
  density /= np.trapezoid(density, c)
  mean = np.trapezoid(density * c, c)
  variance = np.trapezoid(density * np.square(c - mean), c)
  found = product(q, ids, 1)
  np.testing.assert_allclose(found.mean[0, 0], mean, rtol=RTOL)
  np.testing.assert_allclose(np.exp(found.logvar[0, 0]), variance, rtol=RTOL)


def test_singletons_stay_as_they_are():
  q, _ = _random_rows(2, 50, 3, 1, limit=80.0)
  ids = np.random.default_rng(0).permutation(50)
  found = product(q, ids, 50)
  np.testing.assert_array_equal(found.mean[ids], q.mean)
  np.testing.assert_array_equal(found.logvar[ids], q.logvar)


@pytest.mark.parametrize('n', [2, 3, 128, 5000])
def test_n_equal_members_divide_the_variance_by_n(n):
  one, _ = _random_rows(3, 1, 4, 1)
  q = Normal(*(np.repeat(value, n, axis=0) for value in one))
  found = product(q, np.zeros(n, np.int32), 1)
  np.testing.assert_allclose(found.mean, one.mean, rtol=RTOL)
  np.testing.assert_allclose(
      np.exp(found.logvar), np.exp(one.logvar) / n, rtol=RTOL)


def test_flat_segments_equal_the_padded_route():
  sizes = np.array([1, 7, 0, 3, 12])
  q, _ = _random_rows(4, sizes.sum(), 3, 1)
  ids = np.repeat(np.arange(5), sizes)
  order = np.random.default_rng(0).permutation(sizes.sum())
  found = product(_take(q, order), ids[order], 5)
  is_row = np.arange(sizes.max()) < sizes[:, None]  # [G, K]
  mean, precision = np.zeros((2, 5, sizes.max(), 3))
  mean[is_row], precision[is_row] = q.mean, np.exp(-np.float64(q.logvar))
  total = precision.sum(axis=1)
  some = sizes > 0
  np.testing.assert_allclose(
      found.mean[some], ((precision * mean).sum(axis=1)[some] / total[some]),
      rtol=RTOL, atol=1e-6)
  np.testing.assert_allclose(
      np.exp(found.logvar[some]), 1.0 / total[some], rtol=RTOL)


def test_bfloat16_rows_accumulate_in_float32():
  q, ids = _random_rows(5, 2000, 2, 3)
  half = jax.tree.map(lambda v: jnp.asarray(v, jnp.bfloat16), q)
  found = product(half, ids, 3)
  assert found.mean.dtype == found.logvar.dtype == jnp.float32
  _assert_is_product(found, half, ids, 3)


def test_gradient_equals_the_float64_formula():
  q, ids = _random_rows(6, 40, 3, 5)
  a, b = np.random.default_rng(1).normal(size=(2, 5, 3))

  def scalar(q):
    q_group = product_of_normals(q, ids, 5)
    return jnp.sum(a * q_group.mean + b * q_group.logvar)

  grad = jax.jit(jax.grad(scalar))(q)
  precision, eta, _ = _reference(q, ids, 5)
  share = np.exp(-np.float64(q.logvar)) / precision[ids]
  residual = q.mean - (eta / precision)[ids]
  assert np.all(np.asarray(grad.mean) != 0)
  assert np.all(np.asarray(grad.logvar) != 0)
  np.testing.assert_allclose(grad.mean, a[ids] * share, rtol=RTOL, atol=1e-6)
  np.testing.assert_allclose(
      grad.logvar, share * (b[ids] - a[ids] * residual), rtol=RTOL, atol=1e-6)


# Evidence is additive.


def test_order_of_rows_does_not_matter():
  q, ids = _random_rows(10, 3000, 2, 7)
  order = np.random.default_rng(0).permutation(3000)
  found = product(_take(q, order), ids[order], 7)
  _assert_same(found, product(q, ids, 7))


def test_merged_parts_equal_the_whole():
  q, ids = _random_rows(11, 300, 2, 9, limit=40.0)
  whole = accumulate(q, ids, 9)
  parts = [accumulate(_take(q, part), ids[part], 9)
           for part in (slice(0, 3), slice(3, 200), slice(200, 300))]
  add = jax.jit(merge)
  for merged in (add(add(*parts[:2]), parts[2]),
                 add(parts[2], add(parts[1], parts[0]))):
    np.testing.assert_array_equal(merged.count, whole.count)
    _assert_same(to_normal(merged), to_normal(whole))


def test_product_of_products_equals_the_product():
  q, ids = _random_rows(12, 60, 2, 12)
  nested = product(product(q, ids, 12), np.arange(12) % 3, 3)
  _assert_same(nested, product(q, ids % 3, 3))


def test_remove_undoes_merge():
  q, ids = _random_rows(13, 40, 3, 6)
  later, later_ids = _random_rows(14, 40, 3, 6)
  ids = ids % 5  # Group 5 is empty before, and empty again after.
  first, second = accumulate(q, ids, 6), accumulate(later, later_ids, 6)
  left = jax.jit(remove)(jax.jit(merge)(first, second), second)
  np.testing.assert_array_equal(left.count, first.count)
  _assert_same(to_normal(left), to_normal(first))


def _pieces(seed, sizes, limit, scale, num_groups=300):
  """Evidence of pieces of groups, and precision and eta in float64."""
  rng = np.random.default_rng(seed)
  found, exact = [], []
  for size in sizes:
    ids = np.repeat(np.arange(num_groups), size)
    q = Normal(*(value.astype(np.float32) for value in (
        scale * rng.normal(size=(len(ids), 1)),
        rng.uniform(-limit, limit, (len(ids), 1)))))
    found.append(accumulate(q, ids, num_groups))
    exact.append(np.stack(_reference(q, ids, num_groups)[:2]))
  return found, exact


def _num_wrong(left, exact):
  """Of the entries that have a value, how many are wrong by 1 in 1,000."""
  precision, eta = exact
  mean, logvar = (np.asarray(v, np.float64) for v in left.to_normal())
  spread = np.maximum(np.abs(eta / precision), precision ** -0.5)
  known = np.isfinite(logvar)
  assert np.array_equal(known, np.isfinite(mean)) and np.any(known)
  return np.sum(known & (
      (np.abs(np.expm1(logvar + np.log(precision))) > 1e-3)
      | (np.abs(mean - eta / precision) > 1e-3 * spread)))


@pytest.mark.parametrize('limit', [1.0, 5.0, 40.0, 80.0])
@pytest.mark.parametrize('scale', [0.1, 1.0, 1000.0])
def test_what_remove_leaves_has_three_digits_or_is_nan(limit, scale):
  (a, b, c, d), exact = _pieces(16, (1, 3, 2, 1), limit, scale)
  add, subtract = jax.jit(merge), jax.jit(remove)
  left = subtract(add(add(a, b), c), b)
  assert _num_wrong(left, exact[0] + exact[2]) == 0
  left = subtract(add(left, d), a)  # What was lost before stays lost.
  assert _num_wrong(left, exact[2] + exact[3]) == 0
  left = subtract(left, c)
  assert _num_wrong(left, exact[3]) == 0
  if limit == 1.0:  # Pieces of about the same size: next to nothing is lost.
    assert np.mean(np.isfinite(left.precision)) > 0.9


@pytest.mark.parametrize('size', [-60.0, 60.0])
def test_what_remove_leaves_has_its_digits_at_any_scale(size):
  rng, num_groups = np.random.default_rng(20), 1000
  ids = np.tile(np.arange(num_groups), 8)
  is_part = np.arange(len(ids)) < 5 * num_groups
  # The part holds up to a thousand times as much as the rest.
  logvar = (size + rng.uniform(-1, 1, len(ids)) - np.where(
      is_part, rng.uniform(0, 6, num_groups)[ids], 0.0))
  q = Normal(*(value.astype(np.float32)[:, None] for value in (
      np.exp(0.5 * size) * rng.normal(size=len(ids)), logvar)))
  part, rest = (_take((q, ids), chosen) for chosen in (is_part, ~is_part))
  left = jax.jit(remove)(
      accumulate(q, ids, num_groups), accumulate(*part, num_groups))
  assert np.mean(np.isfinite(left.precision)) > 0.9
  assert _num_wrong(left, np.stack(_reference(*rest, num_groups)[:2])) == 0


@pytest.mark.slow
@pytest.mark.parametrize('num_left', [1, 20_000, 900_000])
def test_remove_from_a_million_rows(num_left):
  q, ids = _random_rows(17, 1_000_000, 1, 1, limit=1.0)
  part = slice(num_left, None)
  left = jax.jit(remove)(accumulate(q, ids, 1),
                         accumulate(_take(q, part), ids[part], 1))
  assert left.count == num_left
  if num_left == 1:
    assert np.all(np.isnan(left.to_normal().mean))
  else:
    rest = slice(num_left)
    exact = np.stack(_reference(_take(q, rest), ids[rest], 1)[:2])
    assert _num_wrong(left, exact) == 0


@pytest.mark.parametrize('mean, logvar', [
    ((1.0, 2.0), (20.0, 0.0)), ((1.0, 2.0), (80.0, -80.0)),
    ((0.5, 1e6), (0.0, 0.0))])
def test_removing_nearly_all_evidence_is_refused(mean, logvar):
  q = Normal(*(np.array(v, np.float32)[:, None] for v in (mean, logvar)))
  whole = accumulate(q, np.zeros(2, int), 1)
  part, rest = (accumulate(_take(q, slice(i, i + 1)), np.zeros(1, int), 1)
                for i in (1, 0))
  with pytest.raises(ValueError, match='fewer than three significant digits'):
    remove(whole, part)
  assert np.all(np.isnan(jax.jit(remove)(whole, part).to_normal().mean))
  if logvar != (0.0, 0.0):  # The other way round nothing is lost.
    _assert_same(remove(whole, rest).to_normal(), part.to_normal())


def test_removing_everything_leaves_an_empty_group():
  q, ids = _random_rows(18, 30, 2, 3, limit=40.0)
  whole = accumulate(q, ids, 4)
  left = remove(whole, accumulate(q, ids, 4))
  jax.tree.map(np.testing.assert_array_equal, left,
               accumulate(_take(q, slice(0)), ids[:0], 4))
  assert all(np.all(value == 0) for value in left.to_normal())


def test_removing_what_was_never_there_is_refused():
  q, ids = _random_rows(19, 8, 2, 1)
  whole, part = (accumulate(_take(q, slice(n)), ids[:n], 1) for n in (3, 8))
  with pytest.raises(ValueError, match='group 0 would be left with -5 rows'):
    remove(whole, part)
  assert np.all(np.isnan(jax.jit(remove)(whole, part).to_normal().mean))


def test_remove_has_gradients():
  (a, b), _ = _pieces(20, (2, 1), 1.0, 1.0, num_groups=3)

  def scalar(eta):
    left = remove(merge(a._replace(eta=eta), b), b).to_normal()
    return jnp.sum(left.mean)

  np.testing.assert_allclose(
      jax.jit(jax.grad(scalar))(a.eta), 1.0 / a.precision, rtol=1e-4)


def test_merge_refuses_evidence_of_other_groups():
  q, ids = _random_rows(15, 8, 2, 3)
  for function in (merge, remove):
    with pytest.raises(ValueError, match='same groups.*3, 2.*4, 2'):
      function(evidence(q, ids, 3), evidence(q, ids, 4))


# Transformations and layouts.


def test_psum_over_pmapped_devices_equals_flat():
  num_devices = jax.local_device_count()
  q, ids = _random_rows(20, num_devices * 30, 3, 9, limit=40.0)
  ids = np.sort(ids % 8)  # Few groups on each device, and group 8 on none.

  def on_device(q, ids):
    return evidence(q, ids, 9).psum('devices').to_normal()

  split = jax.tree.map(
      lambda v: v.reshape(num_devices, 30, *v.shape[1:]), (q, ids))
  found = jax.pmap(on_device, axis_name='devices')(*split)
  flat = product(q, ids, 9)
  for device in range(num_devices):
    _assert_same(_take(found, device), flat)


@pytest.mark.slow
# 40,000 rows go through in blocks.
@pytest.mark.parametrize('num_rows', [30, 40_000])
def test_psum_under_shard_map_equals_flat(num_rows):
  mesh = jax.sharding.Mesh(np.array(jax.local_devices()), ('devices',))
  q, ids = _random_rows(21, num_rows * mesh.size, 3, 8)
  rows = PartitionSpec('devices')
  found = jax.jit(jax.shard_map(
      lambda q, ids: evidence(q, ids, 8).psum('devices').to_normal(),
      mesh=mesh, in_specs=(rows, rows), out_specs=PartitionSpec()))(q, ids)
  _assert_same(found, product(q, ids, 8))


# 2000 rows take the tree of chains, 20 the plain sum.
@pytest.mark.parametrize('num_rows', [20, 2000])
def test_vmap_over_sets_equals_a_loop(num_rows):
  sets = [_random_rows(seed, num_rows, 2, 6) for seed in range(3)]
  stacked = jax.tree.map(lambda *v: np.stack(v), *sets)
  found = jax.jit(jax.vmap(lambda q, ids: product_of_normals(q, ids, 6)))(
      *stacked)
  for i, (q, ids) in enumerate(sets):
    _assert_same(_take(found, i), product(q, ids, 6))


@pytest.mark.slow
@pytest.mark.parametrize('num_rows', [20, 40_000])
def test_extreme_rows_of_one_set_leave_the_others_alone(num_rows):
  """On a CPU, sums that need scales are computed again, in a second pass."""
  q, ids = _random_rows(25, num_rows, 2, 6)
  apart = np.where(ids == 3, 90, 0).astype(np.float32)[:, None]
  sets = [q, q._replace(logvar=q.logvar + apart),
          q._replace(logvar=q.logvar - apart),
          Normal(q.mean + np.float32(1e30) * apart, q.logvar - 20)]
  stacked = jax.tree.map(lambda *v: np.stack(v), *sets)
  found = jax.jit(jax.vmap(lambda q: product_of_normals(q, ids, 6)))(stacked)
  for i, one in enumerate(sets):
    _assert_is_product(_take(found, i), one, ids, 6)
    _assert_is_product(product(one, ids, 6), one, ids, 6)


@pytest.mark.parametrize('function', [product, accumulate])
@pytest.mark.parametrize('num_rows', [20, 2000])
def test_exported_functions_give_the_same(function, num_rows):
  q, ids = _random_rows(22, num_rows, 2, 6)
  exported = export.export(function)(q, ids, 6)
  _assert_same(exported.call(q, ids), function(q, ids, 6))
  pytest.importorskip('flatbuffers')  # What JAX serialises with.
  found = export.deserialize(exported.serialize()).call(q, ids)
  assert isinstance(found, (Normal, Evidence))
  _assert_same(found, function(q, ids, 6))


@pytest.mark.slow
def test_new_ids_need_no_new_compilation(compilations):
  rows = [_random_rows(seed, 700, 2, 6) for seed in range(4)]
  mask = np.arange(700) % 3 > 0
  product_of_normals(*rows[0], 6)  # Also without jit around it.
  product(*rows[0], 6, mask)
  with compilations() as names:
    for q, ids in rows[1:]:
      product_of_normals(q, ids, 6)
      product(q, ids, 6, ~mask)
  assert not names


# Empty groups, masks, NaN.


@pytest.mark.parametrize('num_rows', [0, 30])
def test_groups_without_rows_are_standard_normal(num_rows):
  q, ids = _random_rows(30, num_rows, 2, 3)
  ids = 2 * ids + 1  # Every other group is empty.

  def moments(q):
    return product_of_normals(q, ids, 7)

  found = jax.jit(moments)(q)
  np.testing.assert_array_equal(found.mean[::2], 0.0)
  np.testing.assert_array_equal(found.logvar[::2], 0.0)
  grad = jax.jit(jax.grad(lambda q: sum(
      jnp.sum(jnp.square(v + 1.0)) for v in moments(q))))(q)
  assert all(np.all(np.isfinite(g)) for g in grad)


def test_gradient_with_respect_to_evidence_of_empty_groups_is_finite():
  whole = accumulate(*_random_rows(34, 6, 2, 3), 5)
  grad = jax.jit(jax.grad(lambda precision, eta: sum(
      jnp.sum(v) for v in whole._replace(
          precision=precision, eta=eta).to_normal()), (0, 1)))(
              whole.precision, whole.eta)
  assert np.any(np.asarray(whole.count) == 0)
  assert all(np.all(np.isfinite(g)) for g in grad)


@jax.jit
def _scalar_and_grad(q, ids, mask):
  """Some function of the products of 5 groups, with them, and its gradient."""

  def scalar(q):
    q_group = product_of_normals(q, ids, 5, mask)
    return jnp.sum(jnp.sin(q_group.mean) + q_group.logvar ** 2), q_group

  return jax.value_and_grad(scalar, has_aux=True)(q)


@pytest.mark.parametrize('garbage', [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize('num_rows', [60, 2000])
def test_masked_rows_change_neither_value_nor_gradient(num_rows, garbage):
  q, ids = _random_rows(31, num_rows, 2, 5)
  mask = np.random.default_rng(0).random(num_rows) < 0.7
  mask &= ids != 3  # A group all of whose rows are masked is empty.

  (_, expected), expected_grad = _scalar_and_grad(
      _take(q, mask), ids[mask], np.ones(mask.sum(), bool))
  dirty = Normal(*(np.where(mask[:, None], v, np.float32(garbage)) for v in q))
  (_, found), grad = _scalar_and_grad(dirty, np.where(mask, ids, 99), mask)
  _assert_same(found, expected)
  _assert_same(_take(grad, mask), expected_grad)
  for g in grad:
    np.testing.assert_array_equal(g[~mask], 0.0)


@pytest.mark.parametrize('num_rows', [60, 2000])
@pytest.mark.parametrize('where', ['mean', 'logvar'])
def test_a_nan_in_one_group_leaves_the_others_alone(num_rows, where):
  q, ids = _random_rows(32, num_rows, 2, 5)
  bad = int(np.flatnonzero(ids == 2)[0])
  getattr(q, where)[bad] = np.nan
  good = ids != 2
  (_, found), grad = _scalar_and_grad(q, ids, np.ones(num_rows, bool))
  (_, expected), _ = _scalar_and_grad(
      _take(q, good), ids[good], np.ones(good.sum(), bool))
  others = np.arange(5) != 2
  assert np.all(np.isnan(found.mean[2]))
  _assert_same(_take(found, others),
               _take(expected, others))
  assert all(np.all(np.isfinite(g[good])) for g in grad)


@pytest.mark.parametrize('num_rows', [40, 2000])
def test_traced_ids_out_of_range_are_dropped(num_rows):
  q, ids = _random_rows(33, num_rows, 2, 5)
  outside = np.arange(num_rows) % 4 == 0
  dirty = np.resize([-1, 5, 2**31 - 1, -(2**31), 700], num_rows)
  dirty = np.where(outside, dirty, ids)
  found = product(q, dirty.astype(np.int32), 5)
  _assert_same(found, product(q, ids, 5, ~outside))


def test_int64_ids_are_not_cut_to_32_bits():
  q, ids = _random_rows(35, 40, 2, 5)
  big = np.int64(2) ** 32 + ids
  outside = np.arange(40) % 4 == 0
  with jax.enable_x64(True):
    ids = np.where(outside, big, ids)
    found = product(q, ids, 5)
    with pytest.raises(ValueError, match=r'ids in \[0, 5\).* to 42949'):
      product_of_normals(q, jnp.asarray(ids), 5)
    _assert_same(found, product(q, ids, 5, ~outside))
  assert found.mean.dtype == jnp.float32


def test_ids_and_masks_may_be_lists():
  q, ids = _random_rows(36, 6, 2, 3)
  mask = [True, False, True, True, False, True]
  expected = product(q, ids, 3, np.array(mask))
  _assert_same(product_of_normals(q, ids.tolist(), 3, mask), expected)
  _assert_same(product_of_normals(
      q, tuple(jnp.asarray(i) for i in ids), 3, tuple(mask)), expected)
  empty = product_of_normals(_take(q, slice(0)), [], 3, [])
  assert all(np.all(value == 0) for value in empty)


def test_small_integer_types_name_groups_too():
  q, ids = _random_rows(37, 20, 2, 5)
  _assert_same(product(q, ids.astype(np.uint8), 300), product(q, ids, 300))


# Accuracy in float32 at any size and scale.


@pytest.mark.slow
def test_a_million_rows_of_any_scale_in_one_group():
  q, ids = _random_rows(40, 1_000_000, 2, 1, limit=80.0)
  _assert_is_product(product(q, ids, 1), q, ids, 1)


@pytest.mark.parametrize('logvar', [-80.0, 0.37, 80.0])
def test_a_million_equal_rows_do_not_drift(logvar):
  # Equal summands round the same way every time. One row of more precision
  # sets the scale, or else every summand would be exactly 1.
  q = Normal(np.full((1_000_000, 1), 0.1, np.float32),
             np.full((1_000_000, 1), logvar, np.float32))
  q.logvar[123_456] -= 0.3
  ids = np.zeros(1_000_000, np.int32)
  _assert_is_product(product(q, ids, 1), q, ids, 1)


@pytest.mark.slow
def test_one_group_of_900k_rows_among_100k_groups():
  q, ids = _random_rows(41, 1_000_000, 1, 100_000, limit=80.0)
  ids[np.random.default_rng(0).permutation(1_000_000)[:900_000]] = 77
  _assert_is_product(product(q, ids, 100_000), q, ids, 100_000)
  # And where they round the same way.
  q = Normal(np.full_like(q.mean, 0.1), np.full_like(q.logvar, 0.37))
  q.logvar[np.flatnonzero(ids == 77)[0]] = 0.07
  _assert_is_product(product(q, ids, 100_000), q, ids, 100_000)


@pytest.mark.parametrize('num_groups', [2, 8, 64, 377, 610])
def test_rows_at_regular_distances_are_summed_exactly(num_groups):
  # Interleaved groups: rows of one lie at multiples of a power of two, or of
  # a Fibonacci number, which a golden-ratio hash might crowd.
  values = np.full((300_000, 1), 0.1, np.float32)
  ids = (np.arange(300_000) % num_groups).astype(np.int32)
  found = jax.jit(segment_sum, static_argnums=2)(values, ids, num_groups)
  expected = np.bincount(ids) * np.float64(values[0, 0])
  np.testing.assert_allclose(found[:, 0], expected, rtol=RTOL)


def test_gradients_are_finite_at_any_scale():
  q, ids = _random_rows(42, 3000, 2, 20, limit=80.0)
  grad = jax.jit(jax.grad(lambda q: sum(
      jnp.sum(v) for v in product_of_normals(q, ids, 20))))(q)
  assert all(np.all(np.isfinite(g)) for g in grad)


# Bad input.


@pytest.mark.parametrize('mean, logvar, match', [
    ((4,), (4,), r'\[N, D\], got a mean of \[4\]'),
    ((4, 2), (4, 3), r'\[4, 2\] and a logvar of \[4, 3\]'),
    ((4, 2), (5, 2), r'\[4, 2\] and a logvar of \[5, 2\]'),
    ((2, 4, 2), (2, 4, 2), r'\[N, D\], got a mean of \[2, 4, 2\]'),
])
def test_moments_of_wrong_shapes_are_refused(mean, logvar, match):
  q = Normal(np.zeros(mean, np.float32), np.zeros(logvar, np.float32))
  with pytest.raises(ValueError, match=match):
    product_of_normals(q, np.zeros(4, np.int32), 2)


@pytest.mark.parametrize('ids, match', [
    (np.zeros(3, np.int32), r'\[4\] integers, one per row, got int32 of \[3\]'),
    (np.zeros((4, 1), np.int32), r'got int32 of \[4, 1\]'),
    (np.zeros(4, np.float32), r'integers.*got float32'),
    (np.zeros(4, bool), r'integers.*got bool'),
    (np.array([0, 1, 2, 3]), r'ids in \[0, 3\), got ids from 0 to 3'),
    (np.array([0, -1, 2, 2]), r'ids in \[0, 3\), got ids from -1 to 2'),
    # JAX narrows to int32, where this one would be group 0.
    (np.array([0, 1, 2, 2**32]), r'ids in \[0, 3\)'),
])
def test_wrong_ids_are_refused(ids, match):
  q = Normal(np.zeros((4, 2), np.float32), np.zeros((4, 2), np.float32))
  with pytest.raises(ValueError, match=match):
    product_of_normals(q, ids, 3)


@pytest.mark.parametrize('mask, match', [
    (np.ones(3, bool), r'mask of \[4\] bool, got bool of \[3\]'),
    (np.ones(4, np.float32), r'mask of \[4\] bool, got float32'),
])
def test_wrong_masks_are_refused(mask, match):
  q = Normal(np.zeros((4, 2), np.float32), np.zeros((4, 2), np.float32))
  for function in (product_of_normals, product):
    with pytest.raises(ValueError, match=match):
      function(q, np.zeros(4, np.int32), 3, mask)


def test_num_groups_below_one_is_refused():
  q = Normal(np.zeros((0, 2), np.float32), np.zeros((0, 2), np.float32))
  with pytest.raises(ValueError, match='num_groups >= 1, got 0'):
    product_of_normals(q, np.zeros(0, np.int32), 0)


def test_masked_rows_may_have_any_id():
  q, ids = _random_rows(50, 10, 2, 3)
  mask = np.arange(10) < 8
  found = product_of_normals(q, np.where(mask, ids, -7), 3, mask)
  _assert_same(found, product(q, ids, 3, mask))


@pytest.mark.parametrize('num_rows', [2 * 16_384 + 1, 70_000])
def test_many_rows_are_added_once_whatever_the_blocks(num_rows):
  q, ids = _random_rows(43, num_rows, 2, 5_000, limit=80.0)
  mask = np.arange(num_rows) % 7 != 3
  _assert_is_product(
      product_of_normals(q, ids, 5_000, mask),
      Normal(*(x[mask] for x in q)), ids[mask], 5_000)
  found = evidence(q, ids, 5_000, mask)
  np.testing.assert_array_equal(
      found.count, np.bincount(ids[mask], minlength=5_000))


@pytest.mark.slow
def test_gradients_of_many_rows_are_those_of_plain_sums():
  num_rows, num_groups = 40_000, 3_000
  q, ids = _random_rows(44, num_rows, 2, num_groups, limit=3.0)
  weights = np.random.default_rng(45).normal(size=(2, num_groups, 2))

  def ours(mean, logvar):
    found = product_of_normals(Normal(mean, logvar), ids, num_groups)
    return sum(jnp.sum(w * x) for w, x in zip(weights, found))

  def plain(mean, logvar):
    precision = jnp.exp(-logvar)
    total, eta = (jax.ops.segment_sum(x, ids, num_groups)
                  for x in (precision, precision * mean))
    total = jnp.where(total == 0, 1.0, total)  # Of groups without rows.
    return jnp.sum(weights[0] * eta / total) - jnp.sum(
        weights[1] * jnp.log(total))

  for one, other in zip(jax.grad(ours, (0, 1))(*q),
                        jax.grad(plain, (0, 1))(*q)):
    np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)
  change = Normal(*(np.ones_like(x) for x in q))
  np.testing.assert_allclose(
      jax.jvp(ours, q, change)[1], jax.jvp(plain, q, change)[1], rtol=1e-3)
