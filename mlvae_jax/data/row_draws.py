"""Draws the rows of a step by one grouping: the random part of a plan."""

from __future__ import annotations

from collections.abc import Sequence
import functools
from typing import NamedTuple

import numpy as np

from mlvae_jax.data.ids import rank_within_group
from mlvae_jax.data.plan import (
    Pieces,
    Plan,
    Settings,
    make_plan,
    pieces_of_batch,
    plan_epoch,
)

# Third number of the seeds of distinct random streams; a plan's has only two.
_HALVES, _MEMBERS = 1, 2


class Drawn(NamedTuple):
  """The n rows of a step, which form P pieces of different groups.

  Attributes:
    rows: `[n]` ints, each row once.
    ids: `[n]` ints in `[0, P)`, piece of each row.
    groups: `[P]` int32, group of each piece.
    evidence: `[n]` bool as in `factors.Batch`, or None.
    weights: `[n]` as in `factors.Batch`, or None.
  """

  rows: np.ndarray
  ids: np.ndarray
  groups: np.ndarray
  evidence: np.ndarray | None = None
  weights: np.ndarray | None = None


class Draw:
  """Rows of groups as a pure function of (seed, step).

  Attributes:
    plan: the plan of its epochs.
  """

  def __init__(self, offsets: np.ndarray, settings: Settings,
               order: np.ndarray | None = None):
    """Plans epochs.

    Args:
      offsets: `[G + 1]` ints; group g has the rows offsets[g]:offsets[g + 1].
      settings: how rows are drawn; row_multiple is ignored.
      order: `[N]` ints, the rows of the data set sorted by group; None where
        the data set is in this order.

    Raises:
      ValueError: as `make_plan` does.
    """
    self.plan = make_plan(offsets, settings)
    self._settings, self._order = settings, order
    # Two epochs, since a chunk of steps may cross from one into the next.
    self._epoch = functools.lru_cache(maxsize=2)(
        functools.partial(plan_epoch, self.plan, settings))

  def __call__(self, step: int) -> Drawn:
    """Draws the rows of a step; the same each time."""
    epoch, within = divmod(step, self.plan.steps_per_epoch)
    epoch = self._epoch(epoch if self._settings.shuffle else 0)
    pieces = pieces_of_batch(epoch, within)
    groups = self.plan.numbers[pieces.group]
    if self._settings.unbiased:
      rows, size, evidence, weights = self._halves(step, pieces.group)
    else:
      rows, size = self._members(step, pieces), pieces.size
      evidence = weights = None
    if epoch.row_order is not None:
      rows = epoch.row_order[rows]
    if self._order is not None:
      rows = self._order[rows]
    return Drawn(
        rows, np.repeat(np.arange(len(size)), size), groups, evidence, weights)

  def _members(self, step: int, pieces: Pieces) -> np.ndarray:
    """The rows of pieces; random rows of groups that are not drawn whole."""
    # Row i of the batch is row i - before + start of its piece.
    before = np.cumsum(pieces.size) - pieces.size
    rows = np.arange(pieces.size.sum()) + np.repeat(
        pieces.start - before, pieces.size)
    plan, group = self.plan, pieces.group
    if plan.by_group and plan.is_cut:
      in_part = plan.drawn[group] < plan.sizes[group]
      if np.any(in_part):
        rows[np.repeat(in_part, pieces.size)] = _choose(
            self._rng(step, _MEMBERS), plan, group[in_part])
    return rows

  def _halves(self, step: int, groups: np.ndarray):
    """Draws rows as evidence, for the likelihood, or for both.

    The rows of a group that is drawn whole are for both, with weight 1. Of any
    other group two random halves are drawn, independently of each other.

    Args:
      step: number of the step.
      groups: `[P]`, groups to draw from.

    Returns:
      Rows `[n]`, rows per group `[P]`, evidence `[n]` and weights `[n]`.
    """
    rng = self._rng(step, _HALVES)
    parts, sizes = [], []
    for group in groups:
      size, drawn = int(self.plan.sizes[group]), int(self.plan.drawn[group])
      if drawn == size:
        chosen = np.arange(size)
        is_evidence, weight = np.ones(size, bool), np.ones(size)
      else:
        # Independent halves may share rows: a row in both is drawn once, and
        # serves as both. Drawn apart from the first, the second would not
        # represent the whole group.
        halves = [rng.choice(size, count, replace=False)
                  for count in (drawn - drawn // 2, drawn // 2)]
        chosen = np.unique(np.concatenate(halves))
        is_evidence, is_likely = (np.isin(chosen, half) for half in halves)
        # Each row of the likelihood's half represents size / half of them.
        weight = is_likely * (size / (drawn // 2))
      parts.append((self.plan.starts[group] + chosen, is_evidence, weight))
      sizes.append(len(chosen))
    rows, evidence, weights = map(np.concatenate, zip(*parts))
    return rows, np.array(sizes), evidence, weights

  def _rng(self, step: int, purpose: int) -> np.random.Generator:
    return np.random.Generator(
        np.random.PCG64([self._settings.seed, step, purpose]))


def _choose(rng: np.random.Generator, plan: Plan, groups: np.ndarray
            ) -> np.ndarray:
  """Draws random rows of each group, without repeats.

  Floyd's algorithm, for all groups at once: its cost depends on how many rows
  are drawn, not on how many there are.
  """
  # Groups that are not drawn whole all have max_group_size rows drawn.
  num_drawn = int(plan.drawn[groups[0]])
  size = plan.sizes[groups]
  chosen = np.full((len(groups), num_drawn), -1)
  for i in range(num_drawn):
    last = size - num_drawn + i
    number = np.minimum(
        (rng.random(len(groups)) * (last + 1)).astype(np.int64), last)
    # A number that is taken is replaced by `last`, which cannot be taken yet;
    # this makes all subsets equally likely.
    is_taken = np.any(chosen == number[:, None], axis=1)
    chosen[:, i] = np.where(is_taken, last, number)
  return (plan.starts[groups][:, None] + chosen).ravel()


def draw_evidence(ids: np.ndarray, seed: Sequence[int]) -> np.ndarray:
  """Draws which members of each group are evidence, at least one of each.

  Any members are valid evidence for a bound on log p of the whole group. Of n
  members m are drawn, with log m about uniform from 0 to log n: so a single
  one is evidence about as often as many are, and its posterior is trained to be
  useful by itself.

  Args:
    ids: `[n]` ints from 0, group of each row.
    seed: numbers that determine the draw.

  Returns:
    `[n]` bool.
  """
  rng = np.random.Generator(np.random.PCG64(seed))
  _, size = rank_within_group(ids)
  # Uniforms by group; those of numbers that no row has are not used.
  uniform = rng.random(ids.max(initial=-1) + 1)[ids]
  # floor((n + 1) ** u) is m with probability log(1 + 1 / m) / log(n + 1).
  count = np.minimum((size + 1.0) ** uniform, size).astype(np.int64)
  order = rng.permutation(len(ids))
  rank = np.empty(len(ids), np.int64)
  rank[order] = rank_within_group(ids[order])[0]
  return rank < count
