"""Pictures of shapes: their possible content, and drawing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

_MIN_CELLS = 128  # Per side of the fine grid on which outlines are filled.
_CELLS_PER_PIXEL = 4  # Approximate minimum of cells per side of a pixel.
_LINES = 8  # Lines along which each row of cells is filled.
_BLOCK_PIXELS = 1 << 19  # Pixels drawn at a time, so as to stay in the cache.


class Scenes(NamedTuple):
  """The content of images.

  Attributes:
    values: `[N, 5]` ints, number of the value of each of `FACTORS`.
    jitter: `[N, 2]` (x, y), offset that is added to the position.
  """

  values: np.ndarray
  jitter: np.ndarray

  def take(self, rows: np.ndarray) -> Scenes:
    """The scenes of some rows, given by numbers or by a mask."""
    return Scenes(self.values[rows], self.jitter[rows])


def draw(scenes: Scenes, image_size: int) -> np.ndarray:
  """Draws scenes.

  Args:
    scenes: N scenes to draw.
    image_size: width and height in pixels, S.

  Returns:
    Images `[N, S, S, 3]` uint8. A pixel that the shape covers in part is a
    mixture of its colour and white.
  """
  shapes, colours, sizes, positions, rotations = scenes.values.T
  images = np.empty((len(shapes), image_size, image_size, 3), np.uint8)
  ink = np.array(list(COLOURS.values()))[colours] - 255.0
  centres = np.array(list(POSITIONS.values()))[positions] + scenes.jitter
  # One outline serves all scenes that differ in colour and position only.
  kinds, kind = np.unique(
      np.stack([shapes, sizes, rotations], axis=1), axis=0,
      return_inverse=True)
  for number, (shape, size, rotation) in enumerate(kinds):
    outline = list(OUTLINES.values())[shape] * np.sqrt(
        list(AREAS.values())[size])
    outline = rotated(outline, list(ANGLES.values())[rotation])
    rows = np.flatnonzero(kind == number)
    for block, share in coverage(outline, centres[rows], image_size):
      images[rows[block]] = np.round(
          255 + share[..., None] * ink[rows[block], None, None])
  return images


def rotated(outline: np.ndarray, degrees: float) -> np.ndarray:
  """Rotates an outline `[V, 2]` of (x, y) clockwise, where y points down."""
  angle = np.deg2rad(degrees)
  cos, sin = np.cos(angle), np.sin(angle)
  return outline @ np.array([[cos, sin], [-sin, cos]])


def area_and_centroid(outline: np.ndarray) -> tuple[float, np.ndarray]:
  """Exact area and centre of mass `[2]` of an outline `[V, 2]`."""
  # The shoelace formula. The sign of the area, which depends on the direction
  # of the outline, cancels in the centroid.
  after = np.roll(outline, -1, axis=0)
  cross = outline[:, 0] * after[:, 1] - after[:, 0] * outline[:, 1]
  area = cross.sum() / 2
  centroid = ((outline + after) * cross[:, None]).sum(axis=0) / (6 * area)
  return abs(area), centroid


def coverage(outline: np.ndarray, centres: np.ndarray, image_size: int
             ) -> Iterator[tuple[slice, np.ndarray]]:
  """Draws an outline at many places, anti-aliased.

  The outline is filled on a fine grid, which is summed over rows and columns.
  With such a table, the covered share of a pixel is a difference between its
  four corners, wherever they are, so drawing costs one look-up per pixel.

  Args:
    outline: outline `[V, 2]` (x, y) around (0, 0), in units of the image's
      side.
    centres: centres `[N, 2]` (x, y) of the copies; (0, 0) is the top left
      corner of the image, (1, 1) the bottom right one.
    image_size: width and height in pixels, S.

  Yields:
    Slices of the N images, and the covered share of each pixel, `[n, S, S]` in
    [0, 1].
  """
  half = np.abs(outline).max()
  cells = max(_MIN_CELLS, _CELLS_PER_PIXEL * image_size)
  integral = _integral(outline / half, cells)
  cells_per_pixel = (cells / (2 * half * image_size)) ** 2
  edges = np.arange(image_size + 1) / image_size
  step = max(1, _BLOCK_PIXELS // image_size ** 2)
  for start in range(0, len(centres), step):
    block = slice(start, start + step)
    from_centre = (edges - centres[block, :, None]) / half  # [n, 2, S + 1]
    place = (np.clip(from_centre, -1, 1) + 1) * (cells / 2)
    corners = _look_up(integral, place[:, 1], place[:, 0])
    inside = np.diff(np.diff(corners, axis=1), axis=2)
    yield block, np.clip(np.abs(inside) / cells_per_pixel, 0, 1)


def _integral(outline: np.ndarray, cells: int) -> np.ndarray:
  """The area inside an outline above and left of each corner of a grid.

  Args:
    outline: outline `[V, 2]` in [-1, 1].
    cells: number of cells into which each side is divided, M.

  Returns:
    Areas `[M + 1, M + 1]` in units of cells; negative if the outline runs
    backwards.
  """
  (x0, y0), (x1, y1) = (
      ((points + 1) * (cells / 2)).T
      for points in (outline, np.roll(outline, -1, axis=0)))
  y = (np.arange(_LINES * cells) + 0.5) / _LINES
  # Half-open, so that a line through a corner crosses one of its two edges.
  edge, line = np.nonzero((y0[:, None] <= y) != (y1[:, None] <= y))
  x = x0[edge] + (y[line] - y0[edge]) * ((x1 - x0)[edge] / (y1 - y0)[edge])
  # Right of a crossing the line is inside, and right of the next one outside
  # again. A crossing within a cell counts for the part of it to its right.
  step = np.where(y1 < y0, 1, -1)[edge] / _LINES
  column = x.astype(int)
  steps = np.zeros((cells, cells + 2))
  for place, part in ((column, 1 - x + column), (column + 1, x - column)):
    np.add.at(steps, (line // _LINES, place), step * part)
  inside = np.cumsum(steps[:, :cells], axis=1)
  return np.pad(inside.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))


def _look_up(table: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
  """Bilinear interpolation in a table, `[n, Y, X]` from `[n, Y]` and `[n, X]`.
  """
  last = len(table) - 2
  top, left = (np.minimum(v.astype(int), last) for v in (y, x))
  down, right = (y - top)[:, :, None], (x - left)[:, None]
  corner = top[:, :, None] * len(table) + left[:, None]
  table = table.ravel()  # Looking up in a flat table is faster.
  upper, lower = (
      table[row] + right * (table[row + 1] - table[row])
      for row in (corner, corner + last + 2))
  return upper + down * (lower - upper)


def _normalised(points: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
  """An outline of area 1 with its centre of mass at (0, 0)."""
  outline = np.array(points, float)
  area, centroid = area_and_centroid(outline)
  return (outline - centroid) / np.sqrt(area)


def _arc(start: float, stop: float, radius: float = 1.0, x: float = 0.0
         ) -> np.ndarray:
  """Points on a circle around (x, 0); degrees clockwise from the right."""
  angle = np.deg2rad(np.linspace(start, stop, 60))
  return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1) + [x, 0]


def _regular(corners: int, inner: float | None = None) -> np.ndarray:
  """A regular polygon with a corner at the top; with `inner`, a star."""
  num = corners if inner is None else 2 * corners
  angle = np.arange(num) * (2 * np.pi / num)
  radius = np.where(np.arange(num) % 2, inner or 1, 1)
  return np.stack([radius * np.sin(angle), -radius * np.cos(angle)], axis=1)


def _heart() -> np.ndarray:
  t = np.linspace(0, 2 * np.pi, 120, endpoint=False)
  return np.stack([
      16 * np.sin(t) ** 3,
      -13 * np.cos(t) + 5 * np.cos(2 * t) + 2 * np.cos(3 * t) + np.cos(4 * t),
  ], axis=1)


def _moon() -> np.ndarray:
  tip = np.rad2deg(np.arctan2(0.8, 0.6))  # Where the two circles meet.
  return np.concatenate(
      [_arc(tip, 360 - tip), _arc(270, 90, radius=0.8, x=0.6)])


# Outlines by name: `[V, 2]` (x, y), y down, with area 1 and centre of mass
# (0, 0). No two are alike at any angle, and each changes when it is rotated by
# less than 72 degrees (the symmetry of the star). A circle and a ring would
# not, so they have a notch and a gap at the top.
OUTLINES = {name: _normalised(points) for name, points in {
    'circle': [*_arc(-65, 245), (0, 0)],
    'square': [(-1, -1), (1, -1), (1, 1), (-1, 1)],
    'triangle': _regular(3),
    'star': _regular(5, inner=0.45),
    'cross': [(-1, -3), (1, -3), (1, -1), (3, -1), (3, 1), (1, 1),
              (1, 3), (-1, 3), (-1, 1), (-3, 1), (-3, -1), (-1, -1)],
    'ring': [*_arc(-60, 240), *_arc(240, -60, radius=0.5)],
    'heart': _heart(),
    'moon': _moon(),
    'arrow': [(0, -4), (3, 0), (1.1, 0), (1.1, 4), (-1.1, 4), (-1.1, 0),
              (-3, 0)],
    'bar': [(-1, -2.5), (1, -2.5), (1, 2.5), (-1, 2.5)],
}.items()}
COLOURS = {
    'red': (222, 25, 35), 'orange': (255, 130, 0), 'yellow': (250, 225, 50),
    'green': (30, 150, 60), 'cyan': (70, 205, 230), 'blue': (35, 75, 215),
    'purple': (130, 35, 165), 'pink': (250, 130, 195), 'brown': (125, 75, 35),
    'black': (20, 20, 20)}
# Fractions of the image's area; centres (x, y) in units of its side; degrees
# clockwise.
AREAS = {'small': 0.04, 'medium': 0.06, 'large': 0.09}
POSITIONS = {
    'top-left': (0.32, 0.32), 'top': (0.5, 0.32), 'top-right': (0.68, 0.32),
    'left': (0.32, 0.5), 'centre': (0.5, 0.5), 'right': (0.68, 0.5),
    'bottom-left': (0.32, 0.68), 'bottom': (0.5, 0.68),
    'bottom-right': (0.68, 0.68)}
ANGLES = {'0deg': 0, '18deg': 18, '36deg': 36, '54deg': 54}
JITTER = 0.03

# Values of each factor by name. No name is in two factors, so that --hold_out
# needs only the values.
FACTORS = {
    'shape': tuple(OUTLINES), 'colour': tuple(COLOURS), 'size': tuple(AREAS),
    'position': tuple(POSITIONS), 'rotation': tuple(ANGLES)}
