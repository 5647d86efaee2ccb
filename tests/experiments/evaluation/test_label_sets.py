"""From which images the evaluation learns, chooses and scores labels."""

import numpy as np
import pytest

from experiments.datasets.splits import Splits
from experiments.evaluation import label_sets
from tests.helpers.lit_people import images_of, random_images, splits


def test_labels_met_in_training_are_matched_by_name():
  test = images_of([0, 1] * 10, [1, -1, 0, 0] * 5, ['p2', 'p0'],
                 ('bright', 'dim'))
  chosen = label_sets.choose(splits(test=test), 'light')
  assert [p.split for p in chosen.parts] == list(label_sets.SPLITS)
  part = chosen.parts[2]
  assert len(part.rows) == 15  # Not those that are not known.
  ids = test.labels_of('light').ids[part.rows]
  np.testing.assert_array_equal(part.labels, 1 - ids)
  first = label_sets.choose(splits(test=test), 'who')
  assert first.num_classes == 3
  np.testing.assert_array_equal(
      first.parts[2].labels, np.array([2, 0])[test.labels[first.parts[2].rows]])


def test_new_labels_are_learned_from_test_images():
  test = random_images(names=['p0', 'p1', 'new'])
  chosen = label_sets.choose(splits(test=test), 'who')
  assert {p.split for p in chosen.parts} == {'test'}
  rows = np.concatenate([p.rows for p in chosen.parts])
  assert sorted(rows) == list(range(200))  # Each in one part.
  for part, share in zip(chosen.parts, (0.6, 0.2, 0.2)):
    np.testing.assert_array_equal(part.labels, test.labels[part.rows])
    np.testing.assert_allclose(
        np.bincount(part.labels) / np.bincount(test.labels), share, atol=0.05)
  # Lights are the same as in training.
  chosen = label_sets.choose(splits(test=test), 'light')
  assert chosen.parts[0].split == 'train'


@pytest.mark.parametrize('choose', [
    label_sets.first,
    lambda data, split: label_sets.choose(data, 'light', split)])
@pytest.mark.parametrize('shares_groups', [True, False])
def test_validation_is_scored_on_what_nothing_was_chosen_by(
    choose, shares_groups):
  data = splits(shares_groups=shares_groups, test=images_of([0], [0]))
  train, choice, score = choose(data, 'validation').parts
  assert choice.split == score.split == 'validation'
  assert train.split in ('train', 'validation')
  assert not set(choice.rows) & set(score.rows)
  if train.split == 'train':
    # Half of the images of each label.
    together = np.sort(np.concatenate([choice.rows, score.rows]))
    np.testing.assert_array_equal(together, np.arange(len(data.validation)))
    assert np.all(np.abs(
        np.bincount(choice.labels) - np.bincount(score.labels)) <= 1)
  else:
    assert not set(train.rows) & {*choice.rows, *score.rows}
  for part in (choice, score):
    assert len(np.unique(part.labels)) >= 2


def test_labels_of_few_images_are_left_out():
  who = np.repeat([0, 1, 2], [30, label_sets.MIN_ROWS, label_sets.MIN_ROWS - 1])
  data = images_of(who, who % 2)
  chosen = label_sets.choose(Splits(data, data, data, True), 'who')
  assert chosen.num_classes == 2
  assert len(chosen.parts[2].rows) == 30 + label_sets.MIN_ROWS


@pytest.mark.parametrize('light', [
    np.zeros(60, int), np.full(60, -1), np.repeat([0, 1], [57, 3])])
def test_one_label_is_no_question(light):
  data = images_of(np.arange(60) % 3, light)
  assert label_sets.choose(Splits(data, data, data, True), 'light') is None
  unseen = images_of(np.arange(60) % 3, light, lights=('new', 'newer'))
  assert label_sets.choose(Splits(data, data, unseen, True), 'light') is None


def test_a_grouping_that_is_not_there():
  with pytest.raises(ValueError, match="no grouping 'age'"):
    label_sets.choose(splits(), 'age')


def test_large_data_sets_are_cut_at_random(monkeypatch):
  monkeypatch.setattr(label_sets, 'MAX_TRAIN', 50)
  monkeypatch.setattr(label_sets, 'MAX_HELD_OUT', 10)
  who, light = (label_sets.choose(splits(), name) for name in ('who', 'light'))
  assert [len(p.rows) for p in who.parts] == [50, 10, 10]
  assert len(np.unique(who.parts[0].labels)) == 3
  # Both ask for the same images, which are encoded once.
  rows = label_sets.rows_of([who, light])
  assert {name: len(found) for name, found in rows.items()} == {
      'train': 50, 'validation': 10, 'test': 10}
  monkeypatch.setattr(label_sets, 'MAX_CLASSES', 2)
  assert label_sets.choose(splits(), 'who').num_classes == 2


def test_windows_are_of_one_label_of_the_grouping():
  data = random_images()
  part = label_sets.choose(Splits(data, data, data, True), 'light').parts[0]
  rows, labels = part.windows(3, seed=0)
  assert rows.shape == (200, 3)
  np.testing.assert_array_equal(
      data.labels_of('light').ids[rows], np.repeat(labels[:, None], 3, axis=1))
  assert all(len(set(row)) == 3 for row in rows)
  # Whoever it is: these are not the groups that the images are sorted by.
  assert (np.ptp(data.labels[rows], axis=1) > 0).any()
