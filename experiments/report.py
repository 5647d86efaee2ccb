"""Writes one self-contained report.html about a run.

  python -m experiments.report --workdir=runs/mnist5k-mlvae

It shows the numbers of evaluation.json, the figures with their captions, the
configuration, and how to load the model. For each missing part it names the
command that makes it. A model card, model_card.md, is written beside it.
"""

from __future__ import annotations

import json
import os
import statistics
import textwrap
from typing import Any

from absl import flags

from experiments import cli
from experiments.config import options
from experiments.config.settings import Config, to_json
from experiments.evaluation import web
from experiments.evaluation.card import model_card
from experiments.evaluation.formatting import plain
from experiments.evaluation.registry import CHARTS, SECTIONS, SHOWN
from experiments.evaluation.results import as_written, read_evaluation
from experiments.evaluation.section import Evaluation, Pairs, Results
from experiments.evaluation.verdict import verdict
from experiments.evaluation.versions import versions
from experiments.evaluation.wording import shows_images, worded
from experiments.explorer import page as explorer
from experiments.pictures.registry import PICTURES
from experiments.runs.reading import read_run
from experiments.runs.workdir import SCALE_FILE, require_workdir
from mlvae_jax.files import write_atomically
from mlvae_jax.model.likelihoods.categorical import Categorical
from mlvae_jax.model.model import Model
from mlvae_jax.training.history import read_metrics

_BAD_IMAGES = 'bad_images.jsonl'
_BAD_IMAGE_COLUMNS = ('where', 'group', 'problem')
_MAX_BAD_IMAGES = 20  # Millions may be bad; the report lists the first.


def main() -> None:
  """Reads the flags and writes the report of a run."""
  print(write(require_workdir(flags.FLAGS.workdir)))


def define_flags() -> None:
  """Defines the flag of this entry point."""
  options.define('workdir')


def write(workdir: str) -> str:
  """Writes a run's report.html, and model_card.md beside it.

  Each is written completely or not at all.

  Args:
    workdir: folder of the run.

  Returns:
    The path of the report.

  Raises:
    UserError: when the workdir holds no run, or a damaged evaluation.json.
  """
  config, run = read_run(workdir)
  model, records = Model.from_dict(run['model']), read_metrics(workdir)
  figures = web.read_figures(workdir)
  explored, lead = explorer.read(workdir), _lead(figures)
  results = Results(workdir, model, read_evaluation(workdir), figures)
  with as_written(workdir, results.evaluation):
    body = _body(results, config, records, explored.body, lead)
    card = model_card(results, config, _kind(config, model),
                      records[-1]['step'] if records else 0)
  path = os.path.join(workdir, 'report.html')
  write_atomically(
      path, web.page(_title(config, model), body, explored.script,
                     explored.style))
  write_atomically(os.path.join(workdir, 'model_card.md'), card)
  return path


def summary(evaluation: Evaluation) -> str:
  """The main numbers of evaluation.json as a table for the terminal.

  Args:
    evaluation: content of the file.

  Returns:
    Lines of at most 79 characters: accuracies in %, chance, label accuracy by
    code, numbers on groups never seen, ELBO per image, and warnings about
    what makes these numbers meaningless.
  """
  # One width for the first column, so that the sections' tables line up.
  codes = [row['code'] for row in evaluation.get('probes') or []]
  width = min(max([24, *map(len, codes)]), 36)
  lines = [line for section in SECTIONS
           for line in section.summary(evaluation, width)]
  for warning in evaluation.get('warnings') or []:
    lines += textwrap.wrap(f'warning: {warning}', 79, subsequent_indent='  ')
  return '\n'.join(lines) or 'not evaluated yet'


# Parts of the page.


