"""What a run's codes hold, in words: the first sentences of its report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
import math
from typing import Any, NamedTuple

from experiments.evaluation.meaning import caveat
from experiments.evaluation.wording import worded
from mlvae_jax.model.model import Model

# Words for a share of the way from chance to a perfect score, below each limit.
# The share itself stands next to its words, since any limit is near some run's.
_HOW_WELL = ((0.05, 'hardly at all'), (1 / 3, 'a little'), (2 / 3, 'in part'),
             (0.9, 'well'), (float('inf'), 'nearly perfectly'))


def verdict(model: Model, evaluation: Mapping[str, Any]) -> str:
  """Says of each label how well the codes of single images reveal it.

  Args:
    model: model of the run.
    evaluation: content of evaluation.json.

  Returns:
    A sentence on all labels by which a factor is grouped, or on the first of
    them where groups never seen in training are recognised, and one with the
    scores behind it; '' if nothing was scored, or from too few examples to say
    anything.
  """
  recognised = evaluation.get('verification') or []
  predicted = evaluation.get('factors') or evaluation.get('probes') or []
  held = list(_of_new_groups(model, recognised) if recognised else _of_labels(
      model, predicted))
  return worded(model, _said(held)) if held else ''


class _Held(NamedTuple):
  """What the codes hold of one label.

  Attributes:
    label: the label.
    whose: whose label it is.
    score: what the score is called.
    shares: share of the way from chance to a perfect score, per factor.
    scores: the score behind each share, in words.
    chance: the score by chance, in words.
  """

  label: str
  whose: str
  score: str
  shares: Mapping[str, float]
  scores: Mapping[str, str]
  chance: str


def _of_labels(model: Model, rows: Iterable[Mapping[str, Any]]
               ) -> Iterator[_Held]:
  for label in model.groupings:
    found = {
        row['code']: row for row in rows
        if row.get('label', label) == label and row['source'] == 'mean'
        and row.get('k', 1) == 1}
    scores = _of_factors(model, found, 'accuracy')
    if not scores:
      continue
    chance = next(iter(scores.values()))['chance']
    yield _Held(
        label, 'a single image', 'a classifier\'s accuracy',
        {name: (row['accuracy'] - chance) / max(1.0 - chance, 1e-9)
         for name, row in scores.items()},
        {name: _percent(row['accuracy'], 1) for name, row in scores.items()},
        _percent(chance, 1))


def _of_new_groups(model: Model, rows: Iterable[Mapping[str, Any]]
                   ) -> Iterator[_Held]:
  label = model.groupings[0] if model.groupings else 'group'
  found = {row['code']: row for row in rows
           if row.get('score', 'cosine') == 'cosine'}
  scores = _of_factors(model, found, 'auc')
  if not scores:
    return
  yield _Held(
      label, 'a single image of a group never seen in training',
      'the area under the ROC curve, when the codes of two images are '
      'compared,',
      {name: 2.0 * row['auc'] - 1.0 for name, row in scores.items()},
      {name: f'{row["auc"]:.3f}' for name, row in scores.items()}, '0.5')


def _said(held: Sequence[_Held]) -> str:
  """A sentence in words, and one with the scores behind them."""
  first, *others = held
  which = f' on the {first.label}' if others else ''
  shares = [
      f'The {first.label} of {first.whose} can be recognised {_shares(first)}',
      *(f'its {of.label} {_shares(of)}' for of in others)]
  scores = [
      f'{first.score}{which} is {_scores(first)}',
      *(f'on the {of.label}, it is {_scores(of)}' for of in others)]
  return (f'{"; ".join(shares)}. Here 0 % is chance and 100 % a perfect score: '
          f'{"; ".join(scores)}.')


def _shares(of: _Held) -> str:
  said = []
  for name, share in of.shares.items():
    how_well = next(words for limit, words in _HOW_WELL if share < limit)
    said.append(f'from {name} {how_well} ({_percent(max(share, 0.0), 0)})')
  return ', '.join(said)


def _scores(of: _Held) -> str:
  found = ', '.join(f'{text} with {name}' for name, text in of.scores.items())
  return f'{found}, and {of.chance} by chance'


def _percent(share: float, digits: int) -> str:
  return f'{100 * share:.{digits}f} %'


def _of_factors(model: Model, rows: Mapping[str, Mapping[str, Any]],
                field: str) -> dict[str, Mapping[str, Any]]:
  """The rows of the factors; {} unless they all say something."""
  found = {f.name: rows[f.name] for f in model.factors if f.name in rows}
  for row in found.values():
    if row.get(field) is None or not math.isfinite(row[field]) or (
        'examples' in row and caveat(row['examples'], row['labels'])):
      return {}
  return found
