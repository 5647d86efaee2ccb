"""The penalties by name, and their values on a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mlvae_jax.grouping.checks import check_number
from mlvae_jax.model.factors import Batch, Factor
from mlvae_jax.model.model import Model
from mlvae_jax.objective.draws import Drawn
from mlvae_jax.objective.penalties import adversary, contrast, leakage
from mlvae_jax.objective.penalties.rows import Other, Rows


def _needs_groups(model: Model, factor: Factor) -> str:
  del model
  if factor.grouping is not None:
    return ''
  return f'a grouped factor, got {factor.name!r}'


def _needs_other_groups(model: Model, factor: Factor) -> str:
  if _others(model, factor):
    return ''
  return ('some other factor with a different grouping, and '
          f'{factor.name!r} has none')


class Kind(NamedTuple):
  """A kind of penalty.

  Attributes:
    value: pure function of `Rows`, and of the parameters of the critics if the
      kind has any, that gives the penalty of each row, `[N]`; 0 for padding.
    lacks: function of a model and its factor that says what a penalty of this
      kind would need and does not find; '' where it fits.
    help: phrase for users that says what the penalty is for.
    in_noise_units: whether the weight is in units of the code's noise. That
      suits what a code should not reveal, and not what it should: a code that
      reveals nothing would never be pulled.
    init_critics: function of a key, the factor and the names of the factors
      with other groupings that makes the parameters of critics, which
      are trained to increase the penalty; None where there are none.
  """

  value: Callable[..., jax.Array]
  lacks: Callable[[Model, Factor], str]
  help: str
  in_noise_units: bool = False
  init_critics: Callable[..., Any] | None = None


PENALTIES = {
    'contrast': Kind(
        contrast.contrast, _needs_groups,
        'which makes a factor\'s code reveal its group'),
    'mean_leakage': Kind(
        leakage.mean_leakage, _needs_other_groups,
        'on what the standardised means of a factor\'s code reveal about the '
        'groups of other factors', in_noise_units=True),
    'adversary': Kind(
        adversary.adversary, _needs_other_groups,
        'on how well a classifier, trained alongside the model, predicts the '
        'groups of other factors from the code\'s standardised means',
        in_noise_units=True, init_critics=adversary.init_critics),
}

# Kinds and weights that separate codes, of models with one grouping and with
# several; what they gave is in docs/results.md. Of several groupings each code
# pays for all others, and with less of the kernel they are learned sooner.
SEPARATING = {'contrast': 100.0, 'mean_leakage': 400.0, 'adversary': 4.0}
SEPARATING_SEVERAL = {
    'contrast': 100.0, 'mean_leakage': 100.0, 'adversary': 8.0}


@dataclasses.dataclass(frozen=True)
class Penalty:
  """A penalty on a factor's codes, to be subtracted from the ELBO.

  Attributes:
    kind: name of its kind in `PENALTIES`.
    factor: name of the factor whose codes it applies to.
    weight: number, at least 0, by which its gradients with respect to codes
      are multiplied; 0 only measures it. See `penalty_terms`.
  """

  kind: str
  factor: str
  weight: float

  def __post_init__(self):
    if self.kind not in PENALTIES:
      raise ValueError(f'no penalty {self.kind!r}; the penalties are '
                       + ', '.join(PENALTIES))
    weight = check_number(self.weight, f'the weight of penalty {self.name}')
    object.__setattr__(self, 'weight', weight)
    if not (weight >= 0 and math.isfinite(weight)):
      raise ValueError(
          f'expected a weight of at least 0 for penalty {self.name}, got '
          f'{self.weight}')

  @property
  def name(self) -> str:
    """Key 'kind/factor' of the penalty in terms, metrics and logs."""
    return f'{self.kind}/{self.factor}'


def separating_penalties(model: Model) -> tuple[Penalty, ...]:
  """The penalties that are recommended to separate a model's factors.

  They make a grouped factor's code reveal its group, and keep other factors'
  codes from revealing it. For training with evidence of random size; a factor
  that is not grouped should be given the grouped ones.

  Args:
    model: the model.

  Returns:
    Penalties on every factor that they fit; none for a model without groups.
  """
  several = len({factor.grouping for factor in model.grouped}) > 1
  weights = SEPARATING_SEVERAL if several else SEPARATING
  return tuple(
      Penalty(kind, factor.name, weight)
      for kind, weight in weights.items() for factor in model.factors
      if not misfit(kind, model, factor))


def misfit(kind: str, model: Model, factor: Factor) -> str:
  """Why a kind of penalty does not fit a factor; '' where it does."""
  lacks = PENALTIES[kind].lacks(model, factor)
  if not lacks and factor.grouping is not None and not model.has_encoder:
    # Only the group has a posterior: single rows have none to penalise.
    lacks = 'an encoder, and an SVI model has none'
  return lacks and f'{kind} needs {lacks}'


def kinds_of(penalties: Iterable[Penalty]) -> tuple[Kind, ...]:
  """What the names of penalties' kinds mean at present."""
  return tuple(PENALTIES[penalty.kind] for penalty in penalties)


