"""Numbers of groups: unknown ones, ranks within a group, offsets."""

import numpy as np
import pytest

from mlvae_jax.data.ids import (
    fill_unknown,
    offsets_of,
    rank_within_group,
    ranks_of,
)


@pytest.mark.parametrize('ids, expected', [
    ([], []), ([-1], [0]), ([-1, -1], [0, 1]), ([2, 0], [2, 0]),
    ([3, -1, 0, -1, 3], [3, 4, 0, 5, 3])])
def test_a_row_of_unknown_group_is_a_group_of_its_own(ids, expected):
  given = np.array(ids, np.int32)
  found = fill_unknown(given)
  np.testing.assert_array_equal(found, np.array(expected, int))
  assert found.dtype == np.int64
  np.testing.assert_array_equal(given, ids)  # It is not written to.


def test_unknown_groups_may_be_given_their_numbers():
  found = fill_unknown(np.array([1, -1, 0, -1]), 10 + np.arange(4))
  np.testing.assert_array_equal(found, [1, 11, 0, 13])


@pytest.mark.parametrize('sizes', [[], [3], [2, 0, 3], [0, 1, 0]])
def test_offsets_and_ranks_are_those_of_rows_one_after_another(sizes):
  sizes = np.array(sizes, int)
  offsets, ranks = offsets_of(sizes), ranks_of(sizes)
  assert len(ranks) == offsets[-1] == sizes.sum()
  for size, start, stop in zip(sizes, offsets[:-1], offsets[1:], strict=True):
    np.testing.assert_array_equal(ranks[start:stop], np.arange(size))


def test_ranks_count_earlier_rows_of_the_group():
  ids = np.random.default_rng(0).integers(0, 7, 60)
  rank, count = rank_within_group(ids)
  for i, group in enumerate(ids):
    assert rank[i] == np.sum(ids[:i] == group)
    assert count[i] == np.sum(ids == group)


def test_no_rows_have_no_ranks():
  assert [len(v) for v in rank_within_group(np.zeros(0, int))] == [0, 0]
