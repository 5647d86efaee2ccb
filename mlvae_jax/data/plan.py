"""The plan of an epoch: which pieces of which groups, in which batches.

Pure functions of the sizes of groups, of settings, of a seed and of an epoch.
The plan is made for rows that are sorted by group:

- A group of more than `max_group_size` rows is cut into pieces of nearly equal
  size; each piece counts as a group.
- A batch holds at most `groups_per_batch` pieces, never two of one group.
- Where all groups fit into a batch (ten digits), each batch holds a piece of
  every group that has enough rows to go round.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from mlvae_jax.data.ids import ranks_of

VISIT = ('images', 'groups')
SUBSAMPLING = ('paper', 'unbiased')


@dataclasses.dataclass(frozen=True)
class Settings:
  """How batches are drawn; a ValueError where that makes no sense.

  Attributes:
    groups_per_batch: at most this many groups in a batch, of all groupings
      together; at least one of each that is drawn by.
    max_group_size: larger groups are cut; None keeps all whole.
    min_group_size: smaller groups are left out.
    visit: what an epoch visits once, 'images' or 'groups'.
    subsampling: 'paper', or 'unbiased', which needs visit='groups', a
      max_group_size of at least 2 and a single grouping.
    share_of_whole_group: a row pays its share of the KL of its whole group,
      for posteriors that are the whole group's (SVI), instead of a share of
      the KL of the piece that a batch holds.
    seed: seed of the order of groups and rows.
    row_multiple: rows per batch are rounded up to a multiple of it (the
      number of devices).
    shuffle: False keeps the order of groups and rows, the same in every
      epoch, and draws by the first grouping only, as evaluation wants it.
  """

  groups_per_batch: int
  max_group_size: int | None = None
  min_group_size: int = 1
  visit: str = 'images'
  subsampling: str = 'paper'
  share_of_whole_group: bool = False
  seed: int = 0
  row_multiple: int = 1
  shuffle: bool = True

  def __post_init__(self):
    sizes = (self.groups_per_batch, self.max_group_size, self.min_group_size,
             self.row_multiple)
    if min(size for size in sizes if size is not None) < 1:
      raise ValueError(
          'expected groups_per_batch, max_group_size, min_group_size and '
          f'row_multiple of at least 1, got {sizes}')
    if self.visit not in VISIT:
      raise ValueError(f'expected visit of {VISIT}, got {self.visit!r}')
    if self.subsampling not in SUBSAMPLING:
      raise ValueError(
          f'expected subsampling of {SUBSAMPLING}, got {self.subsampling!r}')
    if self.unbiased and (self.visit != 'groups' or self.max_group_size == 1):
      raise ValueError(
          'unbiased subsampling needs visit=groups, and a max_group_size of '
          'at least 2')
    if self.unbiased and self.share_of_whole_group:
      raise ValueError(
          'unbiased subsampling is for posteriors made of the rows drawn; '
          'those of whole groups have no such bias; use '
          'subsampling=\'paper\'')

  @property
  def unbiased(self) -> bool:
    """Whether subsampling is unbiased."""
    return self.subsampling == 'unbiased'


class Plan(NamedTuple):
  """What is the same in every epoch.

  Attributes:
    offsets: `[all groups + 1]`; those of a group that is left out too.
    numbers: `[G]` int32, which groups are visited.
    starts, sizes: `[G]`, first row and number of rows of each.
    drawn: `[G]`, how many rows of each an epoch draws.
    pieces: `[G]`, in how many pieces.
    groups_per_batch: static number of pieces of a batch.
    rows_per_batch: static number of rows of a batch.
    steps_per_epoch: batches of an epoch.
    is_cut: whether any group is divided, or not drawn whole.
    by_group: whether groups are visited at random, each once.
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
  """Pieces of groups: the rows start:start + size of each, `[P]`."""

  group: np.ndarray
  start: np.ndarray
  size: np.ndarray


class Epoch(NamedTuple):
  """One epoch's pieces, order of batches, and order of rows (or None)."""

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
    ValueError: on offsets that do not grow from 0, or no group that is large
      enough.
  """
  offsets = np.asarray(offsets, np.int64)
  if offsets.ndim != 1 or len(offsets) < 2 or offsets[0] != 0 or np.any(
      np.diff(offsets) < 0) or offsets[-1] == 0:
    raise ValueError('expected offsets that grow from 0, with some rows')
  keep = np.diff(offsets) >= settings.min_group_size
  if not np.any(keep):
    raise ValueError(
        f'no group has the {settings.min_group_size} images of min_group_size')
  starts, sizes = offsets[:-1][keep], np.diff(offsets)[keep]
  limit = min(settings.max_group_size or sizes.max(), sizes.max())
  drawn = np.minimum(sizes, limit) if settings.visit == 'groups' else sizes
  pieces = _ceil_div(drawn, limit)
  groups_per_batch = min(settings.groups_per_batch, len(sizes))
  steps = int(max(_ceil_div(pieces.sum(), groups_per_batch), pieces.max()))
  if groups_per_batch == len(sizes):
    pieces = np.minimum(drawn, steps)
  by_group = settings.shuffle and settings.visit == 'groups'
  # The most rows that a batch can have: of pieces dealt out like cards where
  # groups are in the order of their sizes, else of any.
  largest = np.sort(_ceil_div(drawn, pieces))[::-1]
  dealt = slice(None, None, steps) if by_group else slice(groups_per_batch)
  return Plan(
      offsets, np.flatnonzero(keep).astype(np.int32), starts, sizes, drawn,
      pieces, groups_per_batch, int(largest[dealt].sum()), steps,
      bool(np.any(pieces > 1) or np.any(drawn < sizes)), by_group)


def plan_epoch(plan: Plan, settings: Settings, epoch: int) -> Epoch:
  """Plans one epoch.

  Args:
    plan: what is the same in every epoch.
    settings: the same as for the plan.
    epoch: number of the epoch; without shuffling all epochs are the first.

  Returns:
    Its pieces and orders. Rows of pieces are numbers before `row_order`.
  """
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
  """The pieces of a batch of an epoch, the first being number 0."""
  # Pieces of one group are neighbours in the plan. Dealing the plan out like
  # cards puts them into different batches.
  dealt = slice(epoch.batch_order[number], None, len(epoch.batch_order))
  return Pieces(*(value[dealt] for value in epoch.pieces))


def _cut(plan: Plan, order: np.ndarray) -> Pieces:
  """Cuts groups, taken in an order, into their pieces."""
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
