"""The index stream: which rows, in which groups, make up a minibatch.

Algorithm 1 of the paper samples minibatches of groups. Here an epoch is one
pass over the *images*, also where there are few groups:

- A group of more than `max_group_size` images is cut at random into pieces of
  nearly equal size, anew in every epoch; each piece counts as a group.
- Every batch holds at most `groups_per_batch` pieces, never two of the same
  group: groups are drawn without replacement.
- Where all groups fit into a batch (ten digits), each batch holds a piece of
  every group that has enough images to go round.

That is `visit='images'`. With `visit='groups'` an epoch is one pass over the
*groups*, as the paper's algorithm has it: each is met once, with at most
`max_group_size` of its images, drawn anew in every epoch. Where sizes are
uneven (faces: one person has 530 images, most have two), no group then
outweighs the others.

A group that is cut gives the paper's estimate of its ELBO, which is biased:
a piece of it pays a whole KL. `subsampling='unbiased'` takes from a large
group two independent random halves of a piece instead: one for the evidence,
the other for the likelihood, where each image stands for n / size of it. For
any evidence that is a bound on the whole group's log p(X_G), and the estimate
of the bound has no bias.

A batch is a pure function of (seed, step), so a run resumes by its step
number. Everything is padded to one static shape.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np


class IndexBatch(NamedTuple):
  """Which rows make up a batch.

  Attributes:
    rows: `[..., N]` int32 rows of the data set; 0 for padding.
    group_ids: `[..., N]` int32 in `[0, groups_per_batch)`.
    mask: `[..., N]` bool, False for padding, which comes last.
    groups: `[..., G]` int32, number of each group in the data set; -1 for
      groups that a batch does not have.
    evidence, weights, shares: as in `factors.Batch`, or None.

  Of several groupings, `group_ids`, `groups` and `shares` are dicts by
  grouping.
  """

  rows: np.ndarray
  group_ids: np.ndarray
  mask: np.ndarray
  groups: np.ndarray | None = None
  evidence: np.ndarray | None = None
  weights: np.ndarray | None = None
  shares: np.ndarray | None = None


class _Epoch(NamedTuple):
  """One epoch's plan: order of rows, the pieces, and order of batches."""

  row_order: np.ndarray | None
  piece_group: np.ndarray
  piece_start: np.ndarray
  piece_size: np.ndarray
  batch_order: np.ndarray


VISIT = ('images', 'groups')
SUBSAMPLING = ('paper', 'unbiased')


