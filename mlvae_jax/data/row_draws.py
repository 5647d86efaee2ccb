"""Draws the rows of a step, by one grouping: what the plan leaves to chance."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from mlvae_jax.data.plan import (
    Pieces,
    Plan,
    Settings,
    make_plan,
    pieces_of_batch,
    plan_epoch,
)

# Distinct streams of random numbers; that of a plan has no third number.
_HALVES, _MEMBERS = 1, 2


class Drawn(NamedTuple):
  """Rows of a step, and the pieces of groups that they are.

  Attributes:
    rows: `[n]` ints, each row once.
    ids: `[n]` ints in `[0, P)`, piece of each row.
    groups: `[P]` int32, group of each piece; each is of another group.
    evidence, weights: `[n]` as in `factors.Batch`, or None.
  """

  rows: np.ndarray
  ids: np.ndarray
  groups: np.ndarray
  evidence: np.ndarray | None = None
  weights: np.ndarray | None = None


class Draw:
  """Rows of groups as a pure function of (seed, step).

  Attributes:
    plan: what is the same in all its epochs.
  """

  def __init__(self, offsets: np.ndarray, settings: Settings,
               order: np.ndarray | None = None):
    """Plans its epochs.

    Args:
      offsets: `[G + 1]` ints; group g has the rows offsets[g]:offsets[g + 1].
      settings: how rows are drawn; row_multiple is ignored.
      order: `[N]` ints, the rows of the data set sorted by group; None where
        they lie in this order.

    Raises:
      ValueError: as `make_plan` does.
    """
    self.plan = make_plan(offsets, settings)
    self._settings, self._order = settings, order
    self._epoch = functools.lru_cache(maxsize=2)(
        functools.partial(plan_epoch, self.plan, settings))

  def __call__(self, step: int) -> Drawn:
    """What is drawn for a step."""
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
    """All rows of pieces; of groups visited in part, random ones instead."""
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
    """Rows that are evidence, likelihood, or both, of all groups.

    A group that is drawn whole is both, of weight 1. Of any other two random
    halves are drawn, each without the other being known.

    Returns:
      Rows `[n]`, numbers of rows `[P]`, evidence `[n]` and weights `[n]`.
    """
    rng = self._rng(step, _HALVES)
    parts, sizes = [], []
    for group in groups:
      size, drawn = int(self.plan.sizes[group]), int(self.plan.drawn[group])
      if drawn == size:
        chosen = np.arange(size)
        is_evidence, weight = np.ones(size, bool), np.ones(size)
      else:
        halves = [rng.choice(size, count, replace=False)
                  for count in (drawn - drawn // 2, drawn // 2)]
        chosen = np.unique(np.concatenate(halves))
        is_evidence, is_likely = (np.isin(chosen, half) for half in halves)
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
  """Random rows of groups, of each as many as are drawn, none twice.

  By Floyd's algorithm, for all groups at once: what it costs depends on how
  many rows are drawn, not on how many there are.
  """
  num_drawn = int(plan.drawn[groups[0]])  # Alike in all: the limit.
  size = plan.sizes[groups]
  chosen = np.full((len(groups), num_drawn), -1)
  for i in range(num_drawn):
    last = size - num_drawn + i
    number = np.minimum(
        (rng.random(len(groups)) * (last + 1)).astype(np.int64), last)
    is_taken = np.any(chosen == number[:, None], axis=1)
    chosen[:, i] = np.where(is_taken, last, number)
  return (plan.starts[groups][:, None] + chosen).ravel()
