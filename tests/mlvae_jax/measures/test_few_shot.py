"""Few-shot recognition: splits are fair, and scores are right by hand."""

import numpy as np
import pytest

from mlvae_jax.grouping.group_posteriors import GROUP_POSTERIORS
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.grouping.product import product_of_normals
from mlvae_jax.measures import few_shot as module
from mlvae_jax.measures.few_shot import few_shot
from tests.helpers.codes import noisy_people


@pytest.mark.parametrize('fuse', [False, True])
@pytest.mark.parametrize('ways', [None, 5])
def test_separate_codes_are_all_recognised(fuse, ways):
  result = few_shot(
      np.repeat(np.eye(8), 4, axis=0), 4 * np.arange(9), ways=ways, shots=2,
      fuse=fuse, num_episodes=7)
  assert result == (1.0, 0.0, 1 / (ways or 8), 7, ways or 8)


@pytest.mark.parametrize('codes', [
    np.random.default_rng(0).normal(size=(200, 5)),
    np.zeros((200, 5)),
    # Every image is like itself only: found, if it were in the gallery too.
    np.eye(200)])
@pytest.mark.parametrize('fuse', [False, True])
def test_codes_without_groups_are_at_chance(codes, fuse):
  result = few_shot(
      codes, 20 * np.arange(11), ways=4, shots=3, fuse=fuse, num_episodes=200)
  assert result.chance == 0.25
  assert abs(result.accuracy - 0.25) < 0.06


def test_fusing_helps_noisy_codes_and_precisions_help_fusing():
  codes, offsets = noisy_people(1.0)
  single, fused = (
      few_shot(codes, offsets, ways=None, shots=5, fuse=fuse, num_episodes=20)
      for fuse in (False, True))
  equal = few_shot(
      codes.mean, offsets, ways=None, shots=5, fuse=True, num_episodes=20)
  margin = 5 * single.standard_error
  assert fused.accuracy > equal.accuracy + margin
  assert fused.accuracy > single.accuracy + margin
  assert 0 < single.standard_error < 0.02


def test_fusing_is_the_product_of_normals():
  rng = np.random.default_rng(0)
  q = Normal(rng.normal(size=(6, 4, 3)).astype('f4'),
             rng.normal(scale=5, size=(6, 4, 3)).astype('f4'))
  flat = Normal(*(np.reshape(part, (24, 3)) for part in q))
  product = product_of_normals(flat, np.repeat(np.arange(6), 4), 6)
  np.testing.assert_allclose(module._fuse(q), product.mean, rtol=1e-5)
  certain = Normal(q.mean, q.logvar - 2000)
  np.testing.assert_allclose(
      module._fuse(certain), product.mean, rtol=2e-3)


def test_one_shot_fused_is_one_shot():
  codes, offsets = noisy_people(0.5)
  single, fused = (
      few_shot(codes, offsets, ways=6, shots=1, fuse=fuse, num_episodes=9)
      for fuse in (False, True))
  assert single == fused  # Both meet the same splits.


def test_few_shot_is_a_function_of_the_seed():
  codes, offsets = noisy_people(1.0)
  results = [few_shot(codes, offsets, ways=5, shots=2, fuse=False, seed=seed,
                      num_episodes=5) for seed in (1, 1, 2)]
  assert results[0] == results[1] != results[2]


def test_small_groups_take_no_part_and_large_ones_ask_little():
  # Group 1 is always right. Group 3 is always wrong: its two images are less
  # like each other than like group 1. Groups 0, 2 and 4 are too small.
  right, wrong = np.tile([1.0, 0.0], (101, 1)), [[0.0, 1.0], [1.0, -1.0]]
  codes = np.concatenate([[[0.0, 1.0]], right, wrong, [[1.0, -1.0]]])
  result = few_shot(
      codes, [0, 1, 102, 102, 104, 105], ways=None, shots=1, fuse=False,
      max_queries=4, num_episodes=3)
  assert result == pytest.approx((4 / 5, 0, 1 / 2, 3, 2), abs=1e-12)


def test_queries_in_blocks(monkeypatch):
  codes, offsets = noisy_people(1.0)
  arguments = dict(ways=None, shots=2, fuse=False, num_episodes=2)
  whole = few_shot(codes, offsets, **arguments)
  monkeypatch.setattr(module, '_BLOCK', 7)
  assert few_shot(codes, offsets, **arguments) == whole


def test_one_episode_has_no_standard_error():
  codes, offsets = noisy_people(1.0)
  result = few_shot(codes, offsets, ways=None, shots=1, fuse=True,
                    num_episodes=1)
  assert np.isnan(result.standard_error) and result.num_episodes == 1


@pytest.mark.parametrize('change, message', [
    (dict(ways=6), 'at least 6 groups of more than 2 images, got 5'),
    (dict(ways=None, shots=4), 'at least 2 groups of more than 4 .* got 0'),
    (dict(ways=1), 'ways >= 2, got 1'),
    (dict(shots=0), 'shots >= 1, got 0'),
    (dict(num_episodes=0), 'num_episodes >= 1'),
    (dict(max_queries=0), 'max_queries >= 1'),
    (dict(codes=np.zeros(20)), r'codes of \[N, D\]'),
    (dict(codes=np.full((20, 2), np.nan)), 'finite codes'),
    (dict(codes=np.zeros((19, 2))), 'offsets of 19 rows, got 20'),
    (dict(offsets=[4, 20]), 'grow from 0'),
    (dict(score='distance'), "got 'distance' and"),
    (dict(score='posterior'), 'latter with fuse=True')])
def test_few_shot_of_bad_arguments(change, message):
  arguments = dict(codes=np.zeros((20, 2)), offsets=4 * np.arange(6), ways=5,
                   shots=2, fuse=False) | change
  with pytest.raises(ValueError, match=message):
    few_shot(**arguments)


@pytest.mark.parametrize('name', sorted(GROUP_POSTERIORS))
def test_the_posterior_classifies_with_every_kind_of_group(name):
  codes, offsets = noisy_people(0.1)
  found = few_shot(
      codes, offsets, ways=5, shots=3, fuse=True, score='posterior',
      group_posterior=GROUP_POSTERIORS[name](), num_episodes=10)
  assert found.accuracy > 0.9 and found.ways == 5


def test_intervals_cover_what_many_episodes_give():
  codes, offsets = noisy_people(1.5)
  found = [few_shot(codes, offsets, ways=5, shots=1, fuse=False, seed=seed,
                    num_episodes=40) for seed in range(200)]
  accuracy = np.array([one.accuracy for one in found])
  margin = np.array([one.margin for one in found])
  # 95 %, and the standard error of this fraction is 1.5 points.
  covered = np.mean(np.abs(accuracy - accuracy.mean()) < margin)
  assert 0.90 < covered < 0.99


@pytest.mark.parametrize('shots', [1, 5])
def test_exact_posteriors_classify_better_than_cosines(shots):
  # Each code knows its noise, which differs by dimension: no other rule than
  # the one by posteriors is right more often.
  codes, offsets = noisy_people(1.5)
  by_cosine, by_posterior = (
      few_shot(codes, offsets, ways=None, shots=shots, fuse=True, score=score,
               num_episodes=20) for score in ('cosine', 'posterior'))
  margin = by_cosine.margin + by_posterior.margin
  assert by_posterior.accuracy > by_cosine.accuracy + margin
