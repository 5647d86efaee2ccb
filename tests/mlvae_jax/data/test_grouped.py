"""Images sorted by group: sorting, slices, further groupings, bad input."""

import numpy as np
import pytest

from mlvae_jax.data.grouped import GroupedData, Labels

LABELS = np.array([2, 0, 2, 3, 0, 2])
IMAGES = np.arange(6, dtype=np.uint8)[:, None, None, None] + np.zeros(
    (6, 8, 8, 1), np.uint8)
NAMES = ('a', 'b', 'c', 'd')


def test_images_are_sorted_by_group_and_keep_their_order_within():
  data = GroupedData.from_labels(IMAGES, LABELS, NAMES)
  np.testing.assert_array_equal(data.x[:, 0, 0, 0], [1, 4, 0, 2, 5, 3])
  np.testing.assert_array_equal(data.offsets, [0, 2, 2, 5, 6])
  np.testing.assert_array_equal(data.labels, [0, 0, 2, 2, 2, 3])
  assert data.names == NAMES
  assert (len(data), data.num_groups) == (6, 4)


def test_sorting_what_is_sorted_changes_nothing():
  once = GroupedData.from_labels(IMAGES, LABELS, NAMES)
  twice = GroupedData.from_labels(once.x, once.labels, once.names)
  np.testing.assert_array_equal(once.x, twice.x)
  np.testing.assert_array_equal(once.offsets, twice.offsets)


def test_no_images_are_groups_without_rows():
  data = GroupedData.from_labels(IMAGES[:0], LABELS[:0], NAMES)
  np.testing.assert_array_equal(data.offsets, np.zeros(5))
  assert len(data) == len(data.labels) == 0


@pytest.mark.parametrize('images, labels, match', [
    (IMAGES[:, 0, 0, 0], LABELS, r'N, ...\].*got uint8 of \[6\]; a single'),
    (IMAGES.astype(str), LABELS, r'observations.*numbers, got <U3'),
    (IMAGES, LABELS[:4], r'expected 6 labels, .*got labels of \[4\]'),
    (IMAGES, LABELS[:, None], r'expected 6 labels, .*got labels of \[6, 1\]'),
    (IMAGES, LABELS + 1, r'labels in \[0, 4\), got labels from 1 to 4'),
    (IMAGES, LABELS - 1, r'labels in \[0, 4\), got labels from -1 to 2'),
    (IMAGES, LABELS + 0.5, 'labels.*float64'),
])
def test_images_and_labels_that_do_not_fit_are_refused(images, labels, match):
  with pytest.raises(ValueError, match=match):
    GroupedData.from_labels(images, labels, NAMES)


OFFSETS = np.array([0, 2, 2, 5, 6])


@pytest.mark.parametrize('change, match', [
    ({'x': IMAGES.astype(object)}, r'observations.*got object of'),
    ({'x': IMAGES[:, 0, 0, 0]},
     r'\[N, ...\] that are numbers, got uint8 of \[6\]'),
    ({'x': IMAGES.tolist()}, 'observations.*got list of'),
    ({'offsets': OFFSETS[:4]}, r'offsets of \[5\] integers.*got int64 of \[4'),
    ({'names': NAMES[:3]}, r'offsets of \[4\] integers, one more than'),
    ({'offsets': OFFSETS + 0.0}, 'offsets.*got float64'),
    ({'offsets': OFFSETS + 1}, 'grow from 0 to the 6 rows.* from 1 to 7'),
    ({'offsets': OFFSETS - [0, 0, 0, 0, 1]}, 'to the 6 rows.* from 0 to 5'),
    ({'offsets': np.array([0, 3, 2, 5, 6])}, 'grow from 0 .*not in order'),
    ({'row_names': np.array([b'a'] * 5)}, r'row_names of \[6\].*of \[5\]'),
    ({'row_names': np.array(['a'] * 6)}, 'UTF-8 bytes, got <U1'),
    ({'others': {'group': (LABELS, NAMES)}}, "two groupings .* 'group'"),
    ({'others': {'lamp': (LABELS[:5], NAMES)}}, 'expected 6 labels'),
    ({'others': {'lamp': (LABELS, NAMES[:2])}}, r'labels in \[-1, 2\)'),
])
def test_fields_that_do_not_fit_are_refused(change, match):
  fields = {'x': IMAGES, 'offsets': OFFSETS, 'names': NAMES}
  assert len(GroupedData(**fields)) == 6
  with pytest.raises(ValueError, match=match):
    GroupedData(**(fields | change))


