"""Factors of variation, and batches of rows with the groups they are in."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
from jax import export

from mlvae_jax.grouping.checks import check_count


@dataclasses.dataclass(frozen=True)
class Factor:
  """One latent factor of variation.

  Attributes:
    name: key of the factor in every dict of posteriors, ids and KLs.
    dim: size D of its code.
    grouping: name of the grouping whose groups share one code each, or None
      where every observation has its own.
    given: names of earlier factors whose codes the encoder of this one also
      sees: q(s | x, c) instead of q(s | x). Given x the true posterior of style
      depends on content, so this bound is tighter.
  """

  name: str
  dim: int
  grouping: str | None = None
  given: tuple[str, ...] = ()

  def __post_init__(self):
    if not self.name.isidentifier():
      raise ValueError(
          f'a factor\'s name must be an identifier, got {self.name!r}')
    # It is frozen.
    object.__setattr__(self, 'dim', check_count(
        self.dim, f'dim of factor {self.name!r}'))
    if isinstance(self.given, str):
      raise ValueError(
          f'factor {self.name!r}: expected given as a tuple of names, got '
          f'{self.given!r}')
    object.__setattr__(self, 'given', tuple(self.given))


class Batch(NamedTuple):
  """Rows of a minibatch; padding rows have mask False.

  Attributes:
    x: `[N, ...]` observations.
    group_ids: `[N]` int32 per grouped factor, keyed by the factor's name.
    mask: `[N]` bool, True for real rows.
    rows: `[N]` int32, position of the row in the whole (global) minibatch. It
      determines the row's noise, so that noise does not depend on how the
      minibatch is laid out over devices.
    evidence: optional, per grouped factor `[N]` bool, whether a row is evidence
      for the posterior of its group; by default all rows are.
    weights: optional `[N]`, the number of rows that a row represents in the
      likelihood (and in the KL of ungrouped factors); by default 1.
    kl_share: optional, per grouped factor `[N]`, the share of its group's KL
      that a row pays; by default the rows present pay the whole KL in equal
      shares. Only for free posteriors (SVI): a posterior encoded from the
      rows of a batch pays its whole KL.
    group_numbers: optional, per grouped factor `[G]` ints, the number within
      the data of each group of the batch, by which the critics of penalties
      identify it; by default group_ids, which then must mean the same groups in
      every batch.
  """

  x: jax.Array
  group_ids: dict[str, jax.Array]
  mask: jax.Array
  rows: jax.Array
  evidence: dict[str, jax.Array] | None = None
  weights: jax.Array | None = None
  kl_share: dict[str, jax.Array] | None = None
  group_numbers: dict[str, jax.Array] | None = None


export.register_namedtuple_serialization(
    Batch, serialized_name='mlvae_jax.Batch')


def ml_vae(content_dim: int, style_dim: int, grouping: str = 'group'
           ) -> tuple[Factor, Factor]:
  """The paper's two factors: grouped content, ungrouped style.

  Args:
    content_dim: size of the content code.
    style_dim: size of the style code.
    grouping: name of the grouping whose groups share content.

  Returns:
    The factors `content` and `style`.
  """
  return (Factor('content', content_dim, grouping),
          Factor('style', style_dim))


def vae(dim: int) -> tuple[Factor]:
  """The factor `z` of a VAE, of size `dim`: a code per observation."""
  return (Factor('z', dim),)


def parse_factors(text: str) -> tuple[Factor, ...]:
  """Parses `name:dim[:grouping][|given...]`, comma-separated.

  Args:
    text: factors, for example `content:10:identity,style:10|content`.

  Returns:
    The factors, in the order given.

  Raises:
    ValueError: on text of another form, names that are not identifiers or not
      distinct, or a dim of 0.
  """
  factors = []
  for item in text.split(','):
    own, *given = item.strip().split('|')
    parts = own.split(':')
    if len(parts) not in (2, 3) or not (
        parts[1].isdigit() and all((*parts, *given))):
      raise ValueError(
          'expected factors as NAME:DIM[:GROUPING][|GIVEN],..., got '
          f'{item.strip()!r}')
    factors.append(Factor(
        parts[0], int(parts[1]), *parts[2:], given=tuple(given)))
  check_factors(tuple(factors))
  return tuple(factors)


def check_factors(factors: tuple[Factor, ...]) -> None:
  """Raises a ValueError where factors do not fit each other.

  Their names are distinct, there is at least one, and each is given only
  factors that come before it.
  """
  names = [factor.name for factor in factors]
  if not names or len(set(names)) != len(names):
    raise ValueError(
        f'expected at least one factor, with distinct names, got {names}')
  for i, factor in enumerate(factors):
    if not set(factor.given) <= set(names[:i]):
      raise ValueError(
          f'factor {factor.name!r} can be given only factors that come before '
          f'it, {names[:i]}, got {list(factor.given)}')
