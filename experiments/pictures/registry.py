"""The pictures that are made of test rows, in the order of the report."""

from __future__ import annotations

from collections.abc import Iterator
import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from experiments.pictures.sheets import Drawing
  from experiments.pictures.subject import Subject

# By name: the file in this folder, and the function in it that draws. As text,
# so that the names can be listed without importing matplotlib.
OF_IMAGES = {
    'swap': ('swaps', 'swaps'),
    'generation': ('groups', 'generations'),
    'interpolation': ('swaps', 'interpolations'),
    'reconstruction': ('groups', 'reconstructions'),
    'ambiguity': ('ambiguity', 'ambiguities'),
    'generalisation': ('generalisation', 'generalisations'),
    'samples': ('groups', 'samples'),
}
OF_OTHERS = {
    'profiles': ('vectors', 'profiles'),
    'sentences': ('tokens', 'sentences'),
    'map': ('vectors', 'maps'),
}
PICTURES = OF_IMAGES | OF_OTHERS


def draw_pictures(name: str, subject: Subject
                  ) -> Iterator[tuple[str, Drawing]]:
  """Draws the pictures of one name.

  Args:
    name: name in `PICTURES`. Its file is imported only now, because matplotlib
      is slow to import.
    subject: subject of the pictures.

  Yields:
    Names of files, which start with `name`, and drawings; none if the model
    or the data do not allow any.
  """
  if (name in OF_IMAGES) != subject.shows_images:
    return
  file, function = PICTURES[name]
  module = importlib.import_module(f'{__package__}.{file}')
  yield from getattr(module, function)(subject)
