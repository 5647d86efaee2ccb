"""Letters in many fonts, drawn from the fonts that come with matplotlib.

The 52 letters a-z and A-Z, each in every font, are two groupings, `letter` and
`font`. Every letter in a font is drawn `NUM_VARIATIONS` times, a little
shifted, turned and scaled: this is what is left for style. Slant and weight do
not vary, because they distinguish fonts.

`hold_out` says what the test split has that training never saw: combinations
of a letter and a font, each of which occurs in training, whole fonts, or whole
letters. What is held out follows from a hash of its name. In the last two
cases images are sorted by what is held out, so that the evaluation takes its
groups for new ones (verification and few-shot recognition), and predicts the
other grouping with classifiers that were trained on training images.
"""

from __future__ import annotations

import os

import numpy as np

from experiments.cli import UserError
from experiments.config.settings import Config
from experiments.datasets import typefaces
from experiments.datasets.splits import (
    SPLIT_SEED,
    Splits,
    digest_arrays,
    group_position,
)
from experiments.datasets.typefaces import LETTERS, Font
from mlvae_jax.data.grouped import GroupedData, Labels
from mlvae_jax.model.factors import parse_factors

NUM_VARIATIONS = 12
# Share of what is held out, by the value of `hold_out`.
SHARES = {'combinations': 0.1, 'fonts': 0.25, 'letters': 0.2}
SETTINGS = ('hold_out',)  # Settings that this data set reads.
_GROUPINGS = ('letter', 'font')


def load(config: Config) -> Splits:
  """Draws the data set, which is the same for every seed of a run.

  What is held out is the test split. Of every other combination one image is
  the validation split.

  Args:
    config: configuration, of which data_dir (a folder of further fonts, or
      None), image_size, hold_out and factors are read.

  Returns:
    The splits, with both groupings, sorted by the grouping that is held out,
    or else by that of the first factor.

  Raises:
    UserError: when there are too few fonts.
  """
  fonts = find_fonts(config.data_dir)
  variations = [_variations(font) for font in fonts]
  images = np.stack([typefaces.draw(font, config.image_size, several)
                     for font, several in zip(fonts, variations)])
  parts = _split(fonts, config.hold_out)
  # An axis of fonts, of letters, of variations.
  ids = {'font': np.indices(parts.shape)[0], 'letter': np.indices(
      parts.shape)[1]}
  names = {'font': tuple(font.name for font in fonts),
           'letter': tuple(LETTERS)}
  new = config.hold_out.removesuffix('s')
  grouping = new if new in _GROUPINGS else _first_grouping(config)
  splits = [
      _grouped(images[parts == part], grouping, {
          name: Labels(ids[name][parts == part], names[name])
          for name in _GROUPINGS}, keep_all=new not in _GROUPINGS)
      for part in range(3)]
  # Digests of files and numbers, because FreeType may draw differently on
  # another machine.
  return Splits(*splits, shares_groups=new not in _GROUPINGS, content={
      'num_images': parts.size, 'num_groups': len(names[grouping]),
      'names': digest_arrays(np.array([font.name for font in fonts])),
      'pixels': digest_arrays(
          np.array([font.digest for font in fonts]), *variations)})


def check(config: Config) -> None:
  """Checks hold_out and factors.

  Args:
    config: configuration of a run.

  Raises:
    ValueError: when one of them makes no sense.
  """
  if config.hold_out not in ('', *SHARES):
    raise ValueError(
        f'--dataset=fonts holds out {", ".join(SHARES)}, not --hold_out='
        f'{config.hold_out}')
  _first_grouping(config)


def find_fonts(folder: str | None = None) -> list[Font]:
  """Matplotlib's fonts with all letters, and those in another folder.

  Args:
    folder: folder of further fonts, such as /usr/share/fonts, or None.

  Returns:
    The fonts, sorted by name.

  Raises:
    UserError: when there are fewer than two.
  """
  import matplotlib  # Slow to import.

  own = os.path.join(matplotlib.get_data_path(), 'fonts', 'ttf')
  fonts = typefaces.find([own, folder] if folder else [own])
  if len(fonts) < 2:
    raise UserError(
        f'fewer than two fonts in {own} have all letters; install matplotlib '
        'again, or give a folder of fonts as --data_dir')
  return fonts


def _variations(font: Font) -> np.ndarray:
  """Random numbers for the pictures of a font, `[letters, variations, 4]`."""
  # A seed for each font: another font changes nothing for this one.
  seed = int.from_bytes(font.name.encode())
  return np.random.default_rng([SPLIT_SEED, seed]).random(
      (len(LETTERS), NUM_VARIATIONS, 4))


def _split(fonts: list[Font], hold_out: str) -> np.ndarray:
  """Part of each image, `[fonts, letters, variations]`, as in `Splits`."""
  held = np.zeros((len(fonts), len(LETTERS)), bool)
  for i, font in enumerate(fonts):
    for j, letter in enumerate(LETTERS):
      name = {'combinations': f'{letter} in {font.name}', 'fonts': font.name,
              'letters': letter}.get(hold_out)
      held[i, j] = name is not None and (
          group_position(name) >= 1 - SHARES[hold_out])
  parts = np.zeros((*held.shape, NUM_VARIATIONS), int)
  parts[..., 0] = 1
  if hold_out:
    parts[held] = 2
  else:
    parts[..., 1] = 2
  return parts


def _grouped(images: np.ndarray, grouping: str, labels: dict[str, Labels],
             keep_all: bool) -> GroupedData:
  """The images of a split, sorted; `keep_all` keeps groups without images."""
  # Groups that the splits share must have the same numbers in each.
  ids, names = labels.pop(grouping)
  if not keep_all:
    present, ids = np.unique(ids, return_inverse=True)
    names = tuple(names[value] for value in present)
  return GroupedData.from_labels(
      images[..., None], ids, names, grouping, labels)


def _first_grouping(config: Config) -> str:
  """The grouping of the first grouped factor."""
  groupings = [
      f.grouping for f in parse_factors(config.factors) if f.grouping]
  for grouping in groupings:
    if grouping not in _GROUPINGS:
      raise ValueError(
          f'fonts has no grouping {grouping!r}, see --factors; choose one of '
          + ', '.join(_GROUPINGS))
  return groupings[0] if groupings else _GROUPINGS[0]