def init_critics(model: Model, penalties: Iterable[Penalty], key: jax.Array
                 ) -> dict[str, Any] | None:
  """Parameters of the critics of all penalties that have any.

  Args:
    model: the model; static.
    penalties: the penalties; static.
    key: random key; consumed.

  Returns:
    Parameters by the penalty's name; None where no penalty has critics.
  """
  critics = {}
  for i, penalty in enumerate(penalties):
    init = PENALTIES[penalty.kind].init_critics
    if init is not None:
      factor = model.factor(penalty.factor)
      critics[penalty.name] = init(
          jax.random.fold_in(key, i), factor,
          [other.name for other in _others(model, factor)])
  return critics or None


def penalty_terms(
    model: Model,
    penalties: Iterable[Penalty],
    drawn: Drawn,
    num_groups: Mapping[str, int],
    critics: Mapping[str, Any] | None = None,
    *,
    axis_name: str | None = None,
) -> dict[str, jax.Array]:
  """The penalties of every row of a batch: values without their weights.

  Gradients with respect to the posteriors of rows are multiplied by the weight
  and, for kinds `in_noise_units`, by `Rows.signal_to_noise`. The gradient of
  the ELBO with respect to a mean, for one sample, is about 1 over the
  posterior's deviation, so in units of the deviation of means it is about that
  ratio. A weight then means the same on data whose codes are precise and on
  data whose codes are not, and a code that is not used yet may learn first.
  Gradients with respect to critics are those of the plain values.

  Args:
    model: the model; static.
    penalties: the penalties to compute; static.
    drawn: the batch's posteriors and codes.
    num_groups: static number of groups per grouped factor.
    critics: what `init_critics` gave, as trained so far; needed where a penalty
      has critics.
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
    kind = PENALTIES[penalty.kind]
    rows = _rows(model, factor, drawn, num_groups, axis_name)
    rows = rows.with_gradients(penalty.weight * (
        rows.signal_to_noise() if kind.in_noise_units else 1.0))
    if kind.init_critics is None:
      terms[penalty.name] = kind.value(rows)
    elif critics is None:
      raise ValueError(f'the penalty {penalty.name} needs critics; make them '
                       'with init_critics')
    else:
      terms[penalty.name] = kind.value(rows, critics[penalty.name])
  return terms


def _others(model: Model, factor: Factor) -> list[Factor]:
  """The grouped factors with another grouping than a factor's."""
  return [other for other in model.grouped
          if other.grouping != factor.grouping]


def _rows(model: Model, factor: Factor, drawn: Drawn,
          num_groups: Mapping[str, int], axis_name: str | None) -> Rows:
  batch, name = drawn.batch, factor.name
  return Rows(
      drawn.q[name], batch.mask, batch.group_ids.get(name),
      num_groups.get(name),
      {other.name: _other(batch, other.name, num_groups[other.name])
       for other in _others(model, factor)}, axis_name)


def _other(batch: Batch, name: str, num_groups: int) -> Other:
  numbers = (jnp.arange(num_groups) if batch.group_numbers is None
             else batch.group_numbers[name])
  return Other(batch.group_ids[name], num_groups, numbers)
