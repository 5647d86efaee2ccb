"""Names of groups that say that a group is not known."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mlvae_jax.data.grouped import GroupedImages

# As spreadsheets, databases and Python write an empty cell; in lower case.
_SPELLINGS = frozenset(
    {'nan', 'na', 'n/a', '#n/a', '<na>', 'null', 'none', '-', '?'})


def warnings(data: GroupedImages) -> Iterator[str]:
  """A line for every name of a group that looks like an empty cell.

  Args:
    data: images whose groups were named in a table.

  Yields:
    The lines.
  """
  for grouping in data.groupings:
    ids, names = data.labels_of(grouping)
    for i, name in enumerate(names):
      if name.lower() in _SPELLINGS:
        yield (f'{np.count_nonzero(ids == i):,} images have {name!r} as their '
               f'{grouping}: it is taken as the name of a group; leave the '
               'cell empty if it is not known')
