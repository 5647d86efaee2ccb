"""Evidence of random size: which members make up a group's posterior."""

import numpy as np
import pytest

from mlvae_jax.data.grouped import GroupedData
from mlvae_jax.data.index_stream import IndexStream
from mlvae_jax.data.row_draws import draw_evidence

_RNG = np.random.default_rng(0)


def _data(num_rows=120, num_groups=7):
  return GroupedData.from_labels(np.zeros((num_rows, 2), np.float32), {
      'who': _RNG.integers(0, num_groups, num_rows),
      'lamp': _RNG.integers(-1, 3, num_rows)})


@pytest.mark.parametrize('sizes', [[1], [1, 1, 1], [5, 1, 9], [1000]])
def test_every_group_has_from_one_to_all_of_its_members(sizes):
  ids = _RNG.permutation(np.repeat(np.arange(len(sizes)), sizes))
  counts = np.array([
      np.bincount(ids[draw_evidence(ids, [0, step])], minlength=len(sizes))
      for step in range(300)])
  assert np.all(counts >= 1) and np.all(counts <= sizes)
  for count, size in zip(counts.T, sizes):
    if size <= 9:
      assert set(count) == set(range(1, size + 1))


def test_the_logarithm_of_the_number_is_uniform_and_members_are_alike():
  ids = np.zeros(20, int)
  drawn = np.array([draw_evidence(ids, [1, step]) for step in range(6000)])
  count = np.bincount(drawn.sum(axis=1), minlength=21)[1:] / len(drawn)
  expected = np.diff(np.log(np.arange(1, 22))) / np.log(21)
  np.testing.assert_allclose(count, expected, atol=0.02)
  share = drawn.mean(axis=0)  # Of each member; none is drawn more often.
  np.testing.assert_allclose(share, share.mean(), atol=0.03)


def test_no_rows_have_no_evidence():
  assert draw_evidence(np.zeros(0, int), [0]).shape == (0,)


@pytest.mark.parametrize('groupings', [('who',), ('lamp',), ('who', 'lamp')])
def test_a_stream_draws_evidence_anew_for_each_step_and_grouping(groupings):
  def stream(seed=3):
    return IndexStream(_data(), groupings, groups_per_batch=4, seed=seed,
                       max_group_size=16, evidence='random', row_multiple=8)

  drawn = stream().batches(0, 40)
  assert set(drawn.evidence) == set(groupings)
  for name in groupings:
    evidence = drawn.evidence[name]
    assert evidence.shape == drawn.mask.shape
    assert not evidence[~drawn.mask].any()
    for step in range(40):
      ids = drawn.group_ids[name][step]
      present = set(ids[drawn.mask[step]])
      assert set(ids[evidence[step]]) == present
    assert 0.2 < evidence[drawn.mask].mean() < 0.95
  if len(groupings) == 2:
    assert np.any(drawn.evidence['who'] != drawn.evidence['lamp'])


def test_rows_and_groups_are_those_of_all_evidence():
  data = _data()
  settings = {'groups_per_batch': 4, 'max_group_size': 9}
  ours, theirs = (IndexStream(data, ('who',), evidence=kind, **settings)
                  .batches(0, 9) for kind in ('random', 'all'))
  np.testing.assert_array_equal(ours.rows, theirs.rows)
  np.testing.assert_array_equal(ours.group_ids['who'], theirs.group_ids['who'])
  assert theirs.evidence == {}


def test_a_batch_is_a_function_of_seed_and_step():
  data = _data()
  first, again, other = (IndexStream(
      data, ('who',), groups_per_batch=4, evidence='random', seed=seed)
      for seed in (0, 0, 1))
  both = first.batches(5, 9).evidence['who']
  np.testing.assert_array_equal(both[2], again.batch(7).evidence['who'])
  assert both.shape != other.batches(5, 9).evidence['who'].shape or np.any(
      both != other.batches(5, 9).evidence['who'])


@pytest.mark.parametrize('settings, match', [
    ({'evidence': 'some'}, "evidence of .*got 'some'"),
    ({'evidence': 'random', 'share_of_whole_group': True}, "evidence='all'"),
    ({'evidence': 'random', 'subsampling': 'unbiased', 'visit': 'groups',
      'max_group_size': 4}, "evidence='all'")])
def test_settings_that_make_no_sense_are_refused(settings, match):
  with pytest.raises(ValueError, match=match):
    IndexStream(_data(), ('who',), groups_per_batch=2, **settings)