def _body(results: Results, config: Config, records: list[dict[str, Any]],
          explored: str, lead: str | None) -> list[str]:
  """All parts, in order; the explorer's is given."""
  workdir, model, _, figures = results
  return [
      f'<h1>{web.escape(_title(config, model))}</h1>', _verdict(results),
      explored,
      f'<div id="lead">{figures[lead]}</div>' if lead else '',
      _intro(workdir, config, model),
      web.key_numbers([
          *(pair for section in SHOWN for pair in section.key_numbers(results)),
          *_key_numbers(model, records)]),
      _warnings(results.evaluation),
      *(section.tables(results) for section in SHOWN if section.tables),
      _plain_tables(results),
      '<h2>Training</h2>', _training(workdir, records, figures),
      '<h2 id="pictures">Pictures</h2>', _pictures(workdir, figures, lead),
      _bad_images(workdir),
      '<h2>Use the model</h2>', _usage(workdir, model),
      '<h2>Configuration</h2>', _configuration(config),
      '<h2>Software</h2>', _software(),
  ]


def _title(config: Config, model: Model) -> str:
  return f'{"Multi-Level VAE" if model.grouped else "VAE"} on {config.dataset}'


def _verdict(results: Results) -> str:
  """What the codes hold, in words."""
  said = verdict(results.model, results.evaluation)
  return f'<p>{web.escape(said)}</p>' if said else ''


def _intro(workdir: str, config: Config, model: Model) -> str:
  """A paragraph on the model and the data."""
  unit = worded(model, 'image')
  factors = ', '.join(
      f'{f.name} ({f.dim} dimensions, one code per {f.grouping or unit})'
      for f in model.factors)
  source = f' from {config.data_dir}' if config.data_dir else ''
  return (
      f'<p class="soft">{_kind(config, model)}{web.escape(source)}. '
      f'Factors: {web.escape(factors)}. Likelihood: '
      f'{web.escape(config.likelihood)}. '
      f'Run: <code>{web.escape(workdir)}</code></p>')


def _kind(config: Config, model: Model) -> str:
  """The kind of observations, as '28×28 grey images'."""
  *sizes, channels = shape = model.observation_shape
  if isinstance(model.likelihood, Categorical):
    return (f'Sentences of {"×".join(map(str, shape))} tokens, of '
            f'{model.likelihood.num_categories} kinds')
  if config.dataset != 'arrays' or shows_images(model):
    colour = {1: 'grey', 3: 'RGB'}.get(channels, f'{channels}-channel')
    return f'{"×".join(map(str, sizes))} {colour} images'
  what = 'Vectors' if len(shape) == 1 else 'Arrays'
  standardised = ', standardised' if config.standardise else ''
  return f'{what} of {"×".join(map(str, shape))} numbers{standardised}'


def _warnings(evaluation: Evaluation) -> str:
  """Warnings about what makes the run, or its scores, meaningless."""
  return '\n'.join(f'<p class="missing">Warning: {web.escape(line)}.</p>'
                   for line in evaluation.get('warnings') or [])


def _plain_tables(results: Results) -> str:
  """Plain tables of rows whose section has no tables, and its charts."""
  shown = {key for section in SECTIONS if section.tables
           for key in section.keys}
  parts = []
  for name, rows in results.evaluation.items():
    if name not in shown | {'warnings'} and rows and isinstance(rows, list):
      # A dict as an ordered set: columns in the order in which they come up.
      columns = list(dict.fromkeys(key for row in rows for key in row))
      heading = web.escape(name.replace('_', ' ').capitalize())
      parts.append(f'<h2>{heading}</h2>' + web.table(
          [c.replace('_', ' ') for c in columns],
          [[plain(row.get(c)) for c in columns] for row in rows]))
  parts += [results.figures.get(name) for section in SECTIONS
            if not section.tables for name in section.charts]
  return web.lines(*parts)


def _key_numbers(model: Model, records: list[dict[str, Any]]) -> Pairs:
  """Names and values of the speed and the number of steps of training."""
  keys = []
  rates = [r['images_per_second'] for r in records if 'images_per_second' in r]
  if rates:
    unit = 'images' if shows_images(model) else 'rows'
    keys.append((f'median {unit}/s', f'{statistics.median(rates):,.0f}'))
  if records:
    keys.append(('steps', f'{records[-1]["step"]:,}'))
  return keys


