"""Summary of the images that cannot be used: the commonest problem."""

from __future__ import annotations

from collections.abc import Callable
import json
import re

# Parts of a message that belong to one file: numbers, and names in quotes.
_PARTICULAR = re.compile(r"'[^']*'|\"[^\"]*\"|[-+]?\d+(\.\d+)?(e[-+]?\d+)?")
_MAX_KINDS = 1000  # Bounds the memory; a common problem is among the first.
_PLURALS = (
    ('is not an image', 'are not images'), ('is not a file', 'are not files'),
    ('is ', 'are '), ('has ', 'have '), ('holds ', 'hold '),
    ('lies ', 'lie '), ('cannot ', 'cannot '))


def summary(path: str, mend: Callable[[str, str], str]) -> str:
  """The commonest problem, its frequency, and what to do about it.

  Problems that differ only in numbers and names are counted together.

  Args:
    path: path of a bad_images.jsonl.
    mend: function from the place of a problem and the problem to advice on it,
      or ''.

  Returns:
    A phrase, which ends with the path if the file names any problem.
  """
  kinds: dict[str, list[tuple[str, str] | int]] = {}
  num_bad = 0
  with open(path, encoding='utf-8') as file:
    for line in file:
      row = json.loads(line)
      num_bad += 1
      kind = _PARTICULAR.sub('#', row['problem'])
      if kind in kinds or len(kinds) < _MAX_KINDS:
        first = kinds.setdefault(kind, [row['where'], row['problem'], 0, 0])
        first[2] += 1
        first[3] += row['problem'] == first[1]
  if not num_bad:
    return 'it contains no images; check --data_dir'
  where, problem, count, num_same = max(
      kinds.values(), key=lambda kind: kind[2])
  share = 'the only one' if num_bad == 1 else f'{count:,} of {num_bad:,}'
  remedy = mend(where, problem)
  return '; '.join(filter(None, (
      f'{share} {_predicate(problem, count)}' if num_same == count
      else f'{share} are like {where}: {problem}', remedy, f'see {path}')))


def _predicate(problem: str, count: int) -> str:
  """A problem as the predicate of a number of images; not all are verbs."""
  for one, many in _PLURALS:
    if problem.startswith(one):
      return (one if count == 1 else many) + problem.removeprefix(one)
  return f'{"has" if count == 1 else "have"} this problem: {problem}'