def test_row_names_that_do_not_fit_are_refused_before_sorting():
  with pytest.raises(ValueError, match=r'row_names of \[6\]'):
    GroupedData.from_labels(
        IMAGES, LABELS, NAMES, row_names=np.array([b'a'] * 9))


def test_lists_will_do():
  names = [b'%d' % i for i in range(6)]
  others = {'lamp': Labels([0, 1, -1, 0, 1, 0], ['on', 'off'])}
  found = GroupedData.from_labels(
      IMAGES.tolist(), LABELS.tolist(), list(NAMES), 'letter', others, names)
  expected = GroupedData.from_labels(IMAGES, LABELS, NAMES, 'letter', {
      'lamp': Labels(np.array(others['lamp'].ids), ('on', 'off'))},
                                       np.array(names))
  assert found.names == expected.names and found.x.dtype == np.uint8
  assert found.labels_of('lamp').names == ('on', 'off')
  assert found.labels_of('lamp').ids.dtype == np.int32
  for a, b in ((found.x, expected.x),
               (found.offsets, expected.offsets),
               (found.labels_of('lamp').ids, expected.labels_of('lamp').ids),
               (found.row_names, expected.row_names)):
    np.testing.assert_array_equal(a, b)
  again = GroupedData(IMAGES, OFFSETS.tolist(), list(NAMES))
  assert again.offsets.dtype == np.int64 and again.names == NAMES
  assert len(GroupedData.from_labels(IMAGES[:0], [], NAMES)) == 0


# Slices.


@pytest.mark.parametrize('start, stop, rows', [
    (0, 4, [1, 4, 0, 2, 5, 3]), (1, 3, [0, 2, 5]), (2, 4, [0, 2, 5, 3]),
    (1, 2, []), (2, 2, [])])
def test_a_slice_of_groups_is_a_data_set_of_its_own(start, stop, rows):
  data = GroupedData.from_labels(IMAGES, LABELS, NAMES)
  part = data.slice_groups(start, stop)
  np.testing.assert_array_equal(part.x[:, 0, 0, 0], rows)
  assert part.offsets[0] == 0 and part.offsets[-1] == len(part) == len(rows)
  assert part.names == NAMES[start:stop]
  assert len(part.offsets) == part.num_groups + 1 == stop - start + 1
  np.testing.assert_array_equal(
      part.labels, data.labels[np.isin(
          data.labels, np.arange(start, stop))] - start)


def test_a_slice_shares_memory():
  data = GroupedData.from_labels(IMAGES, LABELS, NAMES)
  part = data.slice_groups(2, 4)
  assert np.shares_memory(part.x, data.x)
  again = part.slice_groups(1, 2)
  assert np.shares_memory(again.x, data.x)
  np.testing.assert_array_equal(again.x[:, 0, 0, 0], [3])
  np.testing.assert_array_equal(data.offsets, [0, 2, 2, 5, 6])


def test_a_slice_of_a_mapped_file_stays_mapped(tmp_path):
  data = GroupedData.from_labels(IMAGES, LABELS, NAMES)
  np.save(tmp_path / 'images.npy', data.x)
  mapped = GroupedData(
      np.load(tmp_path / 'images.npy', mmap_mode='r'), data.offsets, NAMES)
  part = mapped.slice_groups(2, 4)
  assert isinstance(part.x, np.memmap)
  np.testing.assert_array_equal(part.x, data.slice_groups(2, 4).x)