def _training(workdir: str, records: list[dict[str, Any]],
              figures: dict[str, str]) -> str:
  if not records:
    return ('<p class="missing">This run has no metrics.jsonl, which training '
            'writes.</p>')
  return figures.get('curves') or web.missing(
      'The curves have not been drawn', 'figures', workdir)


def _names(figures: dict[str, str]) -> list[str]:
  """Names of the pictures of test rows, in their order."""
  # By kind, then strategy 2 before strategy 1, then by factor: a file is named
  # KIND[_FACTOR][_strategy_1].
  order = {kind: i for i, kind in enumerate(PICTURES)}
  return sorted(set(figures) - {*CHARTS, 'curves'}, key=lambda name: (
      order.get(name.partition('_')[0], len(order)),
      name.endswith('_strategy_1'), name))


def _lead(figures: dict[str, str]) -> str | None:
  """The name of the picture that the report begins with, if there is one."""
  names = _names(figures)
  return names[0] if names and names[0].partition('_')[0] in PICTURES else None


def _pictures(workdir: str, figures: dict[str, str],
              lead: str | None = None) -> str:
  names = _names(figures)
  no_images = (
      '<p>Swap grids and the other pictures are drawn only for images.</p>'
      if {'map', 'profiles', 'sentences'} & set(names) else None)
  shown = [figures[name] for name in names if name != lead]
  if lead and not shown:
    return '<p>The picture is at the top.</p>'
  return web.lines(no_images, *shown) or (
      web.missing(
          'No pictures of this run have been drawn', 'figures', workdir))


def _bad_images(workdir: str) -> str:
  """The number of images skipped, and the reasons for the first of them."""
  path, columns = os.path.join(workdir, _BAD_IMAGES), _BAD_IMAGE_COLUMNS
  if not os.path.exists(path):
    return ''
  rows, count = [], 0
  with open(path, encoding='utf-8', errors='replace') as file:
    for count, line in enumerate(filter(str.strip, file), start=1):
      if count <= _MAX_BAD_IMAGES:
        image = _parse_bad_image(line)
        rows.append([plain(image.get(name)) for name in columns])
  more = f' The first {len(rows)}:' if count > len(rows) else ''
  if not rows:
    return ''
  return (
      '<h2>Images that could not be used</h2>'
      f'<p>{count:,} image{"s were" if count > 1 else " was"} skipped.'
      f'{more}</p>' + web.table(columns, rows, words=True))


def _parse_bad_image(line: str) -> dict[str, Any]:
  """A line of bad_images.jsonl; a line that is not a JSON object as it is."""
  try:
    image = json.loads(line)
  except ValueError:
    image = None
  return image if isinstance(image, dict) else {'problem': line.strip()}


def _usage(workdir: str, model: Model) -> str:
  """How to load and use the model from Python."""
  factor = (f', factor={model.grouped[0].name!r}' if len(model.grouped) > 1
            else '')
  x = 'images' if shows_images(model) else 'x'
  encode = (
      f'q = mlvae_jax.encode_group(\n    model, params, {x}, group_ids, '
      f'num_groups{factor})' if model.grouped else
      f'q = mlvae_jax.posteriors(model, params, {x})')
  scale = os.path.join(os.path.abspath(workdir), SCALE_FILE)
  if os.path.exists(scale):  # The model knows only standardised rows.
    encode = (f'scale = numpy.load({scale!r})\n'
              f'{x} = ({x} - scale["mean"]) / scale["std"]\n{encode}')
  code = ('import mlvae_jax\nmodel, params = mlvae_jax.load('
          f'{os.path.abspath(workdir)!r})\n{encode}')
  if os.path.exists(scale):
    code = f'import numpy\n{code}'
  return f'<pre>{web.escape(code)}</pre>'


def _configuration(config: Config) -> str:
  return web.table(['setting', 'value'], [
      [name, plain(value)]
      for name, value in to_json(config).items()], words=True)


def _software() -> str:
  return ('<p class="soft">Versions installed when this report was written.</p>'
          + web.table(['package', 'version'], versions().items(), words=True))


if __name__ == '__main__':
  define_flags()
  cli.run(main)
