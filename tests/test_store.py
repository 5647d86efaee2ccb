"""Images sorted by group."""

import numpy as np
import pytest

from mlvae_jax.store import GroupedImages

LABELS = np.array([2, 0, 2, 3, 0, 2])
IMAGES = np.arange(6, dtype=np.uint8)[:, None, None, None] + np.zeros(
    (6, 8, 8, 1), np.uint8)
NAMES = ('a', 'b', 'c', 'd')


def test_images_are_sorted_by_group_and_keep_their_order_within():
  data = GroupedImages.from_labels(IMAGES, LABELS, NAMES)
  np.testing.assert_array_equal(data.images[:, 0, 0, 0], [1, 4, 0, 2, 5, 3])
  np.testing.assert_array_equal(data.offsets, [0, 2, 2, 5, 6])
  np.testing.assert_array_equal(data.labels, [0, 0, 2, 2, 2, 3])
  assert data.names == NAMES
  assert (len(data), data.num_groups) == (6, 4)


def test_sorting_what_is_sorted_changes_nothing():
  once = GroupedImages.from_labels(IMAGES, LABELS, NAMES)
  twice = GroupedImages.from_labels(once.images, once.labels, once.names)
  np.testing.assert_array_equal(once.images, twice.images)
  np.testing.assert_array_equal(once.offsets, twice.offsets)


def test_no_images_are_groups_without_rows():
  data = GroupedImages.from_labels(IMAGES[:0], LABELS[:0], NAMES)
  np.testing.assert_array_equal(data.offsets, np.zeros(5))
  assert len(data) == len(data.labels) == 0


@pytest.mark.parametrize('images, labels, match', [
    (IMAGES[..., 0], LABELS, r'uint8 images of \[N, H, W, C\], got uint8 of'),
    (np.float32(IMAGES), LABELS, r'uint8 images.*got float32'),
    (IMAGES, LABELS[:4], r'expected 6 labels, got \[4\]'),
    (IMAGES, LABELS[:, None], r'expected 6 labels, got \[6, 1\]'),
    (IMAGES, LABELS + 1, r'labels in \[0, 4\), got labels from 1 to 4'),
    (IMAGES, LABELS - 1, r'labels in \[0, 4\), got labels from -1 to 2'),
    (IMAGES, LABELS + 0.5, 'labels.*float64'),
])
def test_images_and_labels_that_do_not_fit_are_refused(images, labels, match):
  with pytest.raises(ValueError, match=match):
    GroupedImages.from_labels(images, labels, NAMES)