class IndexStream:
  """Minibatches of groups as a pure function of (seed, step).

  Attributes:
    groups_per_batch: static number of groups of a batch, G.
    rows_per_batch: static number of rows of a batch, N.
    steps_per_epoch: batches that hold every image, or every group, once.
    images_per_epoch: images that these hold.
  """

  def __init__(
      self,
      offsets: np.ndarray,
      *,
      groups_per_batch: int,
      max_group_size: int | None = None,
      min_group_size: int = 1,
      visit: str = 'images',
      subsampling: str = 'paper',
      whole_shares: bool = False,
      seed: int = 0,
      row_multiple: int = 1,
      shuffle: bool = True,
  ):
    """Plans batches over rows that are sorted by group.

    Args:
      offsets: `[G + 1]` ints; group g has the rows offsets[g]:offsets[g + 1].
      groups_per_batch: at most this many groups in a batch.
      max_group_size: larger groups are cut; None keeps all whole.
      min_group_size: smaller groups are left out.
      visit: what an epoch visits once, 'images' or 'groups'.
      subsampling: 'paper', or 'unbiased', which needs visit='groups' and a
        max_group_size of at least 2.
      whole_shares: a piece of a group stands for its share of the group, for
        posteriors that are the whole group's (SVI), instead of for a group.
      seed: of the order of groups and rows.
      row_multiple: rows_per_batch is rounded up to a multiple of it (the
        number of devices).
      shuffle: False keeps the order of groups and rows, the same in every
        epoch, as evaluation wants it.

    Raises:
      ValueError: on offsets that do not grow from 0, sizes below 1, no group
        that is large enough, or another `visit`.
    """
    offsets = np.asarray(offsets, np.int64)
    if offsets.ndim != 1 or len(offsets) < 2 or offsets[0] != 0 or np.any(
        np.diff(offsets) < 0) or offsets[-1] == 0:
      raise ValueError('expected offsets that grow from 0, with some rows')
    sizes = (groups_per_batch, max_group_size, min_group_size, row_multiple)
    if min(size for size in sizes if size is not None) < 1:
      raise ValueError(
          'expected groups_per_batch, max_group_size, min_group_size and '
          f'row_multiple of at least 1, got {sizes}')
    if visit not in VISIT:
      raise ValueError(f'expected visit of {VISIT}, got {visit!r}')
    if subsampling not in SUBSAMPLING:
      raise ValueError(
          f'expected subsampling of {SUBSAMPLING}, got {subsampling!r}')
    self._unbiased = subsampling == 'unbiased'
    if self._unbiased and (visit != 'groups' or max_group_size == 1):
      raise ValueError(
          'unbiased subsampling needs visit=groups, and a max_group_size of '
          'at least 2')
    if self._unbiased and whole_shares:
      raise ValueError(
          'unbiased subsampling is for posteriors made of the rows drawn; '
          'those of whole groups have no such bias; use '
          'subsampling=\'paper\'')
    self._whole_shares = whole_shares
    self._starts, self._sizes = offsets[:-1], np.diff(offsets)
    self._all_sizes = self._sizes
    keep = self._sizes >= min_group_size
    if not np.any(keep):
      raise ValueError(
          f'no group has the {min_group_size} images of min_group_size')
    self._starts, self._sizes = self._starts[keep], self._sizes[keep]
    self._numbers = np.flatnonzero(keep).astype(np.int32)
    self._seed, self._shuffle = seed, shuffle
    num_groups = len(self._sizes)
    self.groups_per_batch = min(groups_per_batch, num_groups)
    limit = int(self._sizes.max())
    if max_group_size is not None:
      limit = min(limit, max_group_size)
    self._drawn = self._sizes
    if visit == 'groups':
      self._drawn = np.minimum(self._sizes, limit)
    self.images_per_epoch = int(self._drawn.sum())
    self._pieces = _ceil_div(self._drawn, limit)
    self.steps_per_epoch = int(max(
        _ceil_div(self._pieces.sum(), self.groups_per_batch),
        self._pieces.max()))
    if self.groups_per_batch == num_groups:
      self._pieces = np.minimum(self._drawn, self.steps_per_epoch)
    self._is_cut = not self._unbiased and bool(
        np.any(self._pieces > 1) or np.any(self._drawn < self._sizes))
    self._balance = shuffle and visit == 'groups'
    largest = np.sort(_ceil_div(self._drawn, self._pieces))[::-1]
    rows = int(largest[::self.steps_per_epoch].sum() if self._balance
               else largest[:self.groups_per_batch].sum())
    self.rows_per_batch = _ceil_div(rows, row_multiple) * row_multiple
    self._plan = functools.lru_cache(maxsize=2)(self._plan_epoch)

  def batch(self, step: int) -> IndexBatch:
    """The batch `[N]` of a step."""
    return IndexBatch(*(
        None if value is None else value[0]
        for value in self.batches(step, step + 1)))

  def size_of(self, grouping: str) -> int:
    """Static number of groups in a batch; there is one grouping."""
    del grouping
    return self.groups_per_batch

  def batches(self, start: int, stop: int) -> IndexBatch:
    """The batches of steps start to stop, stacked to `[stop - start, N]`."""
    shape = (stop - start, self.rows_per_batch)
    result = IndexBatch(
        np.zeros(shape, np.int32), np.zeros(shape, np.int32),
        np.zeros(shape, bool),
        np.full((shape[0], self.groups_per_batch), -1, np.int32),
        np.zeros(shape, bool) if self._unbiased else None,
        np.zeros(shape, np.float32) if self._unbiased else None,
        np.zeros(shape, np.float32) if self._whole_shares else None)
    for i, step in enumerate(range(start, stop)):
      self._fill(step, result, i)
    return result

  def _fill(self, step: int, result: IndexBatch, i: int) -> None:
    """Writes the batch of a step into row i of `result`."""
    epoch, within = divmod(step, self.steps_per_epoch)
    plan = self._plan(epoch if self._shuffle else 0)
    # Pieces of one group are neighbours in the plan. Dealing the plan out
    # like cards puts them into different batches.
    dealt = slice(plan.batch_order[within], None, self.steps_per_epoch)
    group, start, size = (value[dealt] for value in (
        plan.piece_group, plan.piece_start, plan.piece_size))
    if self._unbiased:
      rows, size = self._draw_halves(step, group, result, i)
      num_rows = len(rows)
      ids = np.repeat(np.arange(len(size), dtype=np.int32), size)
    else:
      num_rows = int(size.sum())
      ids = np.repeat(np.arange(len(size), dtype=np.int32), size)
      offset = np.cumsum(size) - size
      rows = np.arange(num_rows) - offset[ids] + start[ids]
      if self._balance and self._is_cut:
        rows = self._draw_members(step, group, rows, ids)
    if plan.row_order is not None:
      rows = plan.row_order[rows]
    result.rows[i, :num_rows] = rows
    result.group_ids[i, :num_rows] = ids
    result.mask[i, :num_rows] = True
    result.groups[i, :len(group)] = self._numbers[group]
    if self._whole_shares:
      result.shares[i, :num_rows] = 1.0 / self._sizes[group][ids]

  def _draw_members(self, step: int, groups: np.ndarray, rows: np.ndarray,
                    ids: np.ndarray) -> np.ndarray:
    """Of groups that are cut, random rows in place of the first ones.

    By Floyd's algorithm, for all groups at once: what it costs depends on how
    many rows are drawn, not on how many there are.
    """
    is_cut = self._drawn[groups] < self._sizes[groups]
    cut = groups[is_cut]
    if not len(cut):
      return rows
    rng = np.random.Generator(np.random.PCG64([self._seed, step, 2]))
    num_drawn = int(self._drawn[cut[0]])  # In all alike: the limit.
    size = self._sizes[cut]
    chosen = np.full((len(cut), num_drawn), -1)
    for i in range(num_drawn):
      last = size - num_drawn + i
      number = np.minimum((rng.random(len(cut)) * (last + 1)).astype(np.int64),
                          last)
      is_taken = np.any(chosen == number[:, None], axis=1)
      chosen[:, i] = np.where(is_taken, last, number)
    rows = rows.copy()
    rows[is_cut[ids]] = (self._starts[cut][:, None] + chosen).ravel()
    return rows

  def _draw_halves(self, step: int, groups: np.ndarray, result: IndexBatch,
                   i: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and numbers of rows of groups, each evidence, likelihood or both.

    Also writes evidence and weights into row i of `result`.
    """
    rng = np.random.Generator(np.random.PCG64([self._seed, step, 1]))
    rows, sizes, end = [], [], 0
    for group in groups:
      size, drawn = int(self._sizes[group]), int(self._drawn[group])
      if drawn == size:
        chosen, is_evidence, weight = np.arange(size), True, 1.0
      else:
        halves = [rng.choice(size, count, replace=False)
                  for count in (drawn - drawn // 2, drawn // 2)]
        chosen = np.unique(np.concatenate(halves))
        is_evidence, is_likely = (np.isin(chosen, half) for half in halves)
        weight = is_likely * (size / (drawn // 2))
      rows.append(self._starts[group] + chosen)
      sizes.append(len(chosen))
      here = slice(end, end + len(chosen))
      result.evidence[i, here], result.weights[i, here] = is_evidence, weight
      end = here.stop
    return np.concatenate(rows), np.array(sizes)

  def _plan_epoch(self, epoch: int) -> _Epoch:
    rng = np.random.Generator(np.random.PCG64([self._seed, epoch]))
    num_groups = len(self._sizes)
    order = rng.permutation(num_groups) if self._shuffle else np.arange(
        num_groups)
    if self._balance:
      # From large to small, so that each batch is dealt groups of all sizes,
      # and all batches have about as many rows.
      order = order[np.argsort(-self._drawn[order], kind='stable')]
    pieces = self._pieces[order]
    group = np.repeat(order, pieces)
    nth = np.arange(len(group)) - np.repeat(
        np.cumsum(pieces) - pieces, pieces)
    # Piece j of p gets the rows from j * n // p to (j + 1) * n // p.
    size, count = self._drawn[group], self._pieces[group]
    begin, end = nth * size // count, (nth + 1) * size // count
    batch_order = np.arange(self.steps_per_epoch)
    row_order = None
    if self._shuffle:
      batch_order = rng.permutation(self.steps_per_epoch)
      if self._is_cut and not self._balance:
        row_order = self._shuffle_within_groups(rng)
    return _Epoch(row_order, group, self._starts[group] + begin, end - begin,
                  batch_order)

  def _shuffle_within_groups(self, rng: np.random.Generator) -> np.ndarray:
    # Rows are sorted by group, so a sort by (group + a random fraction)
    # leaves each group in place and shuffles its rows.
    group = np.repeat(np.arange(len(self._all_sizes)), self._all_sizes)
    return np.argsort(
        group + rng.random(len(group)), kind='stable').astype(np.int32)


def _ceil_div(a, b):
  return -(-a // b)
