"""Warnings about runs and scores that mean nothing, with the reason.

Training prints them at its start. The evaluation keeps the same sentences as
"warnings", and the numbers of examples and labels behind every score, from
which the tables mark scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from experiments.cli import UserError
from experiments.config.settings import Config
from experiments.datasets.splits import Splits
from experiments.evaluation import label_sets
from experiments.evaluation.label_sets import MIN_ROWS, LabelSet
from experiments.evaluation.wording import worded
from mlvae_jax.data.grouped import GroupedData
from mlvae_jax.data.ids import fill_unknown
from mlvae_jax.model.model import Model

MIN_EXAMPLES = 30  # With fewer, one example counts for several points.
_ADD_IMAGES = 'raise --split_fractions or add images'


def find_warnings(config: Config, model: Model, data: Splits,
                  scored: str = 'test') -> list[str]:
  """The reasons why a run, or its evaluation, will mean nothing or little.

  Args:
    config: configuration of the run.
    model: model of the run.
    data: splits of the run.
    scored: split that the evaluation scores on, 'test' or 'validation'.

  Returns:
    A sentence per reason; an empty list if all is well.
  """
  return [worded(model, line) for line in (
      *_of_training(config, model, data.train),
      *_of_scores(model, data, scored))]


def check_trainable(config: Config, model: Model, train: GroupedData
                    ) -> None:
  """Raises a UserError if there is nothing to train on."""
  if not len(train):
    raise UserError(worded(model, (
        f'{config.dataset}: the training split has no images; add images, or '
        'change --split_by or --split_fractions')))
  # --min_group_size applies to the first grouping alone.
  for grouping in model.groupings[:1]:
    largest = int(_sizes(train, grouping).max())
    if largest < config.min_group_size:
      raise UserError(worded(model, (
          f'{config.dataset}: no group by {grouping!r} has the '
          f'{config.min_group_size} training images that --min_group_size='
          f'{config.min_group_size} asks for; the largest has {largest}, so '
          f'give --min_group_size={largest} or less')))


def caveat(examples: int, labels: int) -> str | None:
  """The caveat next to a score from few examples or labels.

  Args:
    examples: number of examples over which the score is an average.
    labels: number of different labels of these examples.

  Returns:
    'only 1 label, so these scores mean nothing', 'only 7 examples, so ...';
    None if there are enough.
  """
  if labels < 2:
    return f'only {count(labels, "label")}, so these scores mean nothing'
  if examples < MIN_EXAMPLES:
    return f'only {count(examples, "example")}, so these scores mean little'
  return None


def caveats(rows: Iterable[Mapping[str, Any]], column: str) -> dict[Any, str]:
  """The caveats of the columns of a table of scores.

  Args:
    rows: rows of a section of evaluation.json. Rows without "examples" are
      those of an older version, and have no caveat.
    column: key whose values are the columns, 'k', 'label' or 'shots'.

  Returns:
    Caveats by value of `column`, for the fewest examples in that column;
    columns without a caveat are missing.
  """
  least = {}
  for row in rows:
    if 'examples' in row:
      found = (row['labels'], row['examples'])
      least[row[column]] = min(found, least.get(row[column], found))
  return {name: why for name, (labels, examples) in least.items()
          if (why := caveat(examples, labels))}


def footnotes(said: Mapping[str, str]) -> list[str]:
  """A line for each different caveat: '* k=1, k=2: only 7 examples, ...'."""
  columns = {}
  for name, why in said.items():
    columns.setdefault(why, []).append(name)
  return [f'* {", ".join(names)}: {why}' for why, names in columns.items()]


def count(number: int, what: str) -> str:
  """A number with its noun: '1 label', '2 labels'."""
  return f'{number:,} {what}{"" if number == 1 else "s"}'


def _of_training(config: Config, model: Model, train: GroupedData
                 ) -> Iterator[str]:
  if config.model != 'vae' and not model.grouped:
    yield (f'no factor is grouped, so --model={config.model} learns what a '
           'VAE does; name a grouping in --factors, as in '
           f'content:10:{train.grouping},style:10')
  if config.max_group_size == 1 and model.grouped and model.has_encoder:
    yield ('with --max_group_size=1 every group has a single image in a step: '
           'content cannot be separated from style; give 2 or more')
  for grouping in model.groupings:
    sizes = _sizes(train, grouping)
    if len(sizes) == 1:
      yield (f'the training split has only one group by {grouping!r}: the '
             'model cannot learn what distinguishes groups; add groups or '
             'choose another grouping in --factors')
    elif sizes.max() < 2:
      yield (f'no group by {grouping!r} has two images in the training split '
             f'({count(len(sizes), "group")}): content cannot be separated '
             'from style; choose another grouping in --factors')


def _of_scores(model: Model, data: Splits, scored: str) -> Iterator[str]:
  images = getattr(data, scored)
  if not len(images):
    yield (f'the {scored} split has no images, so there is nothing to score; '
           f'{_ADD_IMAGES}')
  if not len(data.validation) and scored != 'validation':
    yield ('the validation split has no images, so the best checkpoint is '
           f'unknown and no probe can be chosen; {_ADD_IMAGES}')
  if not len(images) or not len(data.validation):
    return
  # The same choice of images as in the evaluation, so that the warnings are
  # about the scores that will be there.
  yield from _of_probes(data, label_sets.first(data, scored), scored)
  for grouping in model.groupings:
    if grouping != data.grouping:
      chosen = label_sets.choose(data, grouping, scored)
      yield from _of_probes(data, chosen, scored) if chosen else [
          f'the {scored} split does not have enough images of two labels of '
          f'{grouping!r}: there is nothing to score by {grouping!r}']
  if not data.shares_groups and np.diff(images.offsets).max() < 2:
    yield (f'no group has two images in the {scored} split: there is nothing '
           'to recognise')


def _of_probes(data: Splits, chosen: LabelSet, scored: str) -> Iterator[str]:
  train, choose, score = (part.labels for part in chosen.parts)
  grouping = repr(chosen.grouping)
  if not min(map(len, (train, choose, score))):
    few = MIN_ROWS if not data.shares_groups else 2
    yield (f'no group by {grouping} has at least {few} images in the {scored} '
           'split: there is nothing for a probe to learn, or to score by '
           f'{grouping}')
    return
  labels = np.unique(score)
  if caveat(len(score), len(labels)):
    images, of = count(len(score), 'image'), count(len(labels), 'label')
    what, extent = (f'{images} with only {of}', 'nothing') if len(
        labels) < 2 else (f'only {images} with {of}', 'little')
    yield (f'probes for {grouping} are scored on {what} in the {scored} split: '
           f'their scores mean {extent}')
  new = int(np.sum(~np.isin(labels, train)))
  if new:
    yield (f'{new:,} of {count(len(labels), "label")} by {grouping} in the '
           f'{scored} split have no training images: no probe can get them '
           'right')


def _sizes(images: GroupedData, grouping: str) -> np.ndarray:
  """Number of images per group; an image of unknown group is one group."""
  sizes = np.bincount(fill_unknown(images.labels_of(grouping).ids))
  return sizes[sizes > 0]
