"""The index stream: what an epoch holds, and that it depends on (seed, step).

All in NumPy: nothing here is traced.
"""

import jax
import numpy as np
import pytest

from mlvae_jax.data.index_stream import IndexStream
from mlvae_jax.data.plan import Settings, make_plan
from tests.helpers.groups import sorted_groups

_RNG = np.random.default_rng(0)
# Sizes of groups, groups per batch, and the size above which groups are cut.
CASES = {
    'digits': (np.full(10, 57), 10, 12),
    'digits of several sizes': (np.array([50, 3, 41, 60, 1, 33]), 6, 8),
    'faces': (_RNG.geometric(0.3, 200), 16, 4),
    'faces uncut': (_RNG.geometric(0.3, 200), 16, None),
    'wildly uneven': (np.array([1, 5000, 2, 1, 700, 3] + [1] * 40), 5, 32),
    'one huge group': (np.array([20_000]), 8, 128),
    'one huge group uncut': (np.array([300, 1, 2]), 2, None),
    'groups of one': (np.ones(1000, int), 64, None),
    'one image': (np.array([1]), 4, 4),
    'empty groups between': (np.array([0, 5, 0, 0, 9, 2, 0]), 2, 4),
}


each_case = pytest.mark.parametrize('name', CASES)


def _stream(name, **arguments):
  """A stream over the groups of a case."""
  sizes, groups_per_batch, max_group_size = CASES[name]
  return _stream_of(sizes, **{
      'groups_per_batch': groups_per_batch, 'max_group_size': max_group_size,
      **arguments})


def _stream_of(sizes, **arguments):
  """A stream over groups of these sizes."""
  return IndexStream(sorted_groups(sizes), ('group',), **{
      'groups_per_batch': 4, 'seed': 3, **arguments})


def _epoch(stream, epoch=0):
  """All the batches of an epoch."""
  start = epoch * stream.steps_per_epoch
  return stream.batches(start, start + stream.steps_per_epoch)


def _groups_of(sizes, rows):
  """Group that each row belongs to."""
  return np.repeat(np.arange(len(sizes)), sizes)[rows]


def _assert_same(first, second):
  jax.tree.map(np.testing.assert_array_equal, first, second)


def _step_of(batches, i):
  """One of stacked batches."""
  return jax.tree.map(lambda value: value[i], batches)


def _parts(batches):
  """Their rows, group ids and masks."""
  return batches.rows, batches.group_ids['group'], batches.mask


# What an epoch holds.


@pytest.mark.parametrize('epoch', [0, 1, 5])
@each_case
def test_every_image_is_in_an_epoch_exactly_once(name, epoch):
  sizes = CASES[name][0]
  rows, _, mask = _parts(_epoch(_stream(name), epoch))
  np.testing.assert_array_equal(np.sort(rows[mask]), np.arange(sizes.sum()))


@each_case
def test_no_group_is_twice_in_a_batch_and_ids_tell_groups_apart(name):
  sizes = CASES[name][0]
  for rows, ids, mask in zip(*_parts(_epoch(_stream(name), 1))):
    pairs = np.stack([_groups_of(sizes, rows[mask]), ids[mask]])
    pairs = np.unique(pairs, axis=1)
    for values in pairs:  # One id per group, and one group per id.
      assert len(np.unique(values)) == pairs.shape[1]


@each_case
def test_batches_have_one_shape_and_keep_to_their_sizes(name):
  sizes, stream = CASES[name][0], _stream(name)
  rows, ids, mask = batches = _parts(_epoch(stream, 2))
  shape = (stream.steps_per_epoch, stream.rows_per_batch)
  assert all(value.shape == shape for value in batches)
  assert (rows.dtype, ids.dtype, mask.dtype) == (np.int32, np.int32, bool)
  assert np.all(mask.any(axis=1))  # No step without images.
  assert ids.min() >= 0 and ids.max() < stream.num_groups['group']
  assert stream.num_groups['group'] <= np.count_nonzero(sizes)


@each_case
def test_padding_is_last_and_zero(name):
  rows, ids, mask = _parts(_epoch(_stream(name)))
  assert np.all(mask[:, :-1] >= mask[:, 1:])
  np.testing.assert_array_equal(rows[~mask], 0)
  np.testing.assert_array_equal(ids[~mask], 0)


@pytest.mark.parametrize(
    'name', [name for name, case in CASES.items() if case[2] is not None])
