"""The model card of a run: what it is, what it was measured to do, its limits.

After Mitchell et al. 2019 (arXiv 1810.03993), as a Markdown file that can go
with the model where the report does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
import re

from experiments.config.settings import Config
from experiments.evaluation.formatting import plain
from experiments.evaluation.registry import SHOWN
from experiments.evaluation.section import Results
from experiments.evaluation.verdict import verdict
from experiments.evaluation.versions import versions
from experiments.evaluation.wording import worded
from mlvae_jax.model.model import Model

# What holds for every run, whatever its numbers are.
_LIMITS = (
    'The numbers above are from data like those of training. On other data '
    'measure again: python -m experiments.evaluate.',
    'A classifier that does not find a label in a code does not show that the '
    'label is not there: a stronger one may find it. Means can hold what '
    'samples do not; where a code must not reveal something, use samples.',
    'The ELBO and the importance-weighted bounds are lower bounds on the log '
    'likelihood. They can be compared only between models of the same data '
    'and the same kind of likelihood.')
_OF_PEOPLE = (
    'The groups are people. The codes can be used to recognise people, and '
    'were not checked for differences between groups of people: do not use '
    'them for decisions about people.')


def model_card(results: Results, config: Config, kind: str, steps: int) -> str:
  """Writes the model card of a run.

  Args:
    results: results of the run; without an evaluation the card says so.
    config: settings of the run.
    kind: kind of observations, such as '28x28 grey images'.
    steps: number of steps that were trained.

  Returns:
    Markdown.
  """
  model = results.model
  name = 'Multi-Level VAE' if model.grouped else 'VAE'
  return '\n'.join([
      f'# {name} on {config.dataset}', '',
      _escape(verdict(model, results.evaluation) or (
          'What the codes hold was not measured, or was measured on too few '
          'examples to tell.' if results.evaluation else
          'This model has not been evaluated.')), '',
      '## Model and data', '',
      *_table(('', ''), _facts(model, config, kind, steps)), '',
      '## Numbers', '', *_numbers(results), '',
      '## Limits', '', *(f'- {_escape(line)}' for line in _limits(
          results, config)), '',
      '## Software', '',
      ', '.join(f'{name} {number}' for name, number in versions().items())
      + '.', ''])


def _facts(model: Model, config: Config, kind: str, steps: int
           ) -> Iterator[tuple[str, str]]:
  unit = worded(model, 'image')
  yield 'observations', kind
  yield 'data', config.dataset + (
      f', read from {config.data_dir}' if config.data_dir else '')
  for factor in model.factors:
    given = f', given {", ".join(factor.given)}' if factor.given else ''
    yield f'factor {factor.name}', (
        f'{factor.dim} dimensions, one code per {factor.grouping or unit}'
        f'{given}')
  yield 'network, likelihood', f'{config.network}, {config.likelihood}'
  yield 'evidence', config.evidence
  yield 'penalties', config.penalties or 'none'
  yield 'training', f'{steps:,} steps, seed {config.seed}'


def _numbers(results: Results) -> Iterable[str]:
  pairs = [pair for section in SHOWN for pair in section.key_numbers(results)]
  if not pairs:
    return ['None were measured: python -m experiments.evaluate.']
  split = str(results.evaluation.get('protocol', {}).get('split', 'test'))
  return [
      f'On the {_escape(split)} split; controls and details are in '
      'evaluation.json and report.html.', '',
      *_table(('number', 'value'), pairs)]


def _limits(results: Results, config: Config) -> Iterator[str]:
  for warning in results.evaluation.get('warnings') or []:
    yield f'{warning[:1].upper()}{warning[1:]}.'
  yield from (worded(results.model, line) for line in _LIMITS)
  if config.dataset.startswith('celeb'):
    yield _OF_PEOPLE


def _table(heading: tuple[str, str], rows: Iterable[tuple[str, str]]
           ) -> list[str]:
  return [f'| {heading[0]} | {heading[1]} |', '|---|---|',
          *(f'| {_escape(name)} | {_escape(plain(value))} |'
            for name, value in rows)]


def _escape(text: str) -> str:
  """Text in which nothing means anything to Markdown or HTML."""
  # Names of files may hold what is not UTF-8.
  text = ' '.join(text.encode('utf-8', 'replace').decode('utf-8').split())
  return re.sub(r'([\\`*_{}\[\]<>#|&~$])', r'\\\1', text)
