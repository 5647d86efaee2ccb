"""The subject of a picture: model, factor, strategy, and groups of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from experiments.datasets.splits import Splits
from mlvae_jax.data.grouped import GroupedData
from mlvae_jax.data.ids import fill_unknown
from mlvae_jax.model.model import Model, Params

SEED = 0  # Selects the images shown, and the codes that are sampled.
NUM_EVIDENCE = 10  # Other images of the group, as in the paper.
# Numbers of images of evidence to compare, in pictures and tables.
EVIDENCE_SIZES = (1, 2, 5, 10)
NUM_SETS = 10  # Maximum number of images or groups in a figure.
_NUM_LOOKED_AT = 256  # Rows whose values tell images from other arrays.
MAX_MEMBERS = 100  # The code of a group hardly changes beyond this many images.


class Groups(NamedTuple):
  """The groups of images in one grouping.

  Attributes:
    ids: `[N]` ints, group of each image; an image whose group is unknown is a
      group of its own.
    names: names of the known groups.
  """

  ids: np.ndarray
  names: tuple[str, ...]

  def rows(self, group: int) -> np.ndarray:
    """Rows of a group, at most `MAX_MEMBERS`, in a random order.

    Images are sorted by the first grouping. Without shuffling, the first
    images of a group in another grouping would all be in one group of the
    first.
    """
    rows = np.flatnonzero(self.ids == group)
    return np.random.default_rng(SEED).permutation(rows)[:MAX_MEMBERS]

  def name(self, group: int) -> str:
    """The name of a group."""
    return self.names[group] if group < len(self.names) else '?'

  def choose(self, count: int) -> np.ndarray:
    """Up to `count` groups, in order; groups of `NUM_EVIDENCE` are preferred.
    """
    # Among those it is random, or large groups would always be shown.
    sizes = np.bincount(self.ids, minlength=len(self.names))
    shuffled = np.random.default_rng(SEED).permutation(len(sizes))
    order = np.lexsort((shuffled, -np.minimum(sizes, NUM_EVIDENCE)))[:count]
    return np.sort(order[sizes[order] > 0])


class Subject(NamedTuple):
  """The subject of pictures made of test images.

  Attributes:
    model: model of the run.
    params: parameters of the model.
    data: splits whose test images are shown.
    factor: name of the factor that is shown; None for a VAE.
    strategy: 1 infers all codes from each image alone; 2 accumulates the
      evidence of groups in the codes that they share (paper section 4).
  """

  model: Model
  params: Params
  data: Splits
  factor: str | None
  strategy: int = 2

  @property
  def images(self) -> GroupedData:
    """The test images."""
    return self.data.test

  @property
  def shows_images(self) -> bool:
    """Whether the test rows are grey or RGB images, in uint8 or in [0, 1]."""
    shape = self.model.observation_shape
    if len(shape) != 3 or shape[-1] not in (1, 3) or (
        not self.model.likelihood.takes_pixels):
      return False
    x = self.images.x
    if x.dtype == np.uint8:
      return True
    first = np.asarray(x[:_NUM_LOOKED_AT])
    return x.dtype.kind in 'bf' and bool(((first >= 0) & (first <= 1)).all())

  @property
  def grouping(self) -> str:
    """The factor's grouping; for a factor without one, the first grouping."""
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
  def given_words(self) -> str:
    """A sentence on factors that are given others; '' if there are none."""
    given = [f for f in self.model.factors if f.given]
    if not given:
      return ''
    names = in_words([f.name for f in given])
    of = in_words(list(dict.fromkeys(
        name for factor in given for name in factor.given)))
    return (f' The encoder of {names} has also seen the code of {of}. Where '
            f'{of} is exchanged, {names} is kept as it was inferred: in the '
            'model they are independent, so that a code means the same with '
            'any other.')

  @property
  def strategy_words(self) -> str:
    """A sentence on the strategy; '' if the model has no grouped factor."""
    if not self.model.grouped:
      return ''
    if self.strategy == 1:
      return 'Strategy 1: every code is inferred from its image alone.'
    shared = '; '.join(
        f'{f.name}: of its {f.grouping}' for f in self.model.grouped)
    return ('Strategy 2: a code that a group shares is inferred from the '
            f'evidence of the image and of up to {NUM_EVIDENCE} others of the '
            f'group ({shared}).')


def in_words(names: Sequence[str]) -> str:
  """Names as a phrase: 'a', 'a and b', 'a, b and c'; '' for none."""
  *first, last = names or ['']
  return f'{", ".join(first)} and {last}' if first else last


def variants(subject: Subject, names: Sequence[str | None],
             strategies: Sequence[int] = (2, 1)
             ) -> Iterator[tuple[str, Subject]]:
  """The subject with each factor and strategy, and the ending of its file name.

  Args:
    subject: subject with any factor.
    names: names of the factors; the first does not appear in the file name.
    strategies: strategies to show; strategy 2 does not appear in the file
      name. Without a grouped factor there is only one.

  Yields:
    ('', subject), ('_light', subject), ..., ('_strategy_1', subject), ...
  """
  for strategy in strategies if subject.model.grouped else (2,):
    for i, name in enumerate(names):
      yield (f'_{name}' * (i > 0) + '_strategy_1' * (strategy == 1),
             subject._replace(factor=name, strategy=strategy))


def groups_of(images: GroupedData, grouping: str) -> Groups:
  """The groups of images in a grouping."""
  # Numbers of their own for unknown groups, behind those of the known ones.
  ids, names = images.labels_of(grouping)
  return Groups(fill_unknown(ids, len(names) + np.arange(len(ids))), names)
