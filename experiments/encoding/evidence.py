"""Evidence about named groups, as sums that are added in float64.

A group's posterior follows from the number of its members and two sums over
them, for every kind of group posterior here: precisions, and precisions times
means, for the products (paper eqs. 6-7); variances or second moments, and
means, for averages. Sums of more members are added, or taken away again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments.cli import UserError
from mlvae_jax.grouping.mixture import Mixture
from mlvae_jax.grouping.moments import Moments
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.grouping.posterior import GroupPosterior
from mlvae_jax.grouping.product import Harmonic, PriorProduct, Product

_MAX_LOGVAR = 300.0  # Sums of a billion such precisions fit a float64.
# The largest relative error accepted in what `remove` leaves: three digits.
_MAX_ERROR = 1e-3
_ERROR = 16 * np.finfo(np.float64).eps  # Assumed of a sum.


class Evidence(NamedTuple):
  """Sums over the members of G groups.

  Attributes:
    names: names of the groups, sorted and distinct.
    first: `[G, D]` float64, sums of the members' first terms, see `terms`,
      which are positive.
    second: `[G, D]` float64, sums of the second terms.
    count: `[G]` int64, numbers of members, at least 1.
  """

  names: tuple[str, ...]
  first: np.ndarray
  second: np.ndarray
  count: np.ndarray


class Sums:
  """Sums of groups that are known by number, to which rows are added."""

  def __init__(self, num_groups: int, dim: int):
    self._sums = np.zeros((2, num_groups, dim))
    self._count = np.zeros(num_groups, np.int64)

  def add(self, ids: np.ndarray, row_terms: tuple[np.ndarray, np.ndarray]
          ) -> None:
    """Adds rows.

    Args:
      ids: `[N]` ints, the group of each row; rows of group -1 are left out.
      row_terms: what `terms` gives of the rows, `[N, D]` each.
    """
    order = np.argsort(ids, kind='stable')[np.count_nonzero(ids < 0):]
    if not len(order):
      return
    groups, starts, count = np.unique(
        ids[order], return_index=True, return_counts=True)
    for total, values in zip(self._sums, row_terms):
      total[groups] += np.add.reduceat(values[order], starts, axis=0)
    self._count[groups] += count

  def evidence(self, names: Sequence[str]) -> Evidence:
    """The evidence about all groups that have rows.

    Args:
      names: names of all groups.

    Returns:
      The evidence, sorted by name.
    """
    present = sorted(np.flatnonzero(self._count), key=names.__getitem__)
    return Evidence(tuple(names[i] for i in present),
                    *self._sums[:, present], self._count[present])


def check_additive(posterior: GroupPosterior) -> None:
  """Raises a UserError if evidence cannot be added up."""
  if not isinstance(posterior, (Product, Moments, Mixture)):
    raise UserError(
        f'the group posterior of this run, {type(posterior).__name__}, is not '
        'a function of sums over the members of a group; encode its groups '
        'with mlvae_jax.encode_group, all images of a group at once')


def terms(posterior: GroupPosterior, q: Normal
          ) -> tuple[np.ndarray, np.ndarray]:
  """What is summed over the members of a group.

  Args:
    posterior: kind of group posterior, one that `check_additive` accepts.
    q: Normal of `[N, D]`, which the encoder gives of each row.

  Returns:
    Two arrays `[N, D]` of float64.
  """
  mean, logvar = (np.asarray(value, np.float64) for value in q)
  logvar = np.clip(logvar, -_MAX_LOGVAR, _MAX_LOGVAR)
  if isinstance(posterior, Product):
    precision = np.exp(-logvar)
    return precision, precision * mean
  variance = np.exp(logvar)
  if isinstance(posterior, Mixture):
    variance = variance + np.square(mean)
  return variance, mean


def to_normal(posterior: GroupPosterior, found: Evidence) -> Normal:
  """The groups' posteriors: Normal of `[G, D]` float64.

  Args:
    posterior: kind of group posterior, one that `check_additive` accepts.
    found: evidence about the groups.

  Returns:
    What `posterior.combine` gives of the same members.
  """
  count = found.count[:, None]
  if isinstance(posterior, Product):
    precision = found.first + isinstance(posterior, PriorProduct)
    mean, variance = found.second / precision, 1.0 / precision
    if isinstance(posterior, Harmonic):
      variance = variance * count
  else:
    variance, mean = found.first / count, found.second / count
    if isinstance(posterior, Mixture):
      variance = variance - np.square(mean)
  return Normal(mean, np.log(variance))


def merge(parts: Sequence[Evidence]) -> Evidence:
  """Adds evidence from different rows, about the same groups or others.

  Args:
    parts: pieces of evidence, at least one, with codes of one size.

  Returns:
    Evidence from the rows of all of them.
  """
  names = sorted(set().union(*(part.names for part in parts)))
  place = {name: i for i, name in enumerate(names)}
  sums = np.zeros((2, len(names), parts[0].first.shape[1]))
  count = np.zeros(len(names), np.int64)
  for part in parts:
    where = np.fromiter(map(place.__getitem__, part.names), np.int64,
                        len(part.names))
    sums[0][where] += part.first
    sums[1][where] += part.second
    count[where] += part.count
  return Evidence(tuple(names), *sums, count)


def remove(whole: Evidence, part: Evidence) -> Evidence:
  """Takes away evidence that was merged before.

  Args:
    whole: evidence about some groups.
    part: evidence that is contained in it.

  Returns:
    Evidence from the rows that are left. Groups without any are left out.

  Raises:
    UserError: when the part is not contained in the whole, or holds so nearly
      all of it that the rest would have fewer than three accurate digits.
  """
  place = {name: i for i, name in enumerate(whole.names)}
  unknown = next((name for name in part.names if name not in place), None)
  if unknown is not None:
    raise UserError(f'cannot remove evidence about group {unknown!r}: '
                    'there is none; remove only what was merged before')
  where = np.fromiter(map(place.__getitem__, part.names), np.int64,
                      len(part.names))
  first, second, count = (value.copy() for value in whole[1:])
  first[where] -= part.first
  second[where] -= part.second
  count[where] -= part.count
  lost = np.any(first * _MAX_ERROR < _ERROR * whole.first, axis=1)
  wrong = np.flatnonzero(lost & (count > 0) | (count < 0))
  if len(wrong):
    name = whole.names[wrong[0]]
    raise UserError(
        f'cannot remove more images of group {name!r} than there are'
        if count[wrong[0]] < 0 else
        f'almost all evidence about group {name!r} would be removed, and the '
        'rest would be inaccurate; encode the remaining images again')
  kept = np.flatnonzero(count)
  return Evidence(tuple(whole.names[i] for i in kept),
                  first[kept], second[kept], count[kept])
