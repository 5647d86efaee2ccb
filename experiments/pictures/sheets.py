"""Sheets of images in coloured frames, and the style of all figures."""

from __future__ import annotations

from collections.abc import Sequence
import functools
import io
from typing import NamedTuple

from matplotlib import font_manager
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
import numpy as np
from PIL import Image

from mlvae_jax.files import write_atomically

_TILE = 84  # Approximate pixels of an image's longer side on a sheet.
_TILE_INCHES = 0.42
# Okabe and Ito's colours, which colour-blind people can distinguish. The first
# three frame images as in the paper: data, reconstructed, made up.
GREEN, BLUE, RED = '#009E73', '#0072B2', '#D55E00'
COLOURS = (BLUE, RED, GREEN, '#CC79A7', '#E69F00', '#56B4E9', '#000000')
GREY, LIGHT = '#777777', '#dddddd'
STYLE = {
    'font.family': 'DejaVu Sans', 'font.size': 7, 'axes.titlesize': 8,
    'axes.titleweight': 'bold', 'axes.titlelocation': 'left',
    'axes.labelsize': 7, 'legend.fontsize': 7, 'legend.frameon': False,
    'axes.spines.top': False, 'axes.spines.right': False, 'axes.grid': True,
    'axes.grid.axis': 'y', 'grid.color': '#e4e4e4', 'grid.linewidth': 0.6,
    'axes.axisbelow': True, 'lines.linewidth': 1.3, 'figure.dpi': 200,
}


class Drawing(NamedTuple):
  """A figure, and the caption that says how to read it."""

  figure: Figure
  caption: str


class Sheet:
  """A white page of images in coloured frames, with text.

  Positions are given in rows and columns, which may be fractions.
  """

  def __init__(self, observation_shape: Sequence[int], rows: float,
               columns: float):
    height, width = _tile(np.zeros(observation_shape)).shape[:2]
    self._frame = max(2, max(height, width) // 28)
    self._pitch = np.array([height, width]) + 2 * self._frame + 2
    size = np.ceil(self._pitch * [rows, columns]).astype(int)
    self._canvas = np.full((*size, 3), 255, np.uint8)
    # Tiles have the same size on paper on every sheet, so one size of text
    # fits all sheets.
    dpi = max(height, width) / _TILE_INCHES
    self._figure = Figure(figsize=(size[::-1] + 0.1) / dpi, dpi=dpi)
    self._ax = self._figure.add_axes((0, 0, 1, 1))
    # Units of the axes are pixels of the canvas, with y downwards.
    self._ax.set(xlim=(0, size[1]), ylim=(size[0], 0))
    self._ax.axis('off')

  def put(self, row: float, column: float, image: np.ndarray,
          colour: str | None = None) -> None:
    """Puts an image `[H, W, C]` at a position, in a frame."""
    top, left = np.round(self._pitch * [row, column]).astype(int)
    tile, frame = _tile(image), self._frame
    height, width = tile.shape[:2]
    if colour is not None:
      self._canvas[top:top + height + 2 * frame,
                   left:left + width + 2 * frame] = np.round(
                       255 * np.array(to_rgb(colour)))
    self._canvas[top + frame:top + frame + height,
                 left + frame:left + frame + width] = tile

  def text(self, row: float, column: float, text: str, ha: str = 'left',
           va: str = 'center') -> None:
    """Writes text at a position."""
    y, x = self._pitch * [row, column]
    # Names of groups are the user's, and a $ in them does not start a formula.
    self._ax.text(x, y, text, ha=ha, va=va, parse_math=False)

  def head(self, title: str, frames: Sequence[str | None] = (),
           space: float = 0.0) -> None:
    """Writes a title, and labels of the green, blue and red frames."""
    handles = [
        Patch(facecolor='none', edgecolor=colour, linewidth=1.5, label=label)
        for label, colour in zip(frames, (GREEN, BLUE, RED)) if label]
    above = space * self._pitch[0]
    if handles:
      self._ax.legend(
          handles=handles, loc='lower left', ncols=len(handles),
          bbox_to_anchor=(0, -above), borderaxespad=0.6, handlelength=1.0,
          bbox_transform=self._ax.transData, borderpad=0)
      above += 0.45 * max(self._pitch)
    self._ax.text(0, -above - 6, title, fontsize=8.5, fontweight='bold',
                  va='bottom', parse_math=False)

  def figure(self) -> Figure:
    """The finished page, to which nothing can be added."""
    height, width = self._canvas.shape[:2]
    self._ax.imshow(self._canvas, extent=(0, width, height, 0),
                    interpolation='nearest', aspect='auto')
    return self._figure


def save(drawing: Drawing, path: str) -> None:
  """Writes a PNG completely or not at all."""
  content = io.BytesIO()
  drawing.figure.savefig(
      content, format='png', dpi=drawing.figure.dpi, bbox_inches='tight',
      pad_inches=0.08, metadata={'Description': drawing.caption})
  write_atomically(path, content.getvalue())


def shorten(name: str) -> str:
  """The name of a group, shortened, with only characters that the font has."""
  return shortened(drawable(name), 16)


def drawable(text: str, font: str = 'DejaVu Sans') -> str:
  """Text with '?' for characters that a font does not have."""
  # For these matplotlib would warn and draw boxes.
  return ''.join(c if ord(c) in _characters(font) else '?' for c in text)


def shortened(text: str, width: int) -> str:
  """Text of at most `width` characters, which ends in '…' if it was cut."""
  return text if len(text) <= width else f'{text[:width - 1]}…'


def _tile(image: np.ndarray) -> np.ndarray:
  """An image as RGB pixels of a legible size, `[h, w, 3]` uint8."""
  image = np.asarray(image)
  if image.dtype != np.uint8:
    # What a Gaussian expects of pixels may lie outside.
    image = np.round(255 * np.clip(image, 0.0, 1.0)).astype(np.uint8)
  image = image[..., :1] if image.shape[-1] < 3 else image[..., :3]
  image = np.broadcast_to(image, (*image.shape[:2], 3))
  height, width = image.shape[:2]
  factor = _TILE / max(height, width)
  if factor < 0.7:
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(
        size, Image.Resampling.LANCZOS))
  # Small images grow by whole pixels, which stay sharp.
  times = max(1, round(factor))
  return image.repeat(times, axis=0).repeat(times, axis=1)


@functools.cache
def _characters(font: str) -> frozenset[int]:
  path = font_manager.findfont(font)
  return frozenset(font_manager.get_font(path).get_charmap())
