"""Made-up one-shot runs: characters of random strokes, in Lake's form."""

import io

import numpy as np
from PIL import Image, ImageDraw


def character(seed, drawer=0, size=105, background=255):
  """A drawing of a character, black on white; drawers shift it a little."""
  rng, own = np.random.default_rng(seed), np.random.default_rng([seed, drawer])
  points = rng.uniform(0.2, 0.8, (4, 2)) + own.normal(0, 0.01, 2)
  image = Image.new('L', (size, size), background)
  ImageDraw.Draw(image).line(
      [tuple(size * point) for point in points], 255 - background,
      max(1, size // 35))
  return np.asarray(image)


def png(image, mode='1'):
  """An image as the bytes of a file."""
  file = io.BytesIO()
  Image.fromarray(image).convert(mode).save(file, 'PNG')
  return file.getvalue()


def runs(num_runs=2, ways=4):
  """The files of runs, as {path: bytes}; labels are in another order."""
  files = {}
  for run in range(1, num_runs + 1):
    name, order = f'run{run:02}', np.random.default_rng(run).permutation(ways)
    for i in range(ways):
      files[f'{name}/training/class{i + 1:02}.png'] = png(
          character(100 * run + i, 0))
      files[f'{name}/test/item{i + 1:02}.png'] = png(
          character(100 * run + order[i], 1))
    files[f'{name}/class_labels.txt'] = ''.join(
        f'{name}/test/item{i + 1:02}.png '
        f'{name}/training/class{order[i] + 1:02}.png\n'
        for i in range(ways)).encode()
  return files


def write(root, files):
  """Writes files below a folder."""
  for name, content in files.items():
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(content)
  return str(root)
