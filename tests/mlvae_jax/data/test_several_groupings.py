"""The index stream of several groupings."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments.config import library, presets
from experiments.datasets.splits import Splits
from experiments.runs.build import make_feed, make_model
from mlvae_jax.data.grouped import GroupedData, Labels
from mlvae_jax.data.ids import fill_unknown
from mlvae_jax.data.index_stream import IndexStream
from mlvae_jax.training import evaluation
from mlvae_jax.training.loop import make_chunk
from mlvae_jax.training.step import Batch, init_state, train_step
from tests.helpers.groups import labelled_rows

_RNG = np.random.default_rng(0)
_WHO = np.repeat(np.arange(30), 6)  # 30 people of six images.
_LAMP = _RNG.permutation(np.arange(180) % 60)  # 60 lamps of three.
_LABELS = {'who': _WHO, 'lamp': _LAMP}


def _stream(labels=None, **settings):
  labels = labels or _LABELS
  return IndexStream(labelled_rows(labels), tuple(labels), **{
      'groups_per_batch': 8, 'max_group_size': 4, **settings})


def _present(batch, grouping):
  """Numbers of members, by group, in a batch."""
  return np.bincount(batch.group_ids[grouping][batch.mask])


def _paid(batch, grouping, labels):
  """Sums of shares, by group, over batches."""
  return np.bincount(labels[batch.rows[batch.mask]],
                     batch.kl_share[grouping][batch.mask])


def test_a_batch_has_groups_of_several_members_in_every_grouping():
  stream = _stream()
  for step in range(20):
    batch = stream.batches(step, step + 1)
    for grouping in _LABELS:
      assert (_present(batch, grouping) > 1).sum() >= 3


def test_drawn_by_one_grouping_the_other_would_be_alone():
  batch = _stream({'who': _WHO}).batches(0, 1)
  shared = np.bincount(_LAMP[batch.rows[batch.mask]])
  assert (shared > 1).sum() < 3  # What mixing is for.


def test_ids_and_numbers_are_those_of_the_rows():
  batch = _stream().batches(0, 20)
  for grouping, labels in _LABELS.items():
    for i in range(20):
      mask = batch.mask[i]
      ids, rows = batch.group_ids[grouping][i][mask], batch.rows[i][mask]
      np.testing.assert_array_equal(
          batch.groups[grouping][i][ids], labels[rows])
      num = len(set(ids))
      assert np.all(batch.groups[grouping][i][num:] == -1)


def test_an_image_that_two_groupings_draw_is_taken_once():
  stream = _stream({'who': np.arange(12) // 4, 'lamp': np.arange(12) % 3})
  batch = stream.batches(0, 5)
  assert stream.rows_per_batch > 12
  for rows, mask in zip(batch.rows, batch.mask):
    assert len(set(rows[mask])) == mask.sum()


# Lamps of three images, and of nine, which are more than `max_group_size`.
@pytest.mark.parametrize('size', [3, 9])
def test_with_shares_of_whole_groups_an_epoch_pays_each_group_once(size):
  lamp = _LAMP % (180 // size)
  np.testing.assert_array_equal(np.bincount(lamp), size)
  labels = {'who': _WHO, 'lamp': lamp}
  # All images are drawn once by each of the two groupings, save repeats.
  stream = _stream(labels, groups_per_batch=4, share_of_whole_group=True)
  batch = stream.batches(0, stream.steps_per_epoch)
  seen = np.bincount(batch.rows[batch.mask], minlength=180)
  assert seen.min() >= 1
  for name, ids in labels.items():
    np.testing.assert_allclose(
        _paid(batch, name, ids),
        np.bincount(ids, seen) / np.bincount(ids), rtol=1e-5)
  only = _stream(labels, shuffle=False, share_of_whole_group=True)
  batch = only.batches(0, only.steps_per_epoch)
  for name, ids in labels.items():
    np.testing.assert_allclose(_paid(batch, name, ids), 1, rtol=1e-5)


def test_without_them_there_are_no_shares():
  assert _stream().batches(0, 2).kl_share == {}


def test_rows_of_unknown_group_are_alone():
  lamp = np.where(np.arange(180) < 90, -1, _LAMP)
  filled = fill_unknown(lamp)
  assert len(set(filled[:90])) == 90 and filled[:90].min() > 59
  np.testing.assert_array_equal(filled[90:], lamp[90:])
  stream = _stream({'who': _WHO, 'lamp': lamp}, share_of_whole_group=True)
  for step in range(5):
    batch = stream.batches(step, step + 1)
    alone = batch.mask & (lamp[batch.rows] < 0)
    sizes = _present(batch, 'lamp')
    assert np.all(sizes[batch.group_ids['lamp'][alone]] == 1)
    np.testing.assert_array_equal(batch.kl_share['lamp'][alone], 1)


def test_nobody_shares_a_group():
  stream = _stream({'who': np.arange(20), 'lamp': np.full(20, -1)},
                   groups_per_batch=7)
  assert stream.batches(0, 3).mask.sum() == 20


def test_batches_are_functions_of_seed_and_step():
  first, again, other = (
      _stream(seed=seed, row_multiple=4).batches(2, 4) for seed in (1, 1, 2))
  jax.tree.map(np.testing.assert_array_equal, first, again)
  assert not np.array_equal(first.rows, other.rows)
  assert first.rows.shape[1] % 4 == 0


@pytest.mark.slow
@pytest.mark.parametrize('posterior', ['product', 'mixture'])
def test_training_is_the_same_on_any_number_of_devices(posterior):
  """Several groupings through the feed and the pmapped steps."""
  data = GroupedData.from_labels(
      _RNG.integers(0, 256, (180, 4, 4, 1), np.uint8), _WHO,
      tuple(map(str, range(30))), 'who',
      {'lamp': Labels(_LAMP, tuple(map(str, range(60))))})
  config = dataclasses.replace(
      presets.without_extras(presets.PRESETS['folder']),
      factors='who:2:who,lamp:2:lamp,rest:1',
      hidden_sizes=(8,), groups_per_batch=8, max_group_size=4,
      group_posterior=posterior)
  model = make_model(config, Splits(data, data, data, True))
  settings = library.make_train_config(config, model)
  feed = make_feed(model, data, config)
  chunk = make_chunk(model, settings, feed.num_groups)
  state, metrics = chunk(
      init_state(model, settings), *feed.chunk(0, 6))

  take = jax.jit(lambda state, batch: train_step(
      model, settings, feed.num_groups, state, batch))

  def one_by_one(state):
    for step in range(6):
      _, index, _ = feed.chunk(step, step + 1)
      index = jax.tree.map(
          lambda v: v.swapaxes(0, 1).reshape(-1), jax.device_get(index))
      batch = Batch(
          data.x[index.rows],
          {f.name: index.group_ids[f.grouping] for f in model.grouped},
          index.mask, np.arange(len(index.rows)))
      state, found = take(state, batch)
    return state, found

  alone, found = one_by_one(init_state(model, settings))
  np.testing.assert_allclose(
      found.sums.log_lik, metrics.sums.log_lik[-1], rtol=1e-4)
  jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
      alone.params, state.params)
  assert evaluation.summarize(metrics.sums)['kl']['lamp'] > 0


def test_unknown_groupings_are_named():
  data = GroupedData.from_labels(
      np.zeros((4, 4, 4, 1), np.uint8), np.array([0, 0, 1, 1]), 'ab', 'who',
      {'lamp': Labels(np.array([0, 1, 0, -1]), ('on', 'off'))})
  config = dataclasses.replace(
      presets.PRESETS['folder'], factors='who:2:who,mood:2:mood')
  with pytest.raises(ValueError, match="'mood' is grouped by 'mood', but"):
    make_model(config, Splits(data, data, data, True))
