"""Drawn shapes with known factors, as in figure 1 of the paper.

An RGB image shows one shape on white. Its shape, colour, size, position and
rotation are chosen independently and uniformly, and each is a grouping.
Position is one of nine, plus a random offset of up to `JITTER`; nothing else
varies continuously. A size is an area, and the same for all shapes. A rotation
is an angle, and the same for all shapes: angles are 18 degrees apart and below
72 degrees, after which a star looks the same. A circle and a ring would look
the same at every angle, so they have a notch and a gap.

The combinations that `hold_out` names (by default ten of shape and colour,
with the purple triangle among them) are never trained on, and make up the test
split. Therefore the shape of a training image reveals a little about its
colour: one colour that it does not have.
"""

from __future__ import annotations

import numpy as np

from experiments.config.settings import Config
from experiments.datasets.drawing import (
    FACTORS,
    JITTER,
    Scenes,
    draw,
)
from experiments.datasets.splits import (
    SPLIT_SEED,
    Splits,
    digest_arrays,
)
from mlvae_jax.data.grouped import GroupedData, Labels
from mlvae_jax.model.factors import parse_factors

_COLUMNS = {name: column for column, name in enumerate(FACTORS)}
_MAX_BYTES = 4 << 30  # All images are in memory.
# Settings that only this data set reads.
SETTINGS = ('hold_out', 'num_images')


def load(config: Config) -> Splits:
  """Draws the data set, which is the same for every seed of a run.

  Images of combinations that are held out are the test split, and a tenth of
  the others the validation split. If nothing is held out, validation and test
  are a tenth each. The splits depend neither on the factors nor on the image
  size.

  `shares_groups` is True if every test group is trained on: probes are then
  fitted on training images and scored on the test split (if that has a single
  group, accuracies are over that group and chance is 1). If a value of the
  grouping itself is held out, it is False: the test groups are treated as new
  ones, with probes among them alone, verification and few-shot recognition.

  Args:
    config: configuration, of which num_images, image_size, hold_out and
      factors are read. The images are sorted by the grouping of the first
      grouped factor, or by shape if there is none.

  Returns:
    The splits, with all five groupings.

  Raises:
    ValueError: when `check` raises one.
  """
  grouping = _first_grouping(config)
  parts = _sample_parts(config)
  column = _COLUMNS[grouping]
  shares_groups = bool(np.isin(
      parts[2].values[:, column], parts[0].values[:, column]).all())
  splits = [
      _grouped(part, grouping, config.image_size, keep_all=shares_groups)
      for part in parts]
  # Digests of the scenes, because drawing may round differently on another
  # machine.
  return Splits(*splits, shares_groups=shares_groups, content={
      'num_images': config.num_images, 'num_groups': len(FACTORS[grouping]),
      'names': digest_arrays(*(part.values for part in parts)),
      'pixels': digest_arrays(*(part.jitter for part in parts))})


def check(config: Config) -> None:
  """Checks num_images, image_size, hold_out and factors.

  Args:
    config: configuration of a run.

  Raises:
    ValueError: when they make no sense, or leave a split without images.
  """
  _first_grouping(config)
  _sample_parts(config)


def sample(num: int) -> Scenes:
  """The first `num` scenes of a sequence that is always the same."""
  # A row of random numbers per scene: a larger `num` only adds scenes.
  random = np.random.default_rng(SPLIT_SEED).random((num, len(FACTORS) + 2))
  count = [len(names) for names in FACTORS.values()]
  values = (random[:, :len(count)] * count).astype(np.int32)
  return Scenes(values, JITTER * (2 * random[:, len(count):] - 1))


def parse_hold_out(text: str) -> list[dict[str, int]]:
  """Parses VALUE+VALUE,...: combinations of values of different factors.

  Args:
    text: combinations such as `triangle+purple,star`; spaces do not matter.

  Returns:
    The combinations, each with the number of the value by factor.

  Raises:
    ValueError: on an unknown value, or a combination of two values of the same
      factor.
  """
  combinations = []
  for item in filter(None, map(str.strip, text.split(','))):
    combination: dict[str, int] = {}
    for value in map(str.strip, item.split('+')):
      factor = next((f for f, names in FACTORS.items() if value in names), None)
      if factor is None:
        raise ValueError(
            f'expected --hold_out as VALUE+VALUE,..., got {item!r}; the values '
            'are ' + '; '.join(f'{name}: {", ".join(names)}'
                               for name, names in FACTORS.items()))
      number = FACTORS[factor].index(value)
      if combination.setdefault(factor, number) != number:
        raise ValueError(
            f'no image has two values of {factor}, as {item!r} in --hold_out; '
            'separate combinations by commas')
    combinations.append(combination)
  return combinations


def held_out(scenes: Scenes, combinations: list[dict[str, int]]) -> np.ndarray:
  """Which scenes show one of the combinations, `[N]` bool."""
  held = np.zeros(len(scenes.values), bool)
  for combination in combinations:
    columns = [_COLUMNS[name] for name in combination]
    held |= (scenes.values[:, columns] == list(combination.values())).all(1)
  return held


def _sample_parts(config: Config) -> list[Scenes]:
  """The scenes of training, validation and test."""
  combinations = parse_hold_out(config.hold_out)
  num_bytes = 3 * config.num_images * config.image_size ** 2
  if num_bytes > _MAX_BYTES:
    raise ValueError(
        f'{num_bytes / 1e9:.0f} GB of images are too many; lower --num_images '
        'or --image_size')
  scenes = sample(config.num_images)
  return [scenes.take(rows) for rows in _split(scenes, combinations, config)]


def _split(scenes: Scenes, combinations: list[dict[str, int]], config: Config
           ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Rows of training, validation and test, three masks `[N]`."""
  held = held_out(scenes, combinations)
  if held.all():
    raise ValueError(
        f'--hold_out={config.hold_out} leaves nothing to train on; hold out '
        'less')
  turn = np.arange(len(held)) % 10  # Scenes are in random order.
  test = held if combinations else turn == 8
  validation = ~test & (turn == 9)
  parts = ~test & ~validation, validation, test
  for name, rows in zip(('training', 'validation', 'test'), parts):
    if not rows.any():
      raise ValueError(
          f'none of the {len(held)} images is for {name}; raise --num_images')
  return parts


def _grouped(scenes: Scenes, grouping: str, image_size: int, keep_all: bool
             ) -> GroupedData:
  """The images of a split, sorted; `keep_all` keeps groups without images."""
  # Groups that the splits share must have the same numbers in each.
  labels = {
      name: Labels(scenes.values[:, column], FACTORS[name])
      for name, column in _COLUMNS.items()}
  ids, names = labels.pop(grouping)
  if not keep_all:
    present, ids = np.unique(ids, return_inverse=True)
    names = tuple(names[value] for value in present)
  return GroupedData.from_labels(
      draw(scenes, image_size), ids, names, grouping, labels)


def _first_grouping(config: Config) -> str:
  """The grouping of the first grouped factor."""
  groupings = [
      f.grouping for f in parse_factors(config.factors) if f.grouping]
  for grouping in groupings:
    if grouping not in FACTORS:
      raise ValueError(
          f'shapes has no grouping {grouping!r}, see --factors; choose one of '
          + ', '.join(FACTORS))
  return groupings[0] if groupings else 'shape'
