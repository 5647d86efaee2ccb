"""Tables of how well groups never seen in training are recognised.

Of the sections "verification" and "few_shot" of evaluation.json, which
`recognition_rows.py` makes; nothing is shown of one that is missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import math
from typing import Any

from experiments.evaluation import meaning, web
from mlvae_jax.model.model import Model

_SUMMARY = ((1, False), (5, False), (5, True))  # Shots, fused.

Rows = list[dict[str, Any]]


def by_score(rows: Rows | None, key: str) -> dict[tuple[str, str], float]:
  """A number of "verification": {(code, score): value}.

  Args:
    rows: of the section; None where there is none.
    key: of the number.

  Returns:
    The numbers that are there: neither None nor NaN.
  """
  return {(row['code'], row['score']): row[key]
          for row in rows or [] if _is_number(row[key])}


def by_gallery(rows: Rows | None
               ) -> dict[tuple[str, bool, bool], dict[int, dict[str, Any]]]:
  """The rows of "few_shot": {(code, many, fused): {shots: row}}.

  Args:
    rows: of the section; None where there is none.

  Returns:
    Sorted by many and fused under each code. `many` is False for the fewest
    groups to choose from at a number of shots, and True for more. A gallery
    of one image is the same fused or not, so its row stands for both.
  """
  rows = rows or []
  fewest = {}
  for row in rows:
    shots, ways = row['shots'], row['ways']
    fewest[shots] = min(ways, fewest.get(shots, ways))
  table = {}
  for row in rows:
    many = row['ways'] > fewest[row['shots']]
    table.setdefault((row['code'], many, row['fused']), {})[row['shots']] = row
  for (code, many, fused), found in table.items():
    alone = table.get((code, many, False), {}).get(1)
    if fused and alone:
      found.setdefault(1, alone)
  codes = list(dict.fromkeys(row['code'] for row in rows))
  return dict(sorted(
      table.items(), key=lambda item: (codes.index(item[0][0]), item[0])))


def ways_of(*galleries: dict[int, dict[str, Any]]) -> str:
  """From how many groups one is chosen, as '20' or '12–20'."""
  ways = {row['ways'] for found in galleries for row in found.values()}
  return '–'.join(map(str, sorted({min(ways), max(ways)})))


def section(model: Model, evaluation: dict[str, Any], figure: str = '') -> str:
  """The report's section on groups never seen.

  Args:
    model: the rows of its factors are bold.
    evaluation: the contents of evaluation.json.
    figure: HTML that goes first.

  Returns:
    HTML with a heading; '' where nothing was measured.
  """
  own = [factor.name for factor in model.factors]
  parts = [_verification(evaluation.get('verification'), own),
           _few_shot(evaluation.get('few_shot'), own)]
  if not any(parts):
    return ''
  return '\n'.join(
      ['<h2>Recognising groups never seen</h2>', figure, *filter(None, parts)])


def _verification(rows: Rows | None, own: Sequence[str]) -> str:
  if not rows:
    return ''
  auc, accuracy = (
      by_score(rows, key) for key in ('auc', 'equal_error_accuracy'))
  cells = [
      [code, _cell(auc.get((code, 'cosine')), 3),
       _cell(accuracy.get((code, 'cosine')), 1, 100),
       _cell(auc.get((code, 'evidence_ratio')), 3)]
      for code in dict.fromkeys(row['code'] for row in rows)]
  caveats = _caveats(rows, [], ('AUC', 'accuracy'))
  mark = '*' if caveats else ''
  return (
      '<h3>Verification: do two images show the same group?</h3>'
      f'<p>{rows[0]["num_same"]:,} pairs of images of one group are compared '
      f'with {rows[0]["num_different"]:,} pairs of two groups, every image '
      'encoded alone (strategy 1). AUC is how '
      'often a pair of one group gets the higher score: 0.5 is chance, 1 is '
      'perfect.</p>' + web.table(
          ['code', *(name + mark for name in (
              'AUC, cosine', 'accuracy at equal error, cosine, %',
              'AUC, evidence ratio'))], cells, bold=own)
      + web.footnotes(meaning.footnotes(caveats)))


def _few_shot(rows: Rows | None, own: Sequence[str]) -> str:
  if not rows:
    return ''
  table, shots = by_gallery(rows), sorted({row['shots'] for row in rows})
  cells = [
      [code, ways_of(found), 'yes' if fused else 'no',
       *_percents(found, 'accuracy', shots)]
      for (code, _, fused), found in table.items()]
  cells += [
      ['chance', ways_of(found), '', *_percents(found, 'chance', shots)]
      for found in _longest(table).values()]
  caveats = _caveats([], rows)
  headings = (name + '*' * (name in caveats) for name in map(_shots, shots))
  return (
      '<h3>Few-shot: which group does an image belong to? Accuracy in %</h3>'
      '<p>In each of many random trials a few images of every group (the '
      'shots) are given, and the other images go to the group of the most '
      'similar code, by the cosine of the means. Fused (strategy 2): the shots '
      'of a group make one code, the product of their Normals; else '
      '(strategy 1) the nearest single image '
      f'decides.{_largest_error(rows)}</p>' + web.table(
          ['code', 'groups', 'fused', *headings], cells, bold=own)
      + web.footnotes(meaning.footnotes(caveats)))


def summary_lines(evaluation: dict[str, Any], width: int) -> list[str]:
  """The main numbers for the terminal: AUC, and accuracies of few shots.

  Args:
    evaluation: the contents of evaluation.json.
    width: characters for a code, 24 to 36.

  Returns:
    Lines of at most 79 characters; none where nothing was measured.
  """
  few = {(code, fused): found for (code, many, fused), found in by_gallery([
      row for row in evaluation.get('few_shot') or []
      if (row['shots'], row['fused']) in _SUMMARY]).items() if not many}
  columns = [_auc_column(evaluation.get('verification'))]
  columns += [_few_shot_column(few, *setting) for setting in _SUMMARY]
  columns = [column for column in columns if column[1]]
  if not columns:
    return []
  ways = ways_of(*few.values()).replace('–', '-') if few else None
  notes = meaning.footnotes(_caveats(
      evaluation.get('verification') or [],
      [row for found in few.values() for row in found.values()]))
  title = f'unseen groups, {ways}-way in %' if few else 'unseen groups'
  title += '*' if notes else ''
  lines = [title[:width + 7].ljust(width + 7)
           + ''.join(f'{name:>8}' for name, *_ in columns)]
  for code in dict.fromkeys(code for _, cells, _ in columns for code in cells):
    lines.append(code[:width].ljust(width + 7) + ''.join(
        f'{cells.get(code, "-"):>8}' for _, cells, _ in columns))
  return [*lines, 'chance'.ljust(width + 7)
          + ''.join(f'{chance:>8}' for *_, chance in columns), *notes]


def _caveats(verification: Rows, few_shot: Rows,
             verified: Sequence[str] = ('AUC',)) -> dict[str, str]:
  """Which numbers mean nothing or little, and why.

  Args:
    verification: rows of that section.
    few_shot: rows of that section.
    verified: names of the numbers of "verification".

  Returns:
    A caveat by name, or by '1 shot'; only where there is one.
  """
  said = dict.fromkeys(
      verified, meaning.caveats(verification, 'strategy').get(1))
  said |= {_shots(n): why for n, why in sorted(
      meaning.caveats(few_shot, 'shots').items())}
  return {name: why for name, why in said.items() if why}


def _auc_column(rows: Rows | None) -> tuple[str, dict[str, str], str]:
  """For the terminal: heading, cells by code, and chance."""
  cells = {code: _cell(value, 3) for (code, score), value
           in by_score(rows, 'auc').items() if score == 'cosine'}
  return 'AUC', cells, _cell(0.5, 3)


def _few_shot_column(few: dict[tuple[str, bool], dict[int, dict[str, Any]]],
                     shots: int, fused: bool
                     ) -> tuple[str, dict[str, str], str]:
  """For the terminal: heading, cells by code, and chance."""
  rows = {code: found[shots] for (code, is_fused), found in few.items()
          if is_fused == fused and shots in found}
  cells = {code: _cell(row['accuracy'], 1, 100)
           for code, row in rows.items() if _is_number(row['accuracy'])}
  chance = next((row['chance'] for row in rows.values()), None)
  return f'{shots} fused' if fused else _shots(shots), cells, _cell(
      chance, 1, 100)


def _percents(found: dict[int, dict[str, Any]], key: str,
              shots: Iterable[int]) -> list[str]:
  return [_cell(found.get(n, {}).get(key), 1, 100) for n in shots]


def _longest(table: dict[tuple[str, bool, bool], dict[int, dict[str, Any]]]
             ) -> dict[bool, dict[int, dict[str, Any]]]:
  """For few and for many groups, rows of the most numbers of shots."""
  longest = {}
  for (_, many, _), found in table.items():
    longest[many] = max(longest.get(many, {}), found, key=len)
  return longest


def _largest_error(rows: Rows) -> str:
  errors = [row['standard_error'] for row in rows
            if _is_number(row['standard_error'])]
  if not errors:
    return ''
  return (' Over the trials, the standard errors are at most '
          f'{100 * max(errors):.1f} points.')


def _shots(count: int) -> str:
  return '1 shot' if count == 1 else f'{count} shots'


def _cell(value: float | None, digits: int, scale: float = 1) -> str:
  return f'{scale * value:,.{digits}f}' if _is_number(value) else '–'


def _is_number(value: float | None) -> bool:
  return value is not None and not math.isnan(value)
