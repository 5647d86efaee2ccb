"""The penalties by name, and their values on a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import math
from typing import NamedTuple

import jax

from mlvae_jax.grouping.posterior import row_noise
from mlvae_jax.model.factors import Factor
from mlvae_jax.model.model import Model
from mlvae_jax.objective.draws import Drawn
from mlvae_jax.objective.penalties import contrast, leakage
from mlvae_jax.objective.penalties.rows import Rows

# Folded into a factor's key for the noise of rows on their own. The number is
# larger than any row's, and than any index of a split: since fold_in(key, 1)
# is split(key)[1], a small one could repeat another use of the key.
_ALONE = 0xFFFFA10E


def _needs_groups(model: Model, factor: Factor) -> str:
  del model
  if factor.grouping is not None:
    return ''
  return f'a grouped factor, got {factor.name!r}'


def _needs_other_groups(model: Model, factor: Factor) -> str:
  if {other.grouping for other in model.grouped} - {factor.grouping}:
    return ''
  return ('some other factor with a different grouping, and '
          f'{factor.name!r} has none')


class Kind(NamedTuple):
  """A kind of penalty.

  Attributes:
    value: pure function of `Rows` that gives the penalty of each row, `[N]`;
      0 for padding.
    lacks: function of a model and its factor that says what a penalty of this
      kind would need and does not find; '' where it fits.
    help: phrase for users that says what the penalty is for.
  """

  value: Callable[[Rows], jax.Array]
  lacks: Callable[[Model, Factor], str]
  help: str


PENALTIES = {
    'contrast': Kind(
        contrast.contrast, _needs_groups,
        'which makes a factor\'s code reveal its group'),
    'leakage': Kind(
        leakage.leakage, _needs_other_groups,
        'on what a factor\'s code reveals about the groups of other factors'),
    'mean_leakage': Kind(
        leakage.mean_leakage, _needs_other_groups,
        'the same for the code\'s standardised means, without sampling noise'),
    'nonnegative_leakage': Kind(
        leakage.nonnegative_leakage, _needs_other_groups,
        'leakage by an estimate that training cannot push below 0 by making '
        'members of a group repel each other'),
    'nonnegative_mean_leakage': Kind(
        leakage.nonnegative_mean_leakage, _needs_other_groups,
        'mean_leakage by that estimate'),
}


@dataclasses.dataclass(frozen=True)
class Penalty:
  """A penalty on a factor's codes, to be subtracted from the ELBO.

  Attributes:
    kind: name of its kind in `PENALTIES`.
    factor: name of the factor whose codes it applies to.
    weight: number, at least 0, by which its sum over images is multiplied.
  """

  kind: str
  factor: str
  weight: float

  def __post_init__(self):
    if self.kind not in PENALTIES:
      raise ValueError(f'no penalty {self.kind!r}; the penalties are '
                       + ', '.join(PENALTIES))
    if not (self.weight >= 0 and math.isfinite(self.weight)):
      raise ValueError(
          f'expected a weight of at least 0 for penalty {self.name}, got '
          f'{self.weight}')

  @property
  def name(self) -> str:
    """Key of the penalty in terms, metrics and logs: 'kind/factor'."""
    return f'{self.kind}/{self.factor}'


def misfit(kind: str, model: Model, factor: Factor) -> str:
  """Why a kind of penalty does not fit a factor; '' where it does."""
  lacks = PENALTIES[kind].lacks(model, factor)
  if not lacks and factor.grouping is not None and not model.has_encoder:
    # Only the group has a posterior: single rows have none to penalise.
    lacks = 'an encoder, and an SVI model has none'
  return lacks and f'{kind} needs {lacks}'


def penalty_terms(
    model: Model,
    penalties: Iterable[Penalty],
    drawn: Drawn,
    num_groups: Mapping[str, int],
    *,
    axis_name: str | None = None,
) -> dict[str, jax.Array]:
  """The penalties of every row of a batch, without their weights.

  Args:
    model: the model; static.
    penalties: the penalties to compute; static.
    drawn: the batch's posteriors and codes.
    num_groups: static number of groups per grouped factor.
    axis_name: mapped axis over which the batch is spread, if any.

  Returns:
    `[N]` per penalty, keyed 'kind/factor'; 0 for padding.

  Raises:
    ValueError: on an unknown factor, or a penalty that does not fit its factor.
  """
  terms = {}
  for penalty in penalties:
    factor = model.factor(penalty.factor)
    if problem := misfit(penalty.kind, model, factor):
      raise ValueError(problem)
    terms[penalty.name] = PENALTIES[penalty.kind].value(
        _rows(model, factor, drawn, num_groups, axis_name))
  return terms


def _rows(model: Model, factor: Factor, drawn: Drawn,
          num_groups: Mapping[str, int], axis_name: str | None) -> Rows:
  batch, name, q = drawn.batch, factor.name, drawn.q[factor.name]
  if factor.grouping is None:
    z = drawn.codes[name]
  else:  # The ELBO's codes are the groups', not those of single rows.
    z = q.reparameterize(row_noise(
        jax.random.fold_in(drawn.keys[name], _ALONE), batch.rows, factor.dim))
  return Rows(
      drawn.encoded[name], q, z, batch.mask, batch.group_ids.get(name),
      num_groups.get(name),
      tuple(batch.group_ids[other.name] for other in model.grouped
            if other.grouping != factor.grouping), axis_name)
