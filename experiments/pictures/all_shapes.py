"""A picture of all shapes and colours of the data set of drawn shapes.

  from experiments.pictures import all_shapes
  all_shapes.save('docs/shapes.png')
"""

from __future__ import annotations

import matplotlib
import numpy as np
from PIL import Image

from experiments.config.presets import PRESETS
from experiments.datasets.drawing import COLOURS, OUTLINES, draw
from experiments.datasets.shapes import held_out, parse_hold_out, sample
from experiments.pictures import sheets


def save(path: str) -> None:
  """Writes a picture of all shapes in all colours.

  Size, position and rotation are random. Combinations that the preset holds
  out are framed in red.

  Args:
    path: path of the PNG.
  """
  grid = np.indices((len(OUTLINES), len(COLOURS))).reshape(2, -1).T
  # The first two factors are replaced by the grid, the others stay random.
  scenes = sample(len(grid))
  scenes.values[:, :2] = grid
  held = held_out(
      scenes, parse_hold_out(PRESETS['shapes'].hold_out))
  images = draw(scenes, 42)
  with matplotlib.rc_context(sheets.STYLE):
    sheet = sheets.Sheet(images.shape[1:], *(len(v) for v in (
        OUTLINES, COLOURS)))
    for (row, column), image, out in zip(grid, images, held):
      sheet.put(row, column, image, sheets.RED if out else None)
    for row, name in enumerate(OUTLINES):
      sheet.text(row + 0.5, -0.1, name, ha='right')
    for column, name in enumerate(COLOURS):
      sheet.text(-0.05, column + 0.5, name, ha='center', va='bottom')
    sheets.save(sheets.Drawing(sheet.figure(), (
        'All shapes in all colours, with random size, position and rotation. '
        'Combinations framed in red are never trained on.')), path)
  with Image.open(path) as image:  # A palette takes a third of the bytes.
    image.convert('RGB').quantize(128).save(path, optimize=True)
