"""The output of a study: table, figures and page, written after each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import os
import shlex
from typing import Any

from experiments.evaluation import web
from experiments.studies import plan, state, table
from experiments.studies.definition import Study
from experiments.studies.plan import Run
from experiments.studies.table import Numbers
from mlvae_jax.files import write_atomically

_MISSING = (
    '<p class="missing">No evaluation has a number for {}: check section, '
    'where and field of the column in {}. If several rows match, the column '
    'needs reduce.</p>')


def write(study: Study, runs: Sequence[Run], output: str) -> str:
  """Writes the output of a study so far, each file completely or not at all.

  Args:
    study: the study.
    runs: all its runs, complete or not.
    output: existing folder of the study.

  Returns:
    The path of the page.
  """
  evaluations = list(map(state.read_numbers, runs))
  numbers = Numbers(study, runs, evaluations)
  for name, content in (('table.md', table.as_markdown(numbers)),
                        ('table.csv', table.as_csv(numbers))):
    write_atomically(os.path.join(output, name), content)
  path = os.path.join(output, 'index.html')
  write_atomically(path, web.page(study.title, [
      f'<h1>{web.escape(study.title)}</h1>',
      f'<p>{web.escape(study.about)}</p>' if study.about else '',
      _progress(evaluations), *_tables(numbers), *_figures(numbers, output),
      '<h2>Runs</h2>', _runs(runs, evaluations),
      '<h2>Commands</h2>', _commands(runs),
      '<h2>Software</h2>', _software(runs)]))
  return path


def command(words: Sequence[str]) -> str:
  """A command as it is typed."""
  return shlex.join(['python', *words[1:]])


def _progress(evaluations: Sequence[Mapping[str, Any]]) -> str:
  done = sum(map(bool, evaluations))
  return '' if done == len(evaluations) else (
      f'<p class="missing">{done} of {len(evaluations)} runs are complete.</p>')


def _tables(numbers: Numbers) -> list[str]:
  study = numbers.study
  if not study.columns:
    return []
  parts = ['<h2>Results</h2>']
  for data in study.data:
    if data.name:
      parts.append(f'<h3>{web.escape(data.label)}</h3>')
    parts.append(web.table(table.head(study), table.rows(numbers, data)))
  parts.append(f'<p class="soft">{web.escape(table.note(study))}</p>')
  if numbers.missing:
    parts.append(_MISSING.format(*map(web.escape, (
        ', '.join(numbers.missing), study.path))))
  return parts


def _figures(numbers: Numbers, output: str) -> list[str]:
  """Draws the figures of which there are numbers."""
  if not numbers.study.figures:
    return []
  # Slow to import.
  import matplotlib

  from experiments.pictures.sheets import STYLE, save
  from experiments.studies import chart

  parts = []
  with matplotlib.rc_context(STYLE):
    for scatter in numbers.study.figures:
      if drawing := chart.draw(numbers, scatter):
        path = os.path.join(output, f'{scatter.name}.png')
        save(drawing, path)
        parts.append(web.figure(path, scatter.name))
  return ['<h2>Figures</h2>', *parts] if parts else []


def _runs(runs: Sequence[Run], evaluations: Sequence[Mapping[str, Any]]
          ) -> str:
  """A table of the runs, with the time when a complete one ended."""
  found = []
  for run, evaluation in zip(runs, evaluations):
    record = state.read_record(run) if evaluation else {}
    found.append([run.name, record.get('finished', '–'), run.workdir])
  return web.table(['run', 'finished', 'folder'], found, words=True)


def _commands(runs: Sequence[Run]) -> str:
  lines = [command(words) for run in runs if run.config is not None
           for words in plan.commands(run)]
  text = '\n'.join(lines)
  return f'<pre>{web.escape(text)}</pre>'


def _software(runs: Sequence[Run]) -> str:
  """The versions that the complete runs recorded."""
  found: dict[str, list[str]] = {}
  for run in runs:
    for name, version in state.read_record(run).get('versions', {}).items():
      if version not in found.setdefault(name, []):
        found[name].append(version)
  return web.table(['package', 'version'], [
      [name, ', '.join(there)] for name, there in found.items()], words=True)