def test_no_group_of_a_batch_exceeds_the_maximum(name):
  for _, ids, mask in zip(*_parts(_epoch(_stream(name)))):
    assert np.bincount(ids[mask]).max() <= CASES[name][2]


@pytest.mark.parametrize('name', ['faces uncut', 'one huge group uncut'])
def test_groups_stay_whole_without_a_maximum(name):
  sizes = CASES[name][0]
  for rows, ids, mask in zip(*_parts(_epoch(_stream(name)))):
    count = np.bincount(ids[mask])
    group = _groups_of(sizes, rows[mask])
    np.testing.assert_array_equal(count[ids[mask]], sizes[group])


def test_pieces_of_a_group_are_nearly_equal():
  sizes = np.array([1000, 1, 333])
  stream = _stream_of(sizes, groups_per_batch=2, max_group_size=64, seed=0)
  pieces = {0: [], 1: [], 2: []}
  for rows, ids, mask in zip(*_parts(_epoch(stream))):
    for i in np.unique(ids[mask]):
      piece = rows[mask & (ids == i)]
      pieces[_groups_of(sizes, piece[0])].append(len(piece))
  assert {group: len(lengths) for group, lengths in pieces.items()} == {
      0: 16, 1: 1, 2: 6}
  assert all(np.ptp(lengths) <= 1 for lengths in pieces.values())


def test_where_all_groups_fit_every_batch_holds_a_piece_of_each():
  sizes = np.array([57, 60, 2, 41])
  stream = _stream_of(sizes, groups_per_batch=10, max_group_size=12, seed=0)
  assert stream.num_groups == {'group': 4}
  counts = np.array([
      np.bincount(_groups_of(sizes, rows[mask]), minlength=4)
      for rows, _, mask in zip(*_parts(_epoch(stream)))])
  assert stream.steps_per_epoch == 5
  assert np.all(counts[:, [0, 1, 3]] >= 8)
  assert counts[:, 2].sum() == 2 and counts[:, 2].max() == 1


def test_a_million_groups_of_one():
  stream = _stream_of(np.ones(1_000_000, int), groups_per_batch=4096, seed=0)
  assert (stream.steps_per_epoch, stream.rows_per_batch) == (245, 4096)
  rows, _, mask = _parts(_epoch(stream))
  np.testing.assert_array_equal(np.sort(rows[mask]), np.arange(1_000_000))


def test_one_group_of_a_million():
  stream = _stream_of(
      [1_000_000], groups_per_batch=8, max_group_size=128, seed=0)
  assert (stream.num_groups, stream.rows_per_batch) == ({'group': 1}, 128)
  rows, ids, mask = _parts(_epoch(stream))
  np.testing.assert_array_equal(np.sort(rows[mask]), np.arange(1_000_000))
  np.testing.assert_array_equal(ids, 0)


@pytest.mark.parametrize('row_multiple', [1, 2, 4, 8])
def test_rows_divide_over_devices_without_changing_the_batches(row_multiple):
  plain, padded = _stream('faces'), _stream('faces', row_multiple=row_multiple)
  extra = padded.rows_per_batch - plain.rows_per_batch
  assert padded.rows_per_batch % row_multiple == 0
  assert 0 <= extra < row_multiple
  _assert_same(
      [value[:, :plain.rows_per_batch] for value in _parts(_epoch(padded))],
      list(_parts(_epoch(plain))))
  assert not _epoch(padded).mask[:, plain.rows_per_batch:].any()


# What it depends on.


@each_case
def test_a_batch_depends_on_its_step_alone(name):
  stream = _stream(name)
  steps = stream.steps_per_epoch
  start, stop = max(steps - 2, 0), steps + 3  # Across an epoch's end.
  together = stream.batches(start, stop)
  for step in (stop - 1, start, start + 1, start):  # In any order.
    single = stream.batch(step)
    assert single.rows.shape == (stream.rows_per_batch,)
    _assert_same(single, _step_of(together, step - start))
    stream.batch(step + 3 * steps)  # Another epoch in between.


@each_case
def test_the_same_arguments_give_the_same_batches(name):
  first, second = _stream(name), _stream(name)
  first.batches(0, 2 * first.steps_per_epoch)  # Has a past, second has none.
  _assert_same(_epoch(first, 2), _epoch(second, 2))


