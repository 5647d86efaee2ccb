"""What a picture shows: a model, a factor, a strategy, and groups of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from experiments.datasets.splits import Splits
from mlvae_jax.data.grouped import GroupedImages
from mlvae_jax.data.ids import fill_unknown
from mlvae_jax.model.model import Model, Params

SEED = 0  # Of which images are shown, and of the codes that are drawn.
NUM_EVIDENCE = 10  # Other images of the group, as in the paper.
NUM_SETS = 10  # At most this many images or groups on a figure.
MAX_MEMBERS = 100  # A group's code hardly changes beyond that many images.


class Groups(NamedTuple):
  """The groups of images in one grouping.

  Attributes:
    ids: `[N]` ints; an image of no known group has one of its own.
    names: names of the known groups.
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
    data: splits whose test images are shown.
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
    subject: a subject of any factor.
    names: names of the factors; the first is not named in the file's name.
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
