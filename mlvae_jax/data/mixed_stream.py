"""The index stream of several groupings at once.

A batch that is drawn by identity hardly ever holds two images of the same
light. Here a batch is a union: some of its groups are drawn from every
grouping, each by an index stream of its own. An image that two of them draw
is taken once, and whoever else in the batch shares a group with it is a
member too.

The members of a group that a batch holds are a piece of the group, whatever
its grouping, and a piece counts as a group: its posterior is made of the
evidence that is there, and it pays its whole KL once. To pay a share of the
KL instead, as if the group's other members were elsewhere in the epoch, would
be no bound: the images that a posterior is made of are those that it is
scored on.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mlvae_jax.data.ids import fill_unknown, offsets_of
from mlvae_jax.data.index_stream import IndexBatch, IndexStream


class MixedStream:
  """Minibatches of groups of several groupings, by (seed, step).

  Attributes:
    rows_per_batch: static number of rows of a batch, N; no grouping has more
      groups in a batch than that.
    steps_per_epoch: batches in which the first grouping is visited once.
    images_per_epoch: images that it then has given.
  """

  def __init__(
      self,
      labels: Mapping[str, np.ndarray],
      *,
      groups_per_batch: int,
      max_group_size: int | None = None,
      min_group_size: int = 1,
      visit: str = 'images',
      whole_shares: bool = False,
      seed: int = 0,
      row_multiple: int = 1,
      shuffle: bool = True,
  ):
    """Plans batches.

    Args:
      labels: per grouping `[N]` ints, the group of each row; -1 makes a row a
        group of its own. An epoch visits the first grouping once.
      groups_per_batch: at most this many groups are drawn, from all groupings
        together; at least one from each.
      max_group_size: of a larger group at most this many rows are drawn at
        once; None draws all. (More may come with other groups.)
      min_group_size: smaller groups of the first grouping are not drawn.
      visit: as `IndexStream` takes it, for every grouping.
      whole_shares: as `IndexStream` takes it, for every grouping.
      seed: of the order of groups and rows.
      row_multiple: rows_per_batch is a multiple of it.
      shuffle: False visits the first grouping only, in order.

    Raises:
      ValueError: as `IndexStream` does.
    """
    self._labels = {name: fill_unknown(ids) for name, ids in labels.items()}
    self._sizes = {name: np.bincount(ids)
                   for name, ids in self._labels.items()}
    first = next(iter(labels))
    self._draws = []
    names = [name for name, sizes in self._sizes.items()
             if name == first or (shuffle and sizes.max() > 1)]
    for number, name in enumerate(names):
      ids = self._labels[name]
      stream = IndexStream(
          offsets_of(self._sizes[name]),
          groups_per_batch=max(1, groups_per_batch // len(names)),
          max_group_size=max_group_size,
          min_group_size=min_group_size if name == first else 2,
          visit=visit, seed=_seed_of(seed, number), shuffle=shuffle)
      self._draws.append((np.argsort(ids, kind='stable'), stream))
    self.steps_per_epoch = self._draws[0][1].steps_per_epoch
    self.images_per_epoch = self._draws[0][1].images_per_epoch
    num_rows = sum(stream.rows_per_batch for _, stream in self._draws)
    self.rows_per_batch = -(-num_rows // row_multiple) * row_multiple
    self._whole_shares = whole_shares

  def size_of(self, grouping: str) -> int:
    """Static number of groups of a grouping in a batch."""
    del grouping
    return self.rows_per_batch

  def batches(self, start: int, stop: int) -> IndexBatch:
    """The batches of steps start to stop, stacked to `[stop - start, N]`."""
    shape = (stop - start, self.rows_per_batch)
    rows, mask = np.zeros(shape, np.int32), np.zeros(shape, bool)
    ids, groups, shares = (
        {name: np.full(shape, empty, kind) for name in self._labels}
        for empty, kind in ((0, np.int32), (-1, np.int32), (0, np.float32)))
    if not self._whole_shares:
      shares = None
    for i, step in enumerate(range(start, stop)):
      drawn = self._rows(step)
      rows[i, :len(drawn)], mask[i, :len(drawn)] = drawn, True
      for name, labels in self._labels.items():
        present, local = np.unique(labels[drawn], return_inverse=True)
        ids[name][i, :len(drawn)] = local
        groups[name][i, :len(present)] = present
        if shares is not None:
          shares[name][i, :len(drawn)] = (
              1.0 / self._sizes[name][labels[drawn]])
    return IndexBatch(rows, ids, mask, groups, shares=shares)

  def _rows(self, step: int) -> np.ndarray:
    """What the streams draw for a step, each row once."""
    parts = []
    for order, stream in self._draws:
      batch = stream.batch(step)
      parts.append(order[batch.rows[batch.mask]])
    rows = np.concatenate(parts)
    _, where = np.unique(rows, return_index=True)
    return rows[np.sort(where)]


def _seed_of(seed: int, number: int) -> int:
  """A seed for each grouping's stream; the first keeps the run's."""
  if number == 0:
    return seed
  return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
