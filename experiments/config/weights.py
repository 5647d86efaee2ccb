"""Parsing of weights per factor, of KL terms and of penalties."""

from __future__ import annotations

from mlvae_jax.model.model import Model
from mlvae_jax.objective.penalties.registry import PENALTIES, Penalty, misfit

_ALL = 'all'  # Stands for every factor that fits.


def parse_weights(what: str, text: str, model: Model
                  ) -> tuple[tuple[str, float], ...]:
  """Parses NAME:WEIGHT,... into pairs.

  Args:
    what: name of the setting, for errors.
    text: weights to parse. 'all' names all factors, and the last weight of a
      factor counts; '' gives none.
    model: model whose factors may be named.

  Returns:
    (factor name, weight) pairs.

  Raises:
    ValueError: when the text cannot be parsed, or on unknown names.
  """
  weights = {}
  for item in _items(text):
    name, _, value = item.partition(':')
    names = _factor_names(what, text, model, name)
    weights |= dict.fromkeys(
        names, _weight(what, 'NAME:WEIGHT', item, value))
  return tuple(weights.items())


def parse_penalties(what: str, text: str, model: Model
                    ) -> tuple[Penalty, ...]:
  """Parses KIND/NAME:WEIGHT,... into penalties.

  Args:
    what: name of the setting, for errors.
    text: weights to parse. 'all' names all factors to which the kind applies,
      and the last weight of a kind and a factor counts; '' gives none.
    model: model whose factors may be named.

  Returns:
    The penalties.

  Raises:
    ValueError: when the text cannot be parsed, on unknown kinds and names, or
      on factors to which a penalty does not apply.
  """
  weights = {}
  for item in _items(text):
    key, _, value = item.partition(':')
    kind, slash, name = key.partition('/')
    if not slash:
      raise _unreadable(what, 'KIND/NAME:WEIGHT', item)
    if kind not in PENALTIES:
      raise ValueError(f'no penalty {kind!r} for --{what}={text}; penalties '
                       f'are {", ".join(PENALTIES)}')
    names = _fitting(what, kind, name, model, _factor_names(
        what, text, model, name))
    weight = _weight(what, 'KIND/NAME:WEIGHT', item, value)
    weights |= dict.fromkeys([(kind, name) for name in names], weight)
  return tuple(Penalty(*key, weight) for key, weight in weights.items())


def _items(text: str) -> list[str]:
  return [item.strip() for item in text.split(',') if item]


def _factor_names(what: str, text: str, model: Model, name: str) -> list[str]:
  """The names of the factors that a name stands for."""
  known = [factor.name for factor in model.factors]
  if name == _ALL:
    return known
  if name not in known:
    raise ValueError(f'no factor {name!r} for --{what}={text}; the factors '
                     f'are {", ".join(known)}')
  return [name]


def _fitting(what: str, kind: str, name: str, model: Model, names: list[str]
             ) -> list[str]:
  """The names of those factors to which a kind of penalty applies."""
  problems = {name: misfit(kind, model, model.factor(name)) for name in names}
  fitting = [name for name, problem in problems.items() if not problem]
  # 'all' may stand for no factor at all. But a model without an encoder, which
  # would silently lose every penalty, is reported.
  if not fitting and (name != _ALL or not model.has_encoder):
    problem = next(filter(None, problems.values()))
    raise ValueError(f'--{what}={kind}/{name}: {problem}; leave it out')
  return fitting


def _unreadable(what: str, form: str, item: str) -> ValueError:
  return ValueError(f'expected --{what} as {form},..., got {item!r}')


def _weight(what: str, form: str, item: str, value: str) -> float:
  try:
    weight = float(value)
  except ValueError:
    raise _unreadable(what, form, item) from None
  if not 0 <= weight < float('inf'):  # Also excludes NaN.
    raise ValueError(
        f'expected a weight of at least 0 in --{what}, got {item!r}')
  return weight
