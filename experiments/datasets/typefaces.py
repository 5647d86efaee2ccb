"""Fonts that can draw all letters, and their letters as pictures."""

from __future__ import annotations

import hashlib
import os
import string
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from experiments.cli import UserError

LETTERS = string.ascii_letters
# Of matplotlib's fonts these are left out: two have symbols in the places of
# letters, the third has almost the letters of cmti10. Others lack letters, or
# draw the same box for each.
LEFT_OUT = ('cmex10', 'cmsy10', 'cmmi10')
_ENDINGS = ('.ttf', '.otf')
_TRIAL_SIZE = 100
_OVERSAMPLING = 4
_FILLED = 0.82  # Share of the side that the tallest and widest letters fill.
MAX_SHIFT, MAX_TURN = 0.03, 6.0  # In sides of the image; in degrees.
SCALES = (0.82, 1.0)


class Font(NamedTuple):
  """A font file.

  Attributes:
    name: name of the file without its ending.
    path: path of the file.
    digest: SHA-256 of its content.
  """

  name: str
  path: str
  digest: str


def find(folders: list[str]) -> list[Font]:
  """The fonts in folders and their subfolders that have all letters.

  Args:
    folders: paths; of fonts with the same file name or content the first
      counts.

  Returns:
    The fonts, sorted by name.

  Raises:
    UserError: when a folder does not exist.
  """
  found, digests = {}, set()
  for folder in folders:
    if not os.path.isdir(folder):
      raise UserError(f'{folder} is not a folder; with --dataset=fonts, '
                      '--data_dir is a folder of additional fonts')
    for root, _, files in sorted(os.walk(folder)):
      for file in sorted(files):
        name, ending = os.path.splitext(file)
        if ending.lower() not in _ENDINGS or name in (*LEFT_OUT, *found):
          continue
        path = os.path.join(root, file)
        with open(path, 'rb') as opened:
          digest = hashlib.sha256(opened.read()).hexdigest()
        if digest not in digests and _has_letters(path):
          found[name] = Font(name, path, digest)
          digests.add(digest)
  return [found[name] for name in sorted(found)]


def _has_letters(path: str) -> bool:
  """Whether a font has every letter, and draws each in its own way."""
  from matplotlib.ft2font import FT2Font  # Pillow does not list characters.

  try:
    characters = FT2Font(path).get_charmap()
    font = _open(path, _TRIAL_SIZE)
  except (OSError, RuntimeError):
    return False  # A bitmap font, or a damaged one.
  drawn = {bytes(font.getmask(letter)) for letter in LETTERS}
  return len(drawn) == len(LETTERS) and all(
      ord(letter) in characters for letter in LETTERS)


def draw(font: Font, image_size: int, variations: np.ndarray) -> np.ndarray:
  """Draws all letters of a font, black on white.

  All letters have the same scale and baseline: c is smaller than C. They are
  centred from left to right.

  Args:
    font: the font.
    image_size: width and height in pixels, S.
    variations: `[L, V, 4]` numbers in [0, 1): shift to the right and
      downwards, turn, and scale of each picture.

  Returns:
    `[L, V, S, S]` uint8.
  """
  side = _OVERSAMPLING * image_size
  letters = [Image.fromarray(255 - picture)
             for picture in _letters(font.path, side)]
  pictures = [
      [_varied(picture, *variation).resize(
          (image_size, image_size), Image.Resampling.BOX)
       for variation in several]
      for picture, several in zip(letters, variations)]
  return 255 - np.array(pictures, np.uint8)


def _letters(path: str, side: int) -> np.ndarray:
  """All letters in the middle of large pictures, `[L, side, side]`."""
  boxes = np.array([_open(path, _TRIAL_SIZE).getbbox(letter, anchor='ls')
                    for letter in LETTERS])
  extent = max(boxes[:, 3].max() - boxes[:, 1].min(),
               (boxes[:, 2] - boxes[:, 0]).max())
  font = _open(path, int(_TRIAL_SIZE * _FILLED * side / extent))
  boxes = np.array([font.getbbox(letter, anchor='ls') for letter in LETTERS])
  baseline = (side - boxes[:, 3].max() - boxes[:, 1].min()) / 2
  pictures = []
  for letter, (left, _, right, _) in zip(LETTERS, boxes):
    picture = Image.new('L', (side, side), 255)
    ImageDraw.Draw(picture).text(
        ((side - left - right) / 2, baseline), letter, fill=0, font=font,
        anchor='ls')
    pictures.append(np.asarray(picture))
  return np.stack(pictures)


def _varied(picture: Image.Image, right: float, down: float, turn: float,
            scale: float) -> Image.Image:
  """A picture shifted, turned and scaled by numbers in [0, 1)."""
  side = picture.width
  shift = MAX_SHIFT * side * (2 * np.array([right, down]) - 1)
  angle = np.deg2rad(MAX_TURN * (2 * turn - 1))
  scale = SCALES[0] + (SCALES[1] - SCALES[0]) * scale
  # Pillow asks where in the old picture a point of the new one is.
  matrix = np.array([[np.cos(angle), np.sin(angle)],
                     [-np.sin(angle), np.cos(angle)]]) / scale
  middle = np.full(2, side / 2)
  offset = middle - matrix @ (middle + shift)
  return picture.transform(
      picture.size, Image.Transform.AFFINE,
      (*matrix[0], offset[0], *matrix[1], offset[1]),
      Image.Resampling.BILINEAR)


def _open(path: str, size: int) -> ImageFont.FreeTypeFont:
  # The basic layout, because the other depends on what is installed.
  return ImageFont.truetype(
      path, size, layout_engine=ImageFont.Layout.BASIC)
