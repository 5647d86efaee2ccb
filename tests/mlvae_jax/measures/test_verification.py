"""Verification: pairs are fair, scores are right by hand."""

import numpy as np
import pytest

from mlvae_jax.measures.verification import (
    cosine,
    verification_pairs,
    verify,
)

SIZES = [3, 0, 1, 12, 2]
OFFSETS = np.concatenate([[0], np.cumsum(SIZES)])


def _groups_of(rows, offsets=OFFSETS):
  return np.searchsorted(offsets, rows, side='right') - 1


def test_pairs_are_all_of_the_rows_drawn():
  pairs = verification_pairs(OFFSETS, max_per_group=4)
  groups = _groups_of(pairs.first), _groups_of(pairs.second)
  np.testing.assert_array_equal(pairs.same, groups[0] == groups[1])
  assert np.all(pairs.first < pairs.second)
  rows = np.unique([pairs.first, pairs.second])
  assert np.bincount(_groups_of(rows)).tolist() == [3, 0, 1, 4, 2]
  assert len(set(zip(pairs.first, pairs.second))) == len(pairs.first) == 45
  assert np.sum(pairs.same) == 3 + 6 + 1


def test_different_pairs_are_drawn_evenly():
  count = np.zeros((6, 6), int)
  for seed in range(2200):
    pairs = verification_pairs([0, 2, 3, 6], num_different=1, seed=seed)
    first, second = pairs.first[~pairs.same], pairs.second[~pairs.same]
    assert len(first) == 1
    count[first, second] += 1
  drawn = count[count > 0]
  assert len(drawn) == 2 + 6 + 3  # Each pair of different groups...
  assert np.all(abs(drawn - 200) < 70)  # ...at five standard deviations.


def test_pairs_of_many_groups_without_repeats():
  offsets = np.concatenate(
      [[0], np.cumsum(np.random.default_rng(0).integers(0, 5, 100_000))])
  pairs = verification_pairs(offsets, max_per_group=3)
  first, second = (_groups_of(r, offsets) for r in (pairs.first, pairs.second))
  np.testing.assert_array_equal(pairs.same, first == second)
  assert np.sum(~pairs.same) == 20_000
  number = pairs.first * offsets[-1] + pairs.second
  assert len(np.unique(number)) == len(number)
  size = np.minimum(np.diff(offsets), 3)
  assert np.sum(pairs.same) == np.sum(size * (size - 1) // 2)


def test_pairs_are_functions_of_the_seed():
  draws = [verification_pairs(OFFSETS, max_per_group=3, seed=seed)
           for seed in (1, 1, 2)]
  np.testing.assert_array_equal(draws[0], draws[1])
  assert not np.array_equal(draws[0], draws[2])


@pytest.mark.parametrize('offsets, num_same, num_different', [
    ([0, 1, 2, 2, 3], 0, 3), ([0, 3], 3, 0), ([0, 0, 0], 0, 0)])
def test_pairs_of_lonely_rows(offsets, num_same, num_different):
  pairs = verification_pairs(offsets)
  assert np.sum(pairs.same) == num_same
  assert np.sum(~pairs.same) == num_different


@pytest.mark.parametrize('same, different, auc, accuracy', [
    ([5, 4], [3, 2, 1], 1, 1),
    ([1, 2], [3, 4, 5], 0, 0),
    ([7, 7], [7, 7, 7], 0.5, 0.5),
    # The threshold below 0.7 rejects a third and accepts a quarter; a
    # quarter of the way to the next, both are a quarter.
    ([0.9, 0.7, 0.3], [0.8, 0.2, 0.1, 0], 10 / 12, 3 / 4),
    # 3 wins 5, the 2s win 4 and draw 1 each, 1 wins 2 and draws 2. From
    # (1/5, 3/4) to (3/5, 1) the ROC crosses the diagonal after 1/13.
    ([3, 2, 2, 1], [2, 1, 1, 0, 0], 17 / 20, 10 / 13),
    ([np.inf, 0], [-np.inf, 0], 7 / 8, 3 / 4)])
def test_verification_by_hand(same, different, auc, accuracy):
  truth = np.arange(len(same) + len(different)) < len(same)
  result = verify(same + different, truth)
  assert result == pytest.approx((auc, accuracy, len(same), len(different)))


def test_auc_counts_every_pair_of_pairs():
  rng = np.random.default_rng(0)
  scores, same = rng.integers(0, 9, 200), rng.random(200) < 0.3
  difference = scores[same][:, None] - scores[~same]
  wins = np.mean(difference > 0) + np.mean(difference == 0) / 2
  assert verify(scores, same).auc == pytest.approx(wins, abs=1e-12)


@pytest.mark.parametrize('scores, same, message', [
    ([1, np.nan], [True, False], 'without NaN'),
    ([1, 2], [True, True], 'of different ones, got 2 and 0'),
    ([], [], 'got 0 and 0'),
    ([1, 2], [True], r'got \[2\] and \[1\]')])
def test_verification_of_bad_scores(scores, same, message):
  with pytest.raises(ValueError, match=message):
    verify(scores, same)


def test_cosine():
  a = np.array([[3, 4], [1, 0], [0, 0], [0, 0], [-2, -2]], np.float32)
  b = np.array([[6, 8], [0, 5], [1, 1], [0, 0], [1, 1]], np.float32)
  np.testing.assert_allclose(
      cosine(a, b), [1, 0, 0, 0, -1], atol=1e-12)


@pytest.mark.parametrize('offsets, change, message', [
    ([0, 2, 1], {}, 'grow from 0'),
    ([0], {}, 'grow from 0'),
    ([0, 2], dict(max_per_group=0), 'max_per_group >= 1'),
    ([0, 2], dict(num_different=-1), 'num_different >= 0')])
def test_pairs_of_bad_arguments(offsets, change, message):
  with pytest.raises(ValueError, match=message):
    verification_pairs(offsets, **change)
