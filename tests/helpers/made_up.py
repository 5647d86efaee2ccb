"""Made-up images of groups, as the sources of data sets hold them."""

import base64
import io

import numpy as np
from PIL import Image


def jpeg(seed, mode='RGB'):
  """An encoded image of smooth noise, of its seed's own."""
  pixels = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
  buffer = io.BytesIO()
  Image.fromarray(pixels).resize((20, 16)).convert(mode).save(buffer, 'JPEG')
  return buffer.getvalue()


def line(group, rank, image):
  """A line of MS-Celeb-1M aligned; group and rank may be bytes."""
  fields = [group, rank, 'https://url', 'https://page', 'FaceId-0', 'AAAA',
            base64.b64encode(image)]
  return b'\t'.join(
      f if isinstance(f, bytes) else str(f).encode() for f in fields) + b'\n'


def write_folder(root, sizes, mode='RGB'):
  """A folder per group, of so many JPEGs; group g's image i has a seed."""
  for group, size in sizes.items():
    (root / group).mkdir(parents=True)
    for i in range(size):
      (root / group / f'{i:03}.jpg').write_bytes(jpeg(seed(group, i), mode))
  return root


def write_tsv(path, sizes, mode='RGB'):
  """The images that `write_folder` writes, as one .tsv."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(b''.join(
      line(group, i, jpeg(seed(group, i), mode))
      for group, size in sizes.items() for i in range(size)))
  return path


def seed(group, i):
  """The seed of a group's image."""
  return [*group.encode(), i]
