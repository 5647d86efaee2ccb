"""The paper's purple triangle (fig. 1): combinations that training never saw.

Where a data set has two groupings and the test split combinations of them
that training lacks, though it has each part, pictures of such combinations
are composed from the codes of training images.
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
from mlvae_jax.data.grouped import GroupedImages
from mlvae_jax.inference.encode import Codes

_NUM_SHOWN = 3  # Training images of each part.
_decode = jax.jit(mlvae_jax.decode, static_argnums=0)


def generalisations(subject: Subject) -> Iterator[tuple[str, Drawing]]:
  """The figure, where the model and the splits allow one.

  The two groupings are the first with new combinations, those of the model's
  factors before others; one of the two must be of a factor.
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


def find_unseen(train: GroupedImages, test: GroupedImages,
                pair: tuple[str, str]) -> np.ndarray:
  """Test images of combinations of groups that training never saw.

  Args:
    train: the training images.
    test: the test images; the same groups have the same names.
    pair: two groupings of both.

  Returns:
    Rows of the test images whose two groups both occur in training, but not
    together. Images of unknown groups do not count on either side.
  """
  seen = [train.labels_of(grouping).ids.astype(int) for grouping in pair]
  new = [_training_ids(train, test, grouping) for grouping in pair]
  unseen = np.all([(ids >= 0) & np.isin(ids, old)
                   for ids, old in zip(new, seen)], axis=0)
  known = (seen[0] >= 0) & (seen[1] >= 0)
  width = 1 + max(seen[1].max(initial=0), new[1].max(initial=0))
  together = np.isin(
      new[0] * width + new[1], (seen[0] * width + seen[1])[known])
  return np.flatnonzero(unseen & ~together)


def choose_unseen(train: GroupedImages, test: GroupedImages,
                  pair: tuple[str, str]) -> np.ndarray:
  """Up to `NUM_SETS` rows that `find_unseen` finds, of many combinations."""
  rows = find_unseen(train, test, pair)
  labels = np.stack([test.labels_of(g).ids[rows] for g in pair], axis=1)
  _, ids = np.unique(labels, axis=0, return_inverse=True)
  combinations = Groups(ids.reshape(-1), ())
  chosen = combinations.choose(NUM_SETS)
  return np.concatenate([rows[:0], *(
      rows[combinations.rows(c)[:NUM_SETS // len(chosen)]] for c in chosen)])


def _training_ids(train: GroupedImages, test: GroupedImages, grouping: str
                  ) -> np.ndarray:
  """The test images' groups by training's numbers, `[N]`; -1 for none."""
  numbers = {
      name: i for i, name in enumerate(train.labels_of(grouping).names)}
  ids, names = test.labels_of(grouping)
  # An unknown group's number -1 finds the last entry.
  return np.array([*(numbers.get(name, -1) for name in names), -1], int)[ids]


def compose(subject: Subject, rows: np.ndarray, parts: Sequence[str]
            ) -> tuple[Codes, dict[str, list[np.ndarray]]]:
  """Codes of test images, some of them taken from training images.

  Args:
    subject: says which model and splits.
    rows: `[N]` of the test images, at most `NUM_SETS`.
    parts: groupings whose factors' codes come from training images of the
      test image's group.

  Returns:
    `[N, D]` per factor, posterior means, and by grouping for each image the
    rows of the training images, at most `NUM_EVIDENCE`.
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
  """A row per test image: it, its reconstruction, and what is composed."""
  model, train, test = subject.model, subject.data.train, subject.images
  parts = [grouping for grouping in pair if grouping in model.groupings]
  composed, evidence = compose(subject, rows, parts)
  columns = jax.device_get([
      _decode(model, subject.params, codes)
      for codes in (encode(subject, [rows]), composed)])
  sheet = Sheet(model.image_shape, len(rows), 3 + 3.5 * len(parts))
  names = [groups_of(test, grouping) for grouping in pair]
  for i, (row, *made) in enumerate(zip(rows, *columns)):
    sheet.text(i + 0.5, -0.1, '\n'.join(
        shorten(groups.name(groups.ids[row])) for groups in names), ha='right')
    for j, (tile, colour) in enumerate(
        zip((test.images[row], *made), (GREEN, BLUE, RED))):
      sheet.put(i, j, tile, colour)
    for part, grouping in enumerate(parts):
      near = _nearest(test.images[row], train.images[evidence[grouping][i]])
      for j, tile in enumerate(near[:_NUM_SHOWN]):
        sheet.put(i, 3.5 * (part + 1) + j, tile, GREEN)
  for part, grouping in enumerate(parts):
    sheet.text(-0.1, 3.5 * (part + 1), f'{grouping} from training',
               va='bottom')
  title, caption = _describe(subject, pair, parts)
  sheet.head(title, ('image', 'reconstruction', 'composed'), space=0.5)
  return Drawing(sheet.figure(), caption)


def _nearest(image: np.ndarray, others: np.ndarray) -> np.ndarray:
  """Images `[N, H, W, C]`, those with the most similar pixels first."""
  distance = np.square(others - image.astype(np.float32)).sum((1, 2, 3))
  return others[np.argsort(distance, kind='stable')]


def _describe(subject: Subject, pair: tuple[str, str], parts: list[str]
              ) -> tuple[str, str]:
  """Its title and its caption."""
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
          'Generalisation. In each row a combination that no training image '
          f'has, though each {pair[0]} and each {pair[1]} occurs in training: '
          'a test image (green), its reconstruction (blue; strategy 1, '
          f'posterior means), and a picture composed of parts (red): '
          f'{"; ".join(sources)}. Right (green): the {_NUM_SHOWN} of these '
          'training images whose pixels are nearest to the test image. Where '
          'the model has learnt the parts, the composed picture shows the '
          'combination that it was never shown.'))
