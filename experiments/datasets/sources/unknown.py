"""Names of groups that look as if the group were unknown."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mlvae_jax.data.grouped import GroupedData

# Empty cells as spreadsheets, databases and Python write them, in lower case.
_SPELLINGS = frozenset(
    {'nan', 'na', 'n/a', '#n/a', '<na>', 'null', 'none', '-', '?'})


def warnings(data: GroupedData) -> Iterator[str]:
  """Warnings about names of groups that look like empty cells.

  Args:
    data: images whose groups were named in a table.

  Yields:
    A line for every such name.
  """
  for grouping in data.groupings:
    ids, names = data.labels_of(grouping)
    for i, name in enumerate(names):
      if name.lower() in _SPELLINGS:
        yield (f'{np.count_nonzero(ids == i):,} images have {name!r} as their '
               f'{grouping}: it is taken as the name of a group; leave the '
               'cell empty if the group is unknown')