# Further groupings.


def _two_groupings():
  return GroupedData.from_labels(
      IMAGES, LABELS, NAMES, 'letter',
      {'light': Labels(np.arange(len(LABELS)) % 3 - 1, ('on', 'off'))})


def test_further_groupings_are_sorted_with_the_images():
  data = _two_groupings()
  assert data.groupings == ('letter', 'light')
  before = {image.tobytes(): (label, i % 3 - 1)
            for i, (image, label) in enumerate(zip(IMAGES, LABELS))}
  for image, label, light in zip(
      data.x, data.labels_of('letter').ids, data.labels_of('light').ids):
    assert before[image.tobytes()] == (label, light)


def test_further_groupings_follow_slices_and_selections():
  data = _two_groupings()
  part = data.slice_groups(1, 3)
  first, last = data.offsets[1], data.offsets[3]
  np.testing.assert_array_equal(
      part.labels_of('light').ids, data.labels_of('light').ids[first:last])
  rows = np.arange(len(data))[::-2]
  taken = data.take(rows)
  assert taken.num_groups == data.num_groups
  for i, row in enumerate(np.sort(rows)):
    found = [r for r in range(len(data))
             if np.array_equal(data.x[r], taken.x[i])]
    assert row in found
  assert sorted(taken.labels_of('light').ids) == sorted(
      data.labels_of('light').ids[rows])


@pytest.mark.parametrize('ids, problem', [
    ([-2] + [0] * 99, r'labels in \[-1, 2\)'), ([2] * 100, 'labels'),
    ([0.5] * 100, 'integer'), ([0], 'expected')])
def test_further_groupings_are_checked(ids, problem):
  with pytest.raises(ValueError, match=problem):
    GroupedData.from_labels(IMAGES, LABELS, NAMES, 'letter', {
        'light': Labels(np.array(ids[:len(LABELS)]), ('on', 'off'))})


def test_unknown_and_repeated_groupings_are_refused():
  with pytest.raises(ValueError, match='expected one of'):
    _two_groupings().labels_of('weather')
  with pytest.raises(ValueError, match='two groupings'):
    GroupedData.from_labels(IMAGES, LABELS, NAMES, 'light', {
        'light': Labels(LABELS, NAMES)})


# Labels of any kind.


@pytest.mark.parametrize('labels, names', [
    (['b', 'a', 'b', 'c', 'a', 'b'], ('a', 'b', 'c')),
    (np.array([b'b', b'a', b'b', b'c', b'a', b'b']), ('a', 'b', 'c')),
    ([30, -2, 30, 500, -2, 30], ('-2', '30', '500')),
    (np.array([1.5, 0.5, 1.5, 2.5, 0.5, 1.5]), ('0.5', '1.5', '2.5')),
    (np.array(['b', 'a', 'b', 'c', 'a', 'b'], object), ('a', 'b', 'c')),
])
def test_labels_may_be_anything_that_is_sorted(labels, names):
  data = GroupedData.from_labels(IMAGES, labels)
  assert data.names == names
  np.testing.assert_array_equal(data.x[:, 0, 0, 0], [1, 4, 0, 2, 5, 3])
  np.testing.assert_array_equal(data.labels, [0, 0, 1, 1, 1, 2])


@pytest.mark.parametrize('unknown', [
    ['x', '', 'y', 'x', '', 'y'], ['x', None, 'y', 'x', None, 'y'],
    [7, -1, 8, 7, -1, 8], [7.0, np.nan, 8.0, 7.0, np.nan, 8.0],
    np.array(['2021-03-01', 'NaT', '2021-04-01'] * 2, 'datetime64[D]')])
def test_several_groupings_are_a_dict_of_labels(unknown):
  data = GroupedData.from_labels(
      IMAGES, {'who': list('baabba'), 'lamp': unknown})
  assert data.groupings == ('who', 'lamp') and data.names == ('a', 'b')
  ids, names = data.labels_of('lamp')
  assert len(names) == 2
  np.testing.assert_array_equal(ids, [-1, 1, 1, 0, 0, -1])