@pytest.mark.parametrize('name', ['digits', 'faces', 'groups of one'])
def test_epochs_and_seeds_differ(name):

  def rows(seed, epoch):
    return _epoch(_stream(name, seed=seed), epoch).rows

  assert np.mean(rows(0, 0) != rows(0, 1)) > 0.5
  assert np.mean(rows(0, 0) != rows(1, 0)) > 0.5
  # Seeds are not offsets of epochs.
  assert np.mean(rows(0, 1) != rows(1, 0)) > 0.5


def test_groups_are_cut_anew_in_every_epoch():
  stream = _stream_of([64, 64], groups_per_batch=2, max_group_size=8, seed=0)
  partners = []
  for epoch in range(2):
    rows, ids, mask = _parts(_epoch(stream, epoch))
    step, place = np.argwhere(rows == 5)[0]
    same = mask[step] & (ids[step] == ids[step, place])
    partners.append(set(rows[step, same].tolist()))
  assert len(partners[0] & partners[1]) < 8


@each_case
def test_without_shuffling_every_epoch_is_the_same(name):
  sizes, stream = CASES[name][0], _stream(name, shuffle=False)
  batches = _epoch(stream, 0)
  _assert_same(batches, _epoch(stream, 3))
  np.testing.assert_array_equal(
      np.sort(batches.rows[batches.mask]), np.arange(sizes.sum()))
  for rows, ids, mask in zip(*_parts(batches)):  # In the order of the data.
    assert np.all(np.diff(rows[mask]) > 0)
    assert np.all(np.diff(ids[mask]) >= 0)


# Small groups left out, and epochs over groups.


@pytest.mark.parametrize('visit', ['images', 'groups'])
@pytest.mark.parametrize('name', ['faces', 'wildly uneven', 'digits'])
def test_groups_below_the_minimum_are_left_out(name, visit):
  sizes = CASES[name][0]
  stream = _stream(name, min_group_size=3, visit=visit)
  for epoch in range(2):
    rows, _, mask = _parts(_epoch(stream, epoch))
    assert np.all(mask.any(axis=1))
    group = _groups_of(sizes, rows[mask])
    np.testing.assert_array_equal(
        np.unique(group), np.flatnonzero(sizes >= 3))
    if visit == 'images':
      np.testing.assert_array_equal(
          np.sort(rows[mask]),
          np.flatnonzero(sizes[_groups_of(sizes, slice(None))] >= 3))


@pytest.mark.parametrize('shuffle', [True, False])
@pytest.mark.parametrize('name, min_group_size', [
    (name, least) for name, (sizes, _, _) in CASES.items()
    for least in (1, 2) if sizes.max() >= least])
def test_an_epoch_over_groups_meets_each_once(name, min_group_size, shuffle):
  sizes, _, limit = CASES[name]
  stream = _stream(name, visit='groups', shuffle=shuffle,
                   min_group_size=min_group_size)
  expected = np.minimum(sizes, limit or sizes.max())
  expected[sizes < min_group_size] = 0
  for epoch in (0, 3):
    count, meetings = np.zeros_like(sizes), np.zeros_like(sizes)
    for rows, ids, mask in zip(*_parts(_epoch(stream, epoch))):
      real = rows[mask]
      assert len(np.unique(real)) == len(real) > 0
      group = _groups_of(sizes, real)
      np.add.at(count, group, 1)
      meetings[np.unique(group)] += 1
      # One id per group, and one group per id.
      pairs = np.unique(np.stack([group, ids[mask]]), axis=1)
      assert all(len(np.unique(v)) == pairs.shape[1] for v in pairs)
      assert pairs.shape[1] <= stream.num_groups['group']
      np.testing.assert_array_equal(rows[~mask], 0)
      assert np.all(mask[:-1] >= mask[1:])
    np.testing.assert_array_equal(count, expected)
    np.testing.assert_array_equal(meetings, expected > 0)


@each_case
def test_batches_of_epochs_over_groups_depend_on_the_step_alone(name):
  stream, other = (
      _stream(name, visit='groups', row_multiple=3) for _ in range(2))
  steps = stream.steps_per_epoch
  start, stop = max(steps - 2, 0), steps + 2  # Across an epoch's end.
  together = stream.batches(start, stop)
  assert stream.rows_per_batch % 3 == 0
  assert together.rows.shape == (stop - start, stream.rows_per_batch)
  other.batch(5 * steps)  # Has another past.
  for step in (stop - 1, start):  # In any order.
    _assert_same(
        other.batch(step), _step_of(together, step - start))


