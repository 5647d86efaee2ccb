"""What a run's codes hold, in words: the first sentences of its report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
import math
from typing import Any

from experiments.evaluation.meaning import caveat
from experiments.evaluation.wording import worded
from mlvae_jax.model.model import Model

# Words for the share of what can be predicted above chance, below each limit.
_AMOUNTS = ((0.03, 'almost none'), (0.15, 'little'), (0.5, 'some'),
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
    shares = {name: (row['accuracy'] - chance) / max(1.0 - chance, 1e-9)
              for name, row in scores.items()}
    said = ', '.join(f'{name} {row["accuracy"]:.1%}'.replace('%', ' %')
                     for name, row in scores.items())
    yield (f'A classifier predicts the {label} of a single image from its '
           f'code. Accuracy: {said} (chance {100 * chance:.1f} %). '
           f'{_held(shares)}.')


def _of_new_groups(model: Model, rows: Iterable[Mapping[str, Any]]
                   ) -> Iterator[str]:
  label = model.groupings[0] if model.groupings else 'group'
  found = {row['code']: row for row in rows
           if row.get('score', 'cosine') == 'cosine'}
  scores = _of_factors(model, found, 'auc')
  if not scores:
    return
  said = ', '.join(f'{name} {row["auc"]:.3f}' for name, row in scores.items())
  shares = {name: 2.0 * row['auc'] - 1.0 for name, row in scores.items()}
  yield (f'Two images of groups never seen in training are compared by their '
         f'codes: do they have the same {label}? Area under the ROC curve: '
         f'{said} (chance 0.5). {_held(shares)}.')


def _held(shares: Mapping[str, float]) -> str:
  """'Of this information, content holds nearly all, style little'."""
  said, verb = [], ' holds'
  for name, share in shares.items():
    amount = next(word for limit, word in _AMOUNTS if share < limit)
    said.append(f'{name}{verb} {amount}')
    verb = ''
  return f'Of this information, {", ".join(said)}'


def _of_factors(model: Model, rows: Mapping[str, Mapping[str, Any]],
                field: str) -> dict[str, Mapping[str, Any]]:
  """The rows of the factors; {} unless they all say something."""
  found = {f.name: rows[f.name] for f in model.factors if f.name in rows}
  for row in found.values():
    if row.get(field) is None or not math.isfinite(row[field]) or (
        'examples' in row and caveat(row['examples'], row['labels'])):
      return {}
  return found
