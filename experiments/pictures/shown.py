"""What pictures of a run show: which test images, and their codes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from experiments.datasets.splits import Splits
import mlvae_jax
from mlvae_jax.data.grouped import GroupedImages
from mlvae_jax.data.ids import fill_unknown
from mlvae_jax.inference.encode import Codes
from mlvae_jax.model.model import Model, Params

SEED = 0  # Of which images are shown, and of the codes that are drawn.
NUM_EVIDENCE = 10  # Other images of the group, as in the paper.
NUM_SETS = 10  # At most this many images or groups on a figure.
MAX_MEMBERS = 100  # A group's code hardly changes beyond that many images.
# Compiled whole: op by op, drawing a run would compile for seconds.
_infer = jax.jit(mlvae_jax.infer, static_argnums=(0, 4))


class Groups(NamedTuple):
  """The groups of images in one grouping.

  Attributes:
    ids: `[N]` ints; an image of no known group has one of its own.
    names: of the known groups.
  """

  ids: np.ndarray
  names: tuple[str, ...]

  def rows(self, group: int) -> np.ndarray:
    """Rows of a group, at most `MAX_MEMBERS`, in a random order.

    Images are sorted by the first grouping: the first images of another
    grouping's group would all be of one group of the first.
    """
    rows = np.flatnonzero(self.ids == group)
    return np.random.default_rng(SEED).permutation(rows)[:MAX_MEMBERS]

  def name(self, group: int) -> str:
    """The name of a group."""
    return self.names[group] if group < len(self.names) else '?'

  def choose(self, count: int) -> np.ndarray:
    """Up to `count` groups that have images, in order; those of 10 first."""
    sizes = np.bincount(self.ids, minlength=len(self.names))
    shuffled = np.random.default_rng(SEED).permutation(len(sizes))
    order = np.lexsort((shuffled, -np.minimum(sizes, NUM_EVIDENCE)))[:count]
    return np.sort(order[sizes[order] > 0])


class Subject(NamedTuple):
  """What image figures are drawn of.

  Attributes:
    model: static.
    params: its parameters.
    data: whose test images are shown.
    factor: name of the factor that is shown, None in a VAE.
    strategy: 1 infers all codes from each image alone; 2 accumulates the
      evidence of groups in the codes that they share (paper section 4).
  """

  model: Model
  params: Params
  data: Splits
  factor: str | None
  strategy: int = 2

  @property
  def images(self) -> GroupedImages:
    """The test images."""
    return self.data.test

  @property
  def grouping(self) -> str:
    """What the factor's groups are, or where it has none, the first's."""
    own = self.factor and self.model.factor(self.factor).grouping
    return own or (*self.model.groupings, self.data.grouping)[0]

  @property
  def groups(self) -> Groups:
    """The groups of the test images in that grouping."""
    return groups_of(self.images, self.grouping)

  @property
  def others(self) -> str:
    """Names of the other factors, as a phrase."""
    return in_words(
        [f.name for f in self.model.factors if f.name != self.factor])

  @property
  def strategy_words(self) -> str:
    """What the strategy is, a sentence; '' where nothing is grouped."""
    if not self.model.grouped:
      return ''
    if self.strategy == 1:
      return 'Strategy 1: every code is inferred from its image alone.'
    shared = '; '.join(
        f'{f.name}: of its {f.grouping}' for f in self.model.grouped)
    return ('Strategy 2: a code that a group shares has the evidence of the '
            f'image and of up to {NUM_EVIDENCE} others of the group '
            f'({shared}).')


def in_words(names: Sequence[str]) -> str:
  """Names as a phrase: 'a', 'a and b', 'a, b and c'; '' for none."""
  *first, last = names or ['']
  return f'{", ".join(first)} and {last}' if first else last


def variants(subject: Subject, names: Sequence[str | None],
             strategies: Sequence[int] = (2, 1)
             ) -> Iterator[tuple[str, Subject]]:
  """The subject with each factor and strategy, and how its file name ends.

  Args:
    subject: of any factor.
    names: of the factors; the first is not named in the file's name.
    strategies: strategy 2 is not named in the file's name. There is but one
      where nothing is grouped.

  Yields:
    ('', subject), ('_light', subject), ..., ('_strategy_1', subject), ...
  """
  for strategy in strategies if subject.model.grouped else (2,):
    for i, name in enumerate(names):
      yield (f'_{name}' * (i > 0) + '_strategy_1' * (strategy == 1),
             subject._replace(factor=name, strategy=strategy))


def groups_of(images: GroupedImages, grouping: str) -> Groups:
  """The groups of images in a grouping."""
  ids, names = images.labels_of(grouping)
  return Groups(fill_unknown(ids, len(names) + np.arange(len(ids))), names)


def choose_images(subject: Subject, count: int) -> np.ndarray:
  """Rows of up to `count` images, equally many of each group.

  Images of the same group in other groupings are avoided, so that the images
  differ in every factor that is known.
  """
  groups, images = subject.groups, subject.images
  further = [groups_of(images, name).ids for name in images.groupings
             if name != subject.grouping]
  chosen = groups.choose(count)
  rows = []
  for group in np.repeat(chosen, count // max(1, len(chosen))):
    free = np.array([r for r in groups.rows(group) if r not in rows], int)
    if len(free):
      in_common = sum((ids[free, None] == ids[rows]).sum(-1)
                      for ids in further)
      rows.append(free[np.argmin(in_common + np.zeros(len(free)))])
  return np.array(rows, int)


def choose_members(subject: Subject, groups: Sequence[int]
                   ) -> list[np.ndarray]:
  """Rows of each group whose reconstructions show what evidence does.

  These are chosen, as in the paper: the two images whose mean code, inferred
  alone, is furthest from the group's, and the two nearest. Without a grouped
  factor, or a choice, the first four.
  """
  members = [subject.groups.rows(group) for group in groups]
  if subject.factor is None:
    return [rows[:4] for rows in members]
  alone, together = (
      encode(subject, members, grouping=grouping)[subject.factor]
      for grouping in (None, subject.grouping))
  distances = np.split(np.linalg.norm(alone - together, axis=-1),
                       np.cumsum([len(rows) for rows in members])[:-1])
  return [rows[np.argsort(-distance)[[0, 1, -2, -1]]] if len(rows) > 4
          else rows for rows, distance in zip(members, distances)]


def infer_codes(subject: Subject, rows: np.ndarray,
                key: jax.Array | None = None) -> Codes:
  """Codes of up to `NUM_SETS` images by the subject's strategy.

  Args:
    subject: says which strategy.
    rows: `[N]` of the test images.
    key: optional, for samples in place of means; consumed.

  Returns:
    `[N, D]` per factor. By strategy 2, those of grouped factors have the
    evidence of up to `NUM_EVIDENCE` other images, each of its own grouping.
  """
  codes = encode(subject, [rows], key)
  for grouping in subject.model.groupings if subject.strategy == 2 else ():
    groups, members = groups_of(subject.images, grouping), []
    for row in rows:
      others = groups.rows(groups.ids[row])
      others = others[others != row][:NUM_EVIDENCE]
      members.append(np.append(row, others))
    codes |= group_codes(subject, members, grouping, key)
  return codes


def group_codes(subject: Subject, members: Sequence[np.ndarray],
                grouping: str, key: jax.Array | None = None, *,
                images: GroupedImages | None = None) -> Codes:
  """The codes that sets share, of a grouping's factors alone.

  Args:
    subject: its model is used.
    members: rows of each set, all of which are evidence.
    grouping: of the factors.
    key: optional, for samples in place of means; consumed.
    images: of the rows; by default the test images.

  Returns:
    `[len(members), D]` per factor of that grouping.
  """
  codes = encode(subject, members, key, grouping, images=images)
  first = np.cumsum([0] + [len(m) for m in members[:-1]])
  return {f.name: codes[f.name][first] for f in subject.model.grouped
          if f.grouping == grouping}


def encode(subject: Subject, members: Sequence[np.ndarray],
           key: jax.Array | None = None, grouping: str | None = None, *,
           images: GroupedImages | None = None) -> Codes:
  """Codes of all rows of up to `NUM_SETS` sets, as NumPy arrays.

  Args:
    subject: its model is used.
    members: rows of each set.
    key: optional, for samples in place of means; consumed.
    grouping: whose factors accumulate the evidence of a set's rows; all
      others, and without a grouping all, are of each row alone.
    images: of the rows; by default the test images.

  Returns:
    `[N, D]` per factor, N rows in all.
  """
  images = subject.images if images is None else images
  rows = np.concatenate(members)
  # Few shapes, to compile little: padding is one more set.
  size = max(128, 1 << (len(rows) - 1).bit_length())
  ids = np.full(size, NUM_SETS, np.int32)
  ids[:len(rows)] = np.repeat(
      np.arange(len(members)), [len(m) for m in members])
  group_ids = {f.name: ids for f in subject.model.grouped
               if f.grouping == grouping}
  codes = jax.device_get(_infer(
      subject.model, subject.params, images.images[np.resize(rows, size)],
      group_ids, NUM_SETS + 1, key=key))
  return {name: code[:len(rows)] for name, code in codes.items()}
