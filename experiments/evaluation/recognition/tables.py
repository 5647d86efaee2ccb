"""Tables of the recognition of groups never seen in training.

They show "verification" and "few_shot", each only if it was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
import html
from typing import Any

from experiments.evaluation import meaning, web
from experiments.evaluation.formatting import number, terminal_row
from experiments.evaluation.recognition.galleries import (
    FIVE,
    FUSED,
    KEY_SHOTS,
    NEAREST,
    POSTERIOR,
    SIZES,
    USUAL,
    Gallery,
    by_gallery,
    method_of,
    of_size,
    ways_of,
)
from experiments.evaluation.recognition.rows import Rows, by_score, is_number
from experiments.evaluation.section import Evaluation, Pairs, Results
from experiments.evaluation.wording import worded

_SUMMARY = ((1, NEAREST), (5, NEAREST), (5, FUSED))  # Shots, method.


def key_numbers(results: Results) -> Pairs:
  """The AUC of the model's factors."""
  auc = by_score(results.evaluation.get('verification'), 'auc')
  return [(f'{f.name} verification AUC', number(auc[f.name, 'cosine'], 3))
          for f in results.model.factors if (f.name, 'cosine') in auc]


def report(results: Results) -> str:
  """Tables of verification and few-shot recognition.

  Args:
    results: results of the run; the figure "recognition" comes first.

  Returns:
    HTML with a heading; '' if nothing was measured.
  """
  own = [factor.name for factor in results.model.factors]
  parts = [_verification(results, own), _few_shot(results, own)]
  if not any(parts):
    return ''
  return '\n'.join(['<h2>Recognising groups never seen</h2>',
                    _held_out(results.evaluation),
                    results.figures.get('recognition', ''),
                    *filter(None, parts)])


def _held_out(evaluation: Evaluation) -> str:
  """What else was never seen, if images were split by another grouping."""
  name = evaluation.get('protocol', {}).get('split_by', 'group')
  if name in ('image', 'group'):
    return ''
  name = html.escape(name)
  return (f'<p>No other group of the same {name} was seen in training either: '
          f'images were split by {name}.</p>')


def _verification(results: Results, own: Sequence[str]) -> str:
  rows = results.evaluation.get('verification')
  if not rows:
    return ''
  auc, accuracy = (
      by_score(rows, key) for key in ('auc', 'equal_error_accuracy'))
  cells = [
      [code, number(auc.get((code, 'cosine')), 3),
       number(accuracy.get((code, 'cosine')), 1, 100),
       number(auc.get((code, 'evidence_ratio')), 3)]
      for code in dict.fromkeys(row['code'] for row in rows)]
  caveats = _caveats(rows, [], ('AUC', 'accuracy'))
  mark = '*' if caveats else ''
  return worded(results.model, (
      '<h3>Verification: do two images show the same group?</h3>'
      f'<p>{rows[0]["num_same"]:,} pairs of images from one group are compared '
      f'with {rows[0]["num_different"]:,} pairs from two groups, with every '
      'image encoded alone (strategy 1). AUC is the frequency with which a '
      'pair from one group gets the higher score: 0.5 is chance, 1 is '
      'perfect.</p>')) + (web.table(
          ['code', *(name + mark for name in (
              'AUC, cosine', 'accuracy at equal error, cosine, %',
              'AUC, evidence ratio'))], cells, bold=own)
      + web.footnotes(meaning.footnotes(caveats)))


def _few_shot(results: Results, own: Sequence[str]) -> str:
  rows = results.evaluation.get('few_shot')
  if not rows:
    return ''
  table, shots = by_gallery(rows), sorted({row['shots'] for row in rows})
  cells = [
      [code, ways_of(found), method,
       *(_accuracy(found.get(n, {})) for n in shots)]
      for (code, _, method), found in table.items()]
  cells += [
      ['chance', ways_of(found), '',
       *(_percent(found.get(n, {}).get('chance')) for n in shots)]
      for found in _longest(table).values()]
  caveats = _caveats([], [row for (_, size, _), found in table.items()
                          if size != FIVE for row in found.values()])
  headings = (name + '*' * (name in caveats)
              for name in (meaning.count(n, 'shot') for n in shots))
  return worded(results.model, (
      '<h3>Few-shot: which group does an image belong to? Accuracy in %</h3>'
      '<p>In each of many random trials, a few images of every group (the '
      'shots) are given, and each of the other images is assigned to a group. '
      'Nearest (strategy 1): to the group of the shot with the most similar '
      'code, by the cosine of the means. Fused (strategy 2): the same, but the '
      'shots of a group are combined into one code. Posterior: to the '
      'group under whose posterior, given its shots, the image is most '
      f'likely.{_meaning_of_margins(rows)}</p>')) + (web.table(
          ['code', 'groups', 'method', *headings], cells, bold=own)
      + web.footnotes(meaning.footnotes(caveats)))


