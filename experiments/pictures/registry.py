"""The pictures that are made of test images, in the order they are shown in."""

from __future__ import annotations

from collections.abc import Iterator
import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from experiments.pictures.sheets import Drawing
  from experiments.pictures.subject import Subject

# By name, the file here and the function that draws it.
PICTURES = {
    'swap': ('swaps', 'swaps'),
    'generation': ('groups', 'generations'),
    'interpolation': ('swaps', 'interpolations'),
    'reconstruction': ('groups', 'reconstructions'),
    'generalisation': ('generalisation', 'generalisations'),
    'samples': ('groups', 'samples'),
}


def draw_pictures(name: str, subject: Subject
                  ) -> Iterator[tuple[str, Drawing]]:
  """Draws the pictures of a name.

  Args:
    name: name in `PICTURES`. Its file is imported only now: matplotlib is
      slow to import.
    subject: what they are drawn of.

  Yields:
    Names of files, which start with `name`, and drawings; none where the
    model or the data do not allow it.
  """
  file, function = PICTURES[name]
  module = importlib.import_module(f'{__package__}.{file}')
  yield from getattr(module, function)(subject)
