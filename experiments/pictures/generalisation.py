"""The paper's purple triangle (fig. 1): combinations that training never saw.

If a data set has two groupings, and the test split has combinations of their
groups that training lacks, although it has each of the two groups, then
pictures of such combinations are composed from codes of training images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import itertools

import jax
import numpy as np

from experiments.pictures.sheets import (
    BLUE,
    GREEN,
    RED,
    Drawing,
    Sheet,
    shorten,
)
from experiments.pictures.shown import encode, group_codes
from experiments.pictures.subject import (
    NUM_EVIDENCE,
    NUM_SETS,
    Groups,
    Subject,
    groups_of,
    in_words,
)
from experiments.pictures.swaps import can_swap
import mlvae_jax
from mlvae_jax.data.grouped import GroupedData
from mlvae_jax.inference.encode import Codes

_NUM_SHOWN = 3  # Training images of each part.
# Compiled as a whole: op by op, drawing a run would compile for seconds.
_decode = jax.jit(mlvae_jax.decode, static_argnums=0)


def generalisations(subject: Subject) -> Iterator[tuple[str, Drawing]]:
  """The figure, if the model and the splits allow it.

  It shows the first two groupings that have new combinations. Groupings of the
  model's factors come before others, and at least one of the two is a
  factor's.
  """
  if not can_swap(subject.model):
    return
  train, test = subject.data.train, subject.data.test
  shared = subject.model.groupings
  names = dict.fromkeys((*shared, *test.groupings))
  for pair in itertools.combinations(names, 2):
    if pair[0] in shared and set(pair) <= set(train.groupings):
      rows = choose_unseen(train, test, pair)
      if len(rows):
        yield 'generalisation', _draw(subject, pair, rows)
        return


def find_unseen(train: GroupedData, test: GroupedData,
                pair: tuple[str, str]) -> np.ndarray:
  """Test images of combinations of groups that training never saw.

  Args:
    train: training images.
    test: test images; a group has the same name as in training.
    pair: two groupings that both have.

  Returns:
    Rows of the test images whose two groups both occur in training, but not
    together. Images of unknown groups count on neither side.
  """
  seen = [train.labels_of(grouping).ids.astype(int) for grouping in pair]
  new = [_training_ids(train, test, grouping) for grouping in pair]
  unseen = np.all([(ids >= 0) & np.isin(ids, old)
                   for ids, old in zip(new, seen)], axis=0)
  known = (seen[0] >= 0) & (seen[1] >= 0)
  # A pair of ids as one number, so that pairs can be looked up at once.
  width = 1 + max(seen[1].max(initial=0), new[1].max(initial=0))
  together = np.isin(
      new[0] * width + new[1], (seen[0] * width + seen[1])[known])
  return np.flatnonzero(unseen & ~together)


def choose_unseen(train: GroupedData, test: GroupedData,
                  pair: tuple[str, str]) -> np.ndarray:
  """Up to `NUM_SETS` rows of `find_unseen`, of as many combinations as fit."""
  rows = find_unseen(train, test, pair)
  labels = np.stack([test.labels_of(g).ids[rows] for g in pair], axis=1)
  _, ids = np.unique(labels, axis=0, return_inverse=True)
  combinations = Groups(ids.reshape(-1), ())
  chosen = combinations.choose(NUM_SETS)
  # The empty start keeps the type of the rows where nothing was found.
  return np.concatenate([rows[:0], *(
      rows[combinations.rows(c)[:NUM_SETS // len(chosen)]] for c in chosen)])


def _training_ids(train: GroupedData, test: GroupedData, grouping: str
                  ) -> np.ndarray:
  """Groups of the test images, numbered as in training, `[N]`; -1 for none."""
  # By name: each split numbers its own groups.
  numbers = {
      name: i for i, name in enumerate(train.labels_of(grouping).names)}
  ids, names = test.labels_of(grouping)
  # An unknown group has the number -1, which selects the last entry.
  return np.array([*(numbers.get(name, -1) for name in names), -1], int)[ids]


def compose(subject: Subject, rows: np.ndarray, parts: Sequence[str]
            ) -> tuple[Codes, dict[str, list[np.ndarray]]]:
  """Codes of test images, some of them taken from training images.

  Args:
    subject: model and splits.
    rows: rows `[N]` of the test images, at most `NUM_SETS`.
    parts: groupings whose factors take their codes from training images of the
      same group as the test image.

  Returns:
    Posterior means `[N, D]` per factor; and per grouping, for each test image,
    the rows of these training images, at most `NUM_EVIDENCE`.
  """
  train, test = subject.data.train, subject.images
  codes, evidence = dict(encode(subject, [rows])), {}
  for grouping in parts:
    groups = groups_of(train, grouping)
    evidence[grouping] = [
        groups.rows(group)[:NUM_EVIDENCE]
        for group in _training_ids(train, test, grouping)[rows]]
    codes |= group_codes(subject, evidence[grouping], grouping, images=train)
  return codes, evidence


def _draw(subject: Subject, pair: tuple[str, str], rows: np.ndarray
          ) -> Drawing:
  """A row per test image: the image, its reconstruction, and the composed one.
  """
  model, train, test = subject.model, subject.data.train, subject.images
  parts = [grouping for grouping in pair if grouping in model.groupings]
  composed, evidence = compose(subject, rows, parts)
  columns = jax.device_get([
      _decode(model, subject.params, codes)
      for codes in (encode(subject, [rows]), composed)])
  sheet = Sheet(model.observation_shape, len(rows), 3 + 3.5 * len(parts))
  names = [groups_of(test, grouping) for grouping in pair]
  for i, (row, *made) in enumerate(zip(rows, *columns)):
    sheet.text(i + 0.5, -0.1, '\n'.join(
        shorten(groups.name(groups.ids[row])) for groups in names), ha='right')
    for j, (tile, colour) in enumerate(
        zip((test.x[row], *made), (GREEN, BLUE, RED))):
      sheet.put(i, j, tile, colour)
    for part, grouping in enumerate(parts):
      # The nearest show what the model could have copied from.
      near = _nearest(test.x[row], train.x[evidence[grouping][i]])
      for j, tile in enumerate(near[:_NUM_SHOWN]):
        sheet.put(i, 3.5 * (part + 1) + j, tile, GREEN)
  for part, grouping in enumerate(parts):
    sheet.text(-0.1, 3.5 * (part + 1), f'{grouping} from training',
               va='bottom')
  title, caption = _describe(subject, pair, parts)
  sheet.head(title, ('image', 'reconstruction', 'composed'), space=0.5)
  return Drawing(sheet.figure(), caption)


def _nearest(image: np.ndarray, others: np.ndarray) -> np.ndarray:
  """Images `[N, H, W, C]`, sorted by the distance of their pixels."""
  distance = np.square(others - image.astype(np.float32)).sum((1, 2, 3))
  return others[np.argsort(distance, kind='stable')]


def _describe(subject: Subject, pair: tuple[str, str], parts: list[str]
              ) -> tuple[str, str]:
  """Title and caption of the figure."""
  model = subject.model
  sources = []
  for grouping in parts:
    names = in_words(
        [f.name for f in model.grouped if f.grouping == grouping])
    other = pair[1 - pair.index(grouping)]
    sources.append(
        f'{names} is the mean of the posterior that accumulates up to '
        f'{NUM_EVIDENCE} training images of that {grouping}, all of another '
        f'{other}')
  rest = in_words(
      [f.name for f in model.factors if f.grouping not in parts])
  if rest:
    sources.append(f'{rest} is that of the test image')
  return (
      f'Generalisation: {pair[0]} and {pair[1]} never seen together in '
      'training', (
          'Generalisation. Each row shows a combination that no training image '
          f'has, although its {pair[0]} and its {pair[1]} both occur in '
          'training: a test image (green), its reconstruction (blue; strategy '
          '1, posterior means), and a picture composed of parts (red): '
          f'{"; ".join(sources)}. Right (green): the {_NUM_SHOWN} of these '
          'training images whose pixels are nearest to those of the test '
          'image. If the model has learnt the parts, the composed picture '
          'shows the combination that it was never trained on.'
          f'{subject.given_words}'))