def summary(evaluation: Evaluation, width: int) -> list[str]:
  """The AUC and few-shot accuracies, for the terminal.

  Args:
    evaluation: content of evaluation.json.
    width: maximum length of a code's name, 24 to 36.

  Returns:
    Lines of at most 79 characters; none if nothing was measured.
  """
  rows = evaluation.get('few_shot') or []
  few = of_size([row for row in rows
                 if (row['shots'], method_of(row)) in _SUMMARY], USUAL)
  columns = [_auc_column(evaluation.get('verification'))]
  columns += [_few_shot_column(few, *setting) for setting in _SUMMARY]
  # Small data sets allow few shots only, or no pairs.
  columns = [column for column in columns if column[1]]
  if not columns:
    return []
  ways = ways_of(*few.values()).replace('–', '-') if few else None  # ASCII.
  notes = meaning.footnotes(_caveats(
      evaluation.get('verification') or [],
      [row for found in few.values() for row in found.values()]))
  title = f'unseen groups, {ways}-way in %' if few else 'unseen groups'
  title += '*' if notes else ''
  lines = [terminal_row(title, (name for name, *_ in columns), width, 8)]
  for code in dict.fromkeys(code for _, cells, _ in columns for code in cells):
    lines.append(terminal_row(
        code[:width], (cells.get(code, '-') for _, cells, _ in columns), width,
        8))
  chances = (chance for *_, chance in columns)
  return [*lines, terminal_row('chance', chances, width, 8), *notes,
          *_by_posterior(rows, width)]


def _by_posterior(rows: Rows, width: int) -> list[str]:
  """Lines on codes that are also classified by posterior, for the terminal."""
  tables = {size: of_size(rows, size) for size in (FIVE, USUAL)}
  columns = [(size, shots) for size in tables for shots in KEY_SHOTS if any(
      method == POSTERIOR and shots in found
      for (_, method), found in tables[size].items())]
  if not columns:
    return []
  heads = [f'{ways_of(*tables[size].values())}-way:{shots}'.replace('–', '-')
           for size, shots in columns]
  lines = [terminal_row('by posterior; WAYS:SHOTS', heads, width, 9)]
  for method in (FUSED, POSTERIOR):
    lines += [
        terminal_row(
            f'{code[:width - 12]}, {"cosine" if method == FUSED else method}',
            (_cell(tables[size], code, method, shots)
             for size, shots in columns), width, 9)
        for code, other in dict.fromkeys(
            key for table in tables.values() for key in table)
        if other == POSTERIOR]
  return lines


def _cell(table: dict[tuple[str, str], Gallery], code: str, method: str,
          shots: int) -> str:
  """An accuracy in %; '-' if it was not measured."""
  row = table.get((code, method), {}).get(shots, {})
  value = row.get('accuracy')
  return number(value, 1, 100) if is_number(value) else '-'


def _caveats(verification: Rows, few_shot: Rows,
             verified: Sequence[str] = ('AUC',)) -> dict[str, str]:
  """The caveats of numbers that mean nothing or little.

  Args:
    verification: rows of that section.
    few_shot: rows of that section.
    verified: names of the numbers of "verification".

  Returns:
    Caveats by name, or by number of shots such as '1 shot'; numbers without a
    caveat are missing.
  """
  said = dict.fromkeys(
      verified, meaning.caveats(verification, 'strategy').get(1))
  said |= {meaning.count(n, 'shot'): why for n, why in sorted(
      meaning.caveats(few_shot, 'shots').items())}
  return {name: why for name, why in said.items() if why}


def _auc_column(rows: Rows | None) -> tuple[str, dict[str, str], str]:
  """A column for the terminal: heading, cells by code, and chance."""
  cells = {code: number(value, 3) for (code, score), value
           in by_score(rows, 'auc').items() if score == 'cosine'}
  return 'AUC', cells, number(0.5, 3)


def _few_shot_column(few: dict[tuple[str, str], Gallery], shots: int,
                     method: str) -> tuple[str, dict[str, str], str]:
  """A column for the terminal: heading, cells by code, and chance."""
  rows = {code: found[shots] for (code, other), found in few.items()
          if other == method and shots in found}
  cells = {code: number(row['accuracy'], 1, 100)
           for code, row in rows.items() if is_number(row['accuracy'])}
  chance = next((row['chance'] for row in rows.values()), None)
  return (f'{shots} fused' if method == FUSED else meaning.count(shots, 'shot'),
          cells, number(chance, 1, 100))


def _accuracy(row: dict[str, Any]) -> str:
  """An accuracy in %, with half its confidence interval if there is one."""
  margin = row.get('margin')
  return _percent(row.get('accuracy')) + (
      f' ± {_percent(margin)}' if is_number(margin) else '')


def _percent(value: float | None) -> str:
  return number(value if is_number(value) else None, 1, 100)


def _longest(table: dict[tuple[str, str, str], Gallery]
             ) -> dict[str, Gallery]:
  """The rows of the code with most numbers of shots, by size."""
  longest = {}
  for size in SIZES:
    found = [rows for (_, other, _), rows in table.items() if other == size]
    if found:
      longest[size] = max(found, key=len)
  return longest


def _meaning_of_margins(rows: Rows) -> str:
  return (' ±: half of the 95 % confidence interval over the trials.'
          if any(is_number(row.get('margin')) for row in rows) else '')
