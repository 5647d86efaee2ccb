"""The plan of an epoch: which pieces of which groups make up which batches.

Everything here is a pure function of the sizes of groups, the settings, the
seed and the epoch. The plan is made for rows that are sorted by group:

- A group of more than `max_group_size` rows is cut into pieces of nearly equal
  size; each piece counts as a group.
- A batch holds at most `groups_per_batch` pieces, never two of one group.
- Where all groups fit into a batch (as ten digits do), each batch holds a piece
  of every group that has at least as many rows as the epoch has batches.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from mlvae_jax.data.ids import check_offsets, ranks_of
from mlvae_jax.grouping.checks import check_count

VISIT = ('images', 'groups')
SUBSAMPLING = ('paper', 'unbiased')
EVIDENCE = ('all', 'random')


@dataclasses.dataclass(frozen=True)
class Settings:
  """How batches are drawn. Values that make no sense raise a ValueError.

  Attributes:
    groups_per_batch: largest number of groups in a batch, of all groupings
      together; there is at least one of each grouping that is drawn by.
    max_group_size: number of rows above which a group is cut; None keeps all
      groups whole.
    min_group_size: number of rows below which a group is left out.
    visit: unit that an epoch visits once, 'images' or 'groups'.
    subsampling: 'paper', or 'unbiased', which needs visit='groups', a
      max_group_size of at least 2 and a single grouping.
    evidence: rows that a group's posterior is made of: 'all' of the batch, or
      'random' ones, from one to all.
    share_of_whole_group: whether a row pays its share of its whole group's KL,
      for posteriors of whole groups (SVI), not of the piece in its batch.
    seed: seed of the order of groups and rows.
    row_multiple: rows per batch are padded to a multiple of this number (the
      number of devices).
    shuffle: whether groups and rows are in random order. If not, as in
      evaluation, all epochs are alike, and the first grouping alone draws.
  """

  groups_per_batch: int
  max_group_size: int | None = None
  min_group_size: int = 1
  visit: str = 'images'
  subsampling: str = 'paper'
  evidence: str = 'all'
  share_of_whole_group: bool = False
  seed: int = 0
  row_multiple: int = 1
  shuffle: bool = True

  def __post_init__(self):
    for name in ('groups_per_batch', 'max_group_size', 'min_group_size',
                 'row_multiple'):
      if name != 'max_group_size' or self.max_group_size is not None:
        object.__setattr__(self, name, check_count(getattr(self, name), name))
    if self.visit not in VISIT:
      raise ValueError(f'expected visit of {VISIT}, got {self.visit!r}')
    if self.subsampling not in SUBSAMPLING:
      raise ValueError(
          f'expected subsampling of {SUBSAMPLING}, got {self.subsampling!r}')
    if self.unbiased and (self.visit != 'groups' or self.max_group_size == 1):
      raise ValueError(
          'unbiased subsampling needs visit=groups, and a max_group_size of '
          f'at least 2, got visit={self.visit}, '
          f'max_group_size={self.max_group_size}')
    if self.evidence not in EVIDENCE:
      raise ValueError(
          f'expected evidence of {EVIDENCE}, got {self.evidence!r}')
    if self.evidence == 'random' and (
        self.unbiased or self.share_of_whole_group):
      raise ValueError(
          'random evidence is only for posteriors that are computed from the '
          'rows of a batch, and unbiased subsampling draws its own evidence; '
          "use evidence='all'")
    if self.unbiased and self.share_of_whole_group:
      raise ValueError(
          'unbiased subsampling is only for posteriors that are computed from '
          'the rows drawn; posteriors of whole groups have no such bias, so '
          "use subsampling='paper'")

  @property
  def unbiased(self) -> bool:
    """Whether `subsampling` is 'unbiased'."""
    return self.subsampling == 'unbiased'

  @property
  def draws_evidence(self) -> bool:
    """Whether some rows of a batch may not be evidence."""
    return self.unbiased or self.evidence == 'random'


class Plan(NamedTuple):
  """What is the same in every epoch, for the G groups that are visited.

  Attributes:
    offsets: `[all groups + 1]`, with those of groups that are left out.
    numbers: `[G]` int32, number of each visited group among all groups.
    starts: `[G]`, first row of each group.
    sizes: `[G]`, number of rows of each group.
    drawn: `[G]`, number of rows of each group that an epoch draws.
    pieces: `[G]`, number of pieces that these are cut into.
    groups_per_batch: static number of pieces of a batch.
    rows_per_batch: static number of rows of a batch.
    steps_per_epoch: number of batches of an epoch.
    is_cut: whether any group is cut into pieces, or not drawn whole.
    by_group: whether groups are visited in random order, each once.
  """

  offsets: np.ndarray
  numbers: np.ndarray
  starts: np.ndarray
  sizes: np.ndarray
  drawn: np.ndarray
  pieces: np.ndarray
  groups_per_batch: int
  rows_per_batch: int
  steps_per_epoch: int
  is_cut: bool
  by_group: bool


class Pieces(NamedTuple):
  """P pieces of groups, each the rows start:start + size.

  Attributes:
    group: `[P]`, index of the group in the plan.
    start: `[P]`, first row.
    size: `[P]`, number of rows.
  """

  group: np.ndarray
  start: np.ndarray
  size: np.ndarray


class Epoch(NamedTuple):
  """One epoch of a plan.

  Attributes:
    pieces: the pieces, those of a group one after the other.
    batch_order: `[steps_per_epoch]`, permutation of the batches.
    row_order: `[N]`, permutation of the rows that keeps groups in place; None
      where rows keep their order.
  """

  pieces: Pieces
  batch_order: np.ndarray
  row_order: np.ndarray | None


def make_plan(offsets: np.ndarray, settings: Settings) -> Plan:
  """Plans epochs over groups.

  Args:
    offsets: `[G + 1]` ints; group g has the rows offsets[g]:offsets[g + 1].
    settings: how batches are drawn; row_multiple is ignored.

  Returns:
    The plan.

  Raises:
    ValueError: on offsets that do not grow from 0, no rows, or no group of
      min_group_size.
  """
  offsets = check_offsets(offsets)
  if not offsets[-1]:
    raise ValueError('expected offsets that grow from 0 to at least one row')
  keep = np.diff(offsets) >= settings.min_group_size
  if not np.any(keep):
    raise ValueError(
        f'no group has the {settings.min_group_size} rows that '
        'min_group_size requires')
  starts, sizes = offsets[:-1][keep], np.diff(offsets)[keep]
  limit = min(settings.max_group_size or sizes.max(), sizes.max())
  drawn = np.minimum(sizes, limit) if settings.visit == 'groups' else sizes
  pieces = _ceil_div(drawn, limit)
  groups_per_batch = min(settings.groups_per_batch, len(sizes))
  # Enough batches for all pieces, and for the most pieces of one group, since
  # no batch holds two of a group.
  steps = int(max(_ceil_div(pieces.sum(), groups_per_batch), pieces.max()))
  if groups_per_batch == len(sizes):  # Every batch gets a piece of every group.
    pieces = np.minimum(drawn, steps)
  by_group = settings.shuffle and settings.visit == 'groups'
  # The most rows that a batch can have, which is the static shape. Where groups
  # are dealt out in order of size, the first batch gets every steps-th of them;
  # else a batch may happen to get the largest.
  largest = np.sort(_ceil_div(drawn, pieces))[::-1]
  dealt = slice(None, None, steps) if by_group else slice(groups_per_batch)
  return Plan(
      offsets, np.flatnonzero(keep).astype(np.int32), starts, sizes, drawn,
      pieces, groups_per_batch, int(largest[dealt].sum()), steps,
      bool(np.any(pieces > 1) or np.any(drawn < sizes)), by_group)


def plan_epoch(plan: Plan, settings: Settings, epoch: int) -> Epoch:
  """Plans one epoch.

  Args:
    plan: the plan, which is the same for every epoch.
    settings: the same as for the plan.
    epoch: number of the epoch; without shuffling all epochs are like epoch 0.

  Returns:
    The epoch's pieces and orders. Rows of pieces are to be looked up in
    `row_order`, where there is one.
  """
  # The order of these draws is part of a run: its batches depend on it.
  rng = np.random.Generator(np.random.PCG64(
      [settings.seed, epoch if settings.shuffle else 0]))
  order = np.arange(len(plan.sizes))
  if settings.shuffle:
    order = rng.permutation(len(plan.sizes))
  if plan.by_group:
    # From large to small, so that each batch is dealt groups of all sizes,
    # and all batches have about as many rows.
    order = order[np.argsort(-plan.drawn[order], kind='stable')]
  pieces = _cut(plan, order)
  batch_order, row_order = np.arange(plan.steps_per_epoch), None
  if settings.shuffle:
    batch_order = rng.permutation(plan.steps_per_epoch)
    if plan.is_cut and not plan.by_group:
      row_order = _shuffle_within_groups(rng, plan.offsets)
  return Epoch(pieces, batch_order, row_order)


def pieces_of_batch(epoch: Epoch, number: int) -> Pieces:
  """The pieces of a batch of an epoch; batches are numbered from 0."""
  # Pieces of one group are neighbours in the plan. Dealing the plan out like
  # cards puts them into different batches.
  dealt = slice(epoch.batch_order[number], None, len(epoch.batch_order))
  return Pieces(*(value[dealt] for value in epoch.pieces))


def _cut(plan: Plan, order: np.ndarray) -> Pieces:
  """Cuts groups into their pieces, in the given order of groups."""
  count = plan.pieces[order]
  group, nth = np.repeat(order, count), ranks_of(count)
  # Piece j of p gets the rows from j * n // p to (j + 1) * n // p.
  size, count = plan.drawn[group], plan.pieces[group]
  begin, end = nth * size // count, (nth + 1) * size // count
  return Pieces(group, plan.starts[group] + begin, end - begin)


def _shuffle_within_groups(rng: np.random.Generator, offsets: np.ndarray
                           ) -> np.ndarray:
  # Rows are sorted by group, so a sort by (group + a random fraction) leaves
  # each group in place and shuffles its rows.
  sizes = np.diff(offsets)
  group = np.repeat(np.arange(len(sizes)), sizes)
  return np.argsort(
      group + rng.random(len(group)), kind='stable').astype(np.int32)


def _ceil_div(a, b):
  return -(-a // b)
