"""What a run's codes hold, in words: the first sentences of its report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
import math
from typing import Any

from experiments.evaluation.meaning import caveat
from experiments.evaluation.wording import worded
from mlvae_jax.model.model import Model

# Words for a share of the way from chance to a perfect score, below each limit.
# The share itself stands next to its word, since any limit is near some run's.
_AMOUNTS = ((0.05, 'almost none'), (1 / 3, 'little'), (2 / 3, 'some'),
            (0.9, 'most'), (float('inf'), 'nearly all'))


def verdict(model: Model, evaluation: Mapping[str, Any]) -> str:
  """Says of each label how much of it the codes of single images hold.

  Args:
    model: model of the run.
    evaluation: content of evaluation.json.

  Returns:
    Sentences on each label by which a factor is grouped, or on the first of
    them where groups never seen in training are recognised; '' if nothing was
    scored, or from too few examples to say anything.
  """
  recognised = evaluation.get('verification') or []
  predicted = evaluation.get('factors') or evaluation.get('probes') or []
  sentences = list(_of_new_groups(model, recognised)) if recognised else list(
      _of_labels(model, predicted))
  return worded(model, ' '.join(sentences))


def _of_labels(model: Model, rows: Iterable[Mapping[str, Any]]
               ) -> Iterator[str]:
  for label in model.groupings:
    found = {
        row['code']: row for row in rows
        if row.get('label', label) == label and row['source'] == 'mean'
        and row.get('k', 1) == 1}
    scores = _of_factors(model, found, 'accuracy')
    if not scores:
      continue
    chance = next(iter(scores.values()))['chance']
    yield _said(
        f'the {label} of a single image', 'a classifier\'s accuracy is',
        {name: (row['accuracy'] - chance) / max(1.0 - chance, 1e-9)
         for name, row in scores.items()},
        {name: _percent(row['accuracy'], 1) for name, row in scores.items()},
        _percent(chance, 1))


def _of_new_groups(model: Model, rows: Iterable[Mapping[str, Any]]
                   ) -> Iterator[str]:
  label = model.groupings[0] if model.groupings else 'group'
  found = {row['code']: row for row in rows
           if row.get('score', 'cosine') == 'cosine'}
  scores = _of_factors(model, found, 'auc')
  if not scores:
    return
  yield _said(
      f'the {label} of a single image of a group never seen in training',
      'the area under the ROC curve, when the codes of two images are '
      'compared, is',
      {name: 2.0 * row['auc'] - 1.0 for name, row in scores.items()},
      {name: f'{row["auc"]:.3f}' for name, row in scores.items()}, '0.5')


def _said(what: str, score: str, shares: Mapping[str, float],
          scores: Mapping[str, str], chance: str) -> str:
  """A sentence in words, and one with the scores behind them."""
  held, verb = [], ' holds'
  for name, share in shares.items():
    amount = next(word for limit, word in _AMOUNTS if share < limit)
    held.append(f'{name}{verb} {amount} ({_percent(max(share, 0.0), 0)})')
    verb = ''
  found = ', '.join(f'{text} with {name}' for name, text in scores.items())
  return (f'Of the information about {what}, {", ".join(held)}. Here 0 % is '
          f'chance and 100 % a perfect score: {score} {found}, and {chance} by '
          'chance.')


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
