"""The rows of "few_shot" by the gallery that queries are compared with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

# Numbers of groups to choose from: five out of more; twenty out of more, or all
# if there are not more; all of more than twenty.
SIZES = FIVE, USUAL, ALL = 'five', 'usual', 'all'
# What a query is compared with: each image of a gallery, their product, or the
# posterior of their group.
METHODS = NEAREST, FUSED, POSTERIOR = 'nearest', 'fused', 'posterior'

# Settings of the literature, for which queries are also classified by posterior
# and, if there are more groups, among few.
FEW_WAYS, KEY_SHOTS = 5, (1, 5)

Rows = list[dict[str, Any]]
Gallery = dict[int, dict[str, Any]]  # A row by its number of shots.


def by_gallery(rows: Rows | None) -> dict[tuple[str, str, str], Gallery]:
  """The rows of "few_shot", as {(code, size, method): {shots: row}}.

  Args:
    rows: rows of the section; None if there is none.

  Returns:
    The rows; those of a code are sorted by size, then by method. The cosine
    with a gallery of one image is the same fused or not, so its row is given
    for both.
  """
  rows = rows or []
  ways = {}
  for row in rows:
    ways.setdefault(row['shots'], set()).add(row['ways'])
  table = {}
  for row in rows:
    key = row['code'], _size(row['ways'], ways[row['shots']]), method_of(row)
    table.setdefault(key, {})[row['shots']] = row
  for (code, size, method), found in table.items():
    alone = table.get((code, size, NEAREST), {}).get(1)
    if method == FUSED and alone:
      found.setdefault(1, alone)
  codes = list(dict.fromkeys(row['code'] for row in rows))
  return dict(sorted(table.items(), key=lambda item: (
      codes.index(item[0][0]), SIZES.index(item[0][1]),
      METHODS.index(item[0][2]))))


def of_size(rows: Rows | None, size: str
            ) -> dict[tuple[str, str], Gallery]:
  """The rows of one size, as {(code, method): {shots: row}}."""
  return {(code, method): found for (code, other, method), found
          in by_gallery(rows).items() if other == size}


def method_of(row: dict[str, Any]) -> str:
  """What the queries of a row are compared with, one of `METHODS`."""
  # Rows of older evaluations have no score: it was the cosine.
  if row.get('score') == POSTERIOR:
    return POSTERIOR
  return FUSED if row['fused'] else NEAREST


def ways_of(*galleries: Gallery) -> str:
  """The numbers of groups to choose from, as '20' or '12–20'."""
  ways = {row['ways'] for found in galleries for row in found.values()}
  return '–'.join(map(str, sorted({min(ways), max(ways)})))


def _size(ways: int, all_ways: Iterable[int]) -> str:
  """The size of a row among all numbers of ways at its number of shots."""
  fewest, *more = sorted(all_ways)
  if ways == fewest == FEW_WAYS and more:
    return FIVE
  usual = more[0] if fewest == FEW_WAYS and more else fewest
  return USUAL if ways == usual else ALL
