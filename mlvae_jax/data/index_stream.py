"""The index stream: which rows, in which groups, make up a minibatch.

Algorithm 1 of the paper samples minibatches of groups. Here an epoch is one
pass over the *images*, even where there are few groups: large groups are cut
at random into pieces, which differ from epoch to epoch, and each piece counts
as a group (see `plan`).

That is `visit='images'`. With `visit='groups'` an epoch is one pass over the
*groups*, as in the paper's algorithm: each is visited once, with at most
`max_group_size` of its images, which again differ from epoch to epoch. Where
sizes are uneven (faces: one person has 530 images, most have two), no group
then outweighs the others.

For a group that is cut, the paper's estimate of the ELBO is biased: each piece
pays a whole KL. With `subsampling='unbiased'`, two independent random samples
of half a piece are drawn from a large group of n images: one is the evidence,
the other is for the likelihood, where each of its m images represents n / m.
With any evidence this is a bound on the whole group's log p(X_G), and its
estimate is unbiased.

With several groupings, a batch that is drawn by identity hardly ever holds two
images of the same light. So a batch is then a union of groups from every
grouping, each with a plan of its own. An image that is drawn twice is taken
once, and all images of the batch that share a group are members of it. The
members that a batch holds are a piece of their group, whatever its grouping,
and a piece counts as a group: its posterior is made of the evidence present,
and it pays its whole KL once. Paying a share of the KL, as if the group's other
members were elsewhere in the epoch, would not give a bound: the images that a
posterior is made of are those that it is scored on.

A batch is a pure function of (seed, step), so a run resumes from its step
number alone. Every batch is padded to the same static shape.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from mlvae_jax.data.grouped import GroupedData
from mlvae_jax.data.ids import fill_unknown, offsets_of
from mlvae_jax.data.plan import Settings
from mlvae_jax.data.row_draws import Draw, Drawn, draw_evidence

# A stream of random numbers apart from those of `row_draws`.
_EVIDENCE = 3


class IndexBatch(NamedTuple):
  """The rows that make up a batch; dicts are keyed by grouping.

  Attributes:
    rows: `[..., N]` int32, rows of the data set; 0 for padding.
    group_ids: `[..., N]` int32 per grouping, in `[0, num_groups[grouping])`.
    mask: `[..., N]` bool, False for padding, which comes last.
    groups: `[..., num_groups[grouping]]` int32 per grouping, number of each
      group in the data set; -1 for unused ids.
    kl_share: `[..., N]` float32 per grouping, the share of its group's KL that
      a row pays; empty without `share_of_whole_group`.
    evidence: `[..., N]` bool per grouping, as in `factors.Batch`; empty where
      all rows are evidence.
    weights: `[..., N]` float32 as in `factors.Batch`, or None.
  """

  rows: np.ndarray
  group_ids: dict[str, np.ndarray]
  mask: np.ndarray
  groups: dict[str, np.ndarray]
  kl_share: dict[str, np.ndarray]
  evidence: dict[str, np.ndarray]
  weights: np.ndarray | None = None


class IndexStream:
  """Minibatches of groups as a pure function of (seed, step).

  Attributes:
    num_groups: static number of groups of a batch, per grouping.
    rows_per_batch: static number of rows of a batch, N, including padding.
    steps_per_epoch: number of batches in which every image, or every group, of
      the first grouping is visited once.
    images_per_epoch: number of images drawn by the first grouping in an epoch.
  """

  def __init__(self, data: GroupedData, groupings: Sequence[str],
               **settings: Any):
    """Plans batches.

    Args:
      data: the images, of which only the groups are read.
      groupings: names of the groupings by which rows are drawn. An epoch is
        one pass by the first. With none, as in a VAE, every row is a group.
      **settings: fields of `plan.Settings`.

    Raises:
      ValueError: on settings that make no sense, no rows, no group that is
        large enough, or a grouping that the data do not have.
    """
    chosen = Settings(**settings)
    if chosen.unbiased and len(groupings) > 1:
      raise ValueError(
          'unbiased subsampling supports only one grouping, got '
          f'{list(groupings)}')
    self._settings, self._labels = chosen, None
    if set(groupings) <= {data.grouping}:  # The rows are sorted by it.
      offsets = data.offsets if groupings else np.arange(len(data) + 1)
      self._sizes = dict.fromkeys(groupings, np.diff(offsets))
      self._draws = [Draw(offsets, chosen)]
    else:
      self._labels = {name: fill_unknown(data.labels_of(name).ids)
                      for name in groupings}
      self._sizes = {name: np.bincount(ids)
                     for name, ids in self._labels.items()}
      self._draws = list(_draws(self._labels, self._sizes, chosen))
    first, multiple = self._draws[0].plan, chosen.row_multiple
    self.steps_per_epoch = first.steps_per_epoch
    self.images_per_epoch = int(first.drawn.sum())
    num_rows = sum(draw.plan.rows_per_batch for draw in self._draws)
    self.rows_per_batch = -(-num_rows // multiple) * multiple
    # In a union every row may be of a different group.
    self.num_groups = dict.fromkeys(
        groupings, first.groups_per_batch if self._labels is None
        else self.rows_per_batch)

  def batch(self, step: int) -> IndexBatch:
    """The batch `[N]` of a step."""
    return jax.tree.map(lambda value: value[0], self.batches(step, step + 1))

  def batches(self, start: int, stop: int) -> IndexBatch:
    """The batches of steps start to stop, stacked to `[stop - start, N]`."""
    result = self._padding(stop - start)
    for i, step in enumerate(range(start, stop)):
      self._fill(result, i, step, [draw(step) for draw in self._draws])
    return result

  def _padding(self, num_steps: int) -> IndexBatch:
    """Batches of padding only, to be filled."""
    # Padding has row 0 and id 0, which exist, so that gathering needs no care.
    shape, settings = (num_steps, self.rows_per_batch), self._settings
    paying = self.num_groups if settings.share_of_whole_group else ()
    return IndexBatch(
        rows=np.zeros(shape, np.int32),
        group_ids={name: np.zeros(shape, np.int32)
                   for name in self.num_groups},
        mask=np.zeros(shape, bool),
        groups={name: np.full((num_steps, size), -1, np.int32)
                for name, size in self.num_groups.items()},
        kl_share={name: np.zeros(shape, np.float32) for name in paying},
        evidence={name: np.zeros(shape, bool) for name in (
            self.num_groups if settings.draws_evidence else ())},
        weights=np.zeros(shape, np.float32) if settings.unbiased else None)

  def _fill(self, result: IndexBatch, i: int, step: int,
            drawn: Sequence[Drawn]) -> None:
    """Writes the rows drawn for a step into batch i of `result`."""
    rows = drawn[0].rows
    if len(drawn) > 1:
      rows = _each_once(np.concatenate([part.rows for part in drawn]))
    here = i, slice(len(rows))
    result.rows[here], result.mask[here] = rows, True
    if result.weights is not None:  # Then there is one grouping.
      result.weights[here] = drawn[0].weights
    for number, name in enumerate(self.num_groups):
      groups, ids = drawn[0].groups, drawn[0].ids
      if self._labels is not None:
        # Ids are for the groups of the union, so every member is found,
        # whichever grouping drew it.
        groups, ids = np.unique(self._labels[name][rows], return_inverse=True)
      result.group_ids[name][here] = ids
      result.groups[name][i, :len(groups)] = groups
      if self._settings.unbiased:
        result.evidence[name][here] = drawn[0].evidence
      elif self._settings.draws_evidence:
        result.evidence[name][here] = draw_evidence(
            ids, [self._settings.seed, step, _EVIDENCE, number])
      if self._settings.share_of_whole_group:
        # The shares of all rows of a group, in whichever batches, sum to 1.
        result.kl_share[name][here] = 1.0 / self._sizes[name][groups][ids]


def _draws(labels: Mapping[str, np.ndarray], sizes: Mapping[str, np.ndarray],
           settings: Settings) -> Iterator[Draw]:
  """Draws by all groupings that rows can be drawn by, the first one first."""
  # A grouping whose groups are all single rows would draw rows at random, and
  # unshuffled batches are one pass by the first grouping.
  first = next(iter(labels))
  names = [name for name in labels if name == first or (
      settings.shuffle and sizes[name].max(initial=0) > 1)]
  for number, name in enumerate(names):
    yield Draw(
        offsets_of(sizes[name]), dataclasses.replace(
            settings,
            groups_per_batch=max(1, settings.groups_per_batch // len(names)),
            # Further groupings add company to rows: single rows have none.
            min_group_size=settings.min_group_size if name == first else 2,
            seed=_seed_of(settings.seed, number)),
        order=np.argsort(labels[name], kind='stable'))


def _seed_of(seed: int, number: int) -> int:
  """A seed for each grouping's draws; the first keeps the run's."""
  if number == 0:
    return seed
  return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def _each_once(rows: np.ndarray) -> np.ndarray:
  """Rows without repeats, in the order of their first occurrences."""
  _, where = np.unique(rows, return_index=True)
  return rows[np.sort(where)]
