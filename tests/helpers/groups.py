"""Data sets of which only the groups matter, for tests of what draws rows."""

import numpy as np

from mlvae_jax.data.grouped import GroupedData, Labels


def sorted_groups(sizes, grouping='group'):
  """A data set whose rows are sorted by groups of these sizes."""
  sizes = np.asarray(sizes, int)
  return GroupedData(
      _pixels(sizes.sum()), np.concatenate([[0], np.cumsum(sizes)]),
      ('',) * len(sizes), grouping)


def labelled_rows(labels):
  """A data set whose rows are in no order, with groupings of these ids."""
  num_rows = len(next(iter(labels.values())))
  return GroupedData(
      _pixels(num_rows), [0, num_rows], ('all',), 'all', {
          name: Labels(ids, ('',) * (max(ids) + 1))
          for name, ids in labels.items()})


def _pixels(num_rows):
  return np.zeros((num_rows, 1, 1, 1), np.uint8)