@pytest.mark.parametrize('labels, names, match', [
    ({}, None, 'at least one'),
    ({'who': [0] * 6}, ['a'], 'without names'),
    ({'who': [0, 1, -1, 0, 1, -1]}, None, '2 rows have no label.*put another'),
    (np.zeros((6, 2)), None, r'labels of \[N\], got \[6, 2\]'),
    (list('abc'), None, r'expected 6 labels'),
])
def test_labels_that_are_missing_or_do_not_fit_are_refused(
    labels, names, match):
  with pytest.raises(ValueError, match=match):
    GroupedData.from_labels(IMAGES, labels, names)


@pytest.mark.parametrize('dtype', [np.float32, np.float64, np.int32, bool])
def test_observations_keep_shape_and_dtype(dtype):
  x = np.arange(18).reshape(6, 3).astype(dtype)
  data = GroupedData.from_labels(x, LABELS)
  assert data.x.dtype == dtype
  np.testing.assert_array_equal(
      data.x, x[np.argsort(LABELS, kind='stable')])


def test_a_sparse_matrix_becomes_dense():
  sparse = pytest.importorskip('scipy.sparse')
  x = np.eye(6, dtype=np.float32)
  data = GroupedData.from_labels(sparse.csr_matrix(x), LABELS)
  np.testing.assert_array_equal(
      data.x, x[np.argsort(LABELS, kind='stable')])


def test_a_file_is_not_read_to_be_sorted(tmp_path):
  np.save(tmp_path / 'x.npy', IMAGES)
  mapped = np.load(tmp_path / 'x.npy', mmap_mode='r')
  data = GroupedData.from_labels(mapped, LABELS)
  expected = GroupedData.from_labels(IMAGES, LABELS)
  assert not isinstance(data.x, np.ndarray)
  assert data.x.shape == IMAGES.shape and data.x.dtype == np.uint8
  assert data.x.nbytes == IMAGES.nbytes and len(data) == 6
  np.testing.assert_array_equal(np.asarray(data.x), expected.x)
  for part, other in ((data.slice_groups(1, 3), expected.slice_groups(1, 3)),
                      (data.take([5, 1]), expected.take([5, 1]))):
    np.testing.assert_array_equal(np.asarray(part.x), other.x)
    np.testing.assert_array_equal(part.labels, other.labels)
  rows = np.array([[3, 0], [5, 5]])
  np.testing.assert_array_equal(data.x[rows], expected.x[rows])


@pytest.mark.parametrize('labels, message', [
    ([1, '1'] * 3, 'both numbers and text'),
    (np.array([1, '1'] * 3, object), 'both numbers and text'),
    ([2 ** 63, 1] * 3, 'at most 63 bits')])
def test_labels_that_numpy_would_change_are_refused(labels, message):
  with pytest.raises(ValueError, match=message):
    GroupedData.from_labels(np.zeros((6, 2)), labels)


def test_unknown_labels_do_not_count_as_a_type():
  data = GroupedData.from_labels(
      np.zeros((4, 2)), {'a': list('wxyz'), 'b': ['p', np.nan, None, 'q']})
  np.testing.assert_array_equal(data.labels_of('b').ids, [0, -1, -1, 1])


def test_a_mask_of_numpy_is_refused():
  with pytest.raises(ValueError, match='without a mask'):
    GroupedData.from_labels(
        np.ma.masked_greater(np.ones((4, 2)), 0), np.arange(4))


@pytest.mark.parametrize('start, stop', [(0, 9), (-1, 1), (2, 1)])
def test_groups_outside_are_refused(start, stop):
  data = GroupedData.from_labels(np.zeros((4, 2)), np.arange(4))
  with pytest.raises(ValueError, match=r'groups within \[0, 4\)'):
    data.slice_groups(start, stop)
