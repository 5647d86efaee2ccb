"""Sums of groups give the posteriors that the library gives, in any pieces."""

import numpy as np
import pytest

from experiments.cli import UserError
from experiments.encoding import evidence
from mlvae_jax.grouping.group_posteriors import GROUP_POSTERIORS
from mlvae_jax.grouping.normal import Normal

NAMES = ('b', 'a', 'é, "x"', 'none')
KINDS = ('product', 'prior_product', 'harmonic', 'moments', 'mixture')


def _rows(num=50, dim=3, seed=0):
  rng = np.random.default_rng(seed)
  return (Normal(rng.normal(size=(num, dim)).astype(np.float32),
                 rng.normal(size=(num, dim)).astype(np.float32)),
          rng.integers(0, 3, num))


def _evidence(posterior, q, ids):
  sums = evidence.Sums(len(NAMES), q.mean.shape[1])
  sums.add(ids, evidence.terms(posterior, q))
  return sums.evidence(NAMES)


@pytest.mark.parametrize('kind', KINDS)
def test_sums_give_the_librarys_posteriors(kind):
  posterior = GROUP_POSTERIORS[kind]()
  q, ids = _rows()
  found = _evidence(posterior, q, ids)
  assert found.names == ('a', 'b', 'é, "x"')  # Not the one without rows.
  expected = posterior.combine(q, ids, 3).take(np.array([1, 0, 2]))
  for value, other in zip(evidence.to_normal(posterior, found), expected):
    np.testing.assert_allclose(value, other, rtol=1e-5, atol=1e-5)
  np.testing.assert_array_equal(
      found.count, np.bincount(ids)[[1, 0, 2]])


@pytest.mark.parametrize('kind', KINDS)
def test_pieces_add_up_and_can_be_removed(kind):
  posterior = GROUP_POSTERIORS[kind]()
  q, ids = _rows()
  first, rest = slice(0, 20), slice(20, 50)
  # One group is new in the second piece.
  ids[first] = np.minimum(ids[first], 1)
  whole = _evidence(posterior, q, ids)
  parts = [_evidence(posterior, q.take(rows), ids[rows])
           for rows in (first, rest)]
  assert len(parts[0].names) == 2
  merged = evidence.merge(parts)
  left = evidence.remove(merged, parts[0])
  for found, expected in ((merged, whole), (left, parts[1])):
    assert found.names == expected.names
    np.testing.assert_array_equal(found.count, expected.count)
    for value, other in zip(found[1:3], expected[1:3]):
      np.testing.assert_allclose(value, other, rtol=1e-12, atol=1e-12)
  assert evidence.remove(merged, merged).names == ()


def test_rows_without_a_group_are_left_out():
  posterior = GROUP_POSTERIORS['product']()
  q, ids = _rows(4)
  found = _evidence(posterior, q, np.array([-1, 0, -1, 0]))
  assert found.names == ('b',) and found.count.tolist() == [2]
  assert not _evidence(posterior, q, np.full(4, -1)).names


def test_what_was_not_merged_is_not_removed():
  posterior = GROUP_POSTERIORS['product']()
  q, ids = _rows(6)
  whole = _evidence(posterior, q, np.zeros(6, int))
  other = whole._replace(names=('new',))
  with pytest.raises(UserError, match="'new': there is none"):
    evidence.remove(whole, other)
  with pytest.raises(UserError, match="more images of group 'b' than"):
    evidence.remove(whole, evidence.merge([whole, whole]))
  nearly = Normal(q.mean, np.append(q.logvar[:1] - 50, q.logvar[1:], axis=0))
  with pytest.raises(UserError, match='almost all evidence about group'):
    evidence.remove(*(
        _evidence(posterior, nearly.take(slice(num)), np.zeros(num, int))
        for num in (6, 1)))


def test_long_sums_stay_exact():
  posterior = GROUP_POSTERIORS['product']()
  sums = evidence.Sums(1, 1)
  for start in range(0, 1_000_000, 100_000):
    q = Normal(np.full((100_000, 1), 0.1 + start / 1e7, np.float32),
               np.full((100_000, 1), -80.0, np.float32))
    sums.add(np.zeros(100_000, int), evidence.terms(posterior, q))
  found = evidence.to_normal(posterior, sums.evidence(['a']))
  np.testing.assert_allclose(found.mean, 0.145, rtol=1e-7)
  np.testing.assert_allclose(found.logvar, -80 - np.log(1e6), rtol=1e-7)


def test_some_kinds_are_no_sums():
  for kind in set(GROUP_POSTERIORS) - {*KINDS, 'free'}:
    with pytest.raises(UserError, match='Adaptive.*encode_group'):
      evidence.check_additive(GROUP_POSTERIORS[kind]())