def test_rows_of_other_epochs_are_others():
  sizes = np.array([50, 40, 3, 60])
  stream = _stream_of(sizes, max_group_size=5, visit='groups')
  seen = [set(), set(), set(), set()]
  first = _epoch(stream, 0)
  for epoch in range(40):
    rows, _, mask = _parts(_epoch(stream, epoch))
    for row in rows[mask]:
      seen[_groups_of(sizes, row)].add(int(row))
  assert not np.array_equal(first.rows, _epoch(stream, 1).rows)
  # Of 60 rows, each is missed by 40 draws of five with probability 3 %.
  assert [len(rows) > 0.85 * size for rows, size in zip(seen, sizes)] == [
      True] * 4
  assert not np.array_equal(
      first.rows,
      _epoch(_stream_of(sizes, max_group_size=5, visit='groups', seed=4)).rows)


def test_groups_of_all_sizes_share_a_batch():
  # 8 large groups, 8 of two: in every batch one of each, in a new order.
  sizes = np.array([30, 2] * 8)
  stream = _stream_of(
      sizes, groups_per_batch=2, max_group_size=6, visit='groups')
  assert (stream.steps_per_epoch, stream.rows_per_batch) == (8, 8)
  orders = []
  for epoch in range(2):
    rows, _, mask = _parts(_epoch(stream, epoch))
    assert mask.all()
    groups = _groups_of(sizes, rows)
    np.testing.assert_array_equal(np.sort(sizes[groups])[:, :3], [
        [2, 2, 30]] * 8)
    orders.append(groups)
  assert not np.array_equal(*orders)


def test_epochs_over_groups_are_shorter_where_groups_are_uneven():
  sizes = np.array([1000, 2, 2, 2, 2, 2, 2, 2])
  images, groups = (
      _stream_of(sizes, groups_per_batch=4, max_group_size=4, visit=visit)
      for visit in ('images', 'groups'))
  assert (images.steps_per_epoch, groups.steps_per_epoch) == (250, 2)


# Bad input.


@pytest.mark.parametrize('offsets', [
    [], [0], [1, 3], [0, 3, 2], [0, 0], [[0, 1], [1, 2]]])
def test_bad_offsets_are_refused(offsets):
  with pytest.raises(ValueError, match='offsets that grow from 0'):
    make_plan(offsets, Settings(2))


@pytest.mark.parametrize('arguments', [
    {'groups_per_batch': 0}, {'groups_per_batch': 2, 'max_group_size': 0},
    {'groups_per_batch': 2, 'min_group_size': 0},
    {'groups_per_batch': 2, 'row_multiple': 0}])
def test_sizes_below_one_are_refused(arguments):
  with pytest.raises(ValueError, match='expected .* >= 1, got 0'):
    _stream_of([3, 2], **arguments)


@pytest.mark.parametrize('visit', ['images', 'groups'])
def test_a_minimum_that_no_group_has_is_refused(visit):
  with pytest.raises(ValueError, match='no group has the 4 rows that min_'):
    _stream_of([3, 2], groups_per_batch=2, min_group_size=4, visit=visit)


def test_visits_of_something_else_are_refused():
  with pytest.raises(ValueError, match=r"visit of \('images', 'groups'\), got "
                     "'rows'"):
    _stream_of([3, 2], groups_per_batch=2, visit='rows')


def test_rows_of_a_cut_group_are_drawn_alike_and_none_twice():
  """Visiting groups takes no longer where they are large."""
  stream = _stream_of(
      [12, 3, 25], groups_per_batch=2, max_group_size=4, visit='groups')
  count, steps = np.zeros(40), 3000
  batches = stream.batches(0, steps)
  for rows, mask in zip(batches.rows, batches.mask):
    drawn = rows[mask]
    assert len(np.unique(drawn)) == len(drawn)
    count[drawn] += 1
  visits = steps // stream.steps_per_epoch
  for first, last, share in ((0, 12, 4 / 12), (12, 15, 1), (15, 40, 4 / 25)):
    expected = visits * share
    error = np.sqrt(visits * share * (1 - share))
    assert np.all(np.abs(count[first:last] - expected) <= 4.5 * error)
  np.testing.assert_array_equal(batches.rows[7], stream.batch(7).rows)
