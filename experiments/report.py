"""Writes one self-contained report.html about a run.

  python -m experiments.report --workdir=runs/mnist5k-mlvae

It holds the numbers of evaluation.json, the figures with their captions, the
configuration, and how to load the model. What is missing is named, with the
command that makes it.
"""

from __future__ import annotations

from importlib import metadata
import json
import os
import platform
import shlex
import statistics
from typing import Any

from absl import flags

from experiments import cli, presets, runs, web
from experiments.cli import UserError
from experiments.metrics_log import read_metrics
import mlvae_jax
from mlvae_jax.model import Model

_SUMMARY_KS = (1, 2, 5, 10)
# Figures that have a section of their own; all others follow in this order.
_PLOTS = ('evidence', 'curves')
_PICTURES = (
    'swap', 'generation', 'interpolation', 'reconstruction', 'samples')
_PACKAGES = ('jax', 'flax', 'optax', 'orbax-checkpoint', 'numpy')


def main() -> None:
  """Reads the flags and writes the report of a run."""
  print(write(runs.require_workdir(flags.FLAGS.workdir)))


def define_flags() -> None:
  """Defines the flag of this entry point."""
  flags.DEFINE_string('workdir', None, 'Folder of the run.')


def read_evaluation(workdir: str) -> dict[str, Any]:
  """The contents of evaluation.json; {} where there is none.

  Args:
    workdir: of the run.

  Returns:
    The JSON object.

  Raises:
    UserError: when the file is not what `experiments.evaluate` writes.
  """
  path = os.path.join(workdir, 'evaluation.json')
  if not os.path.exists(path):
    return {}
  with open(path, encoding='utf-8') as file:
    try:
      result = json.load(file)
    except ValueError as error:
      raise UserError(
          f'{path} is not JSON: {error}; evaluate the run again') from error
  if not isinstance(result, dict):
    raise UserError(f'{path} is not an evaluation; evaluate the run again')
  return result


def write(workdir: str) -> str:
  """Writes a run's report.html, whole or not at all.

  Args:
    workdir: of the run.

  Returns:
    The path of the report.

  Raises:
    UserError: when the workdir holds no run.
  """
  config, run = runs.read_run(workdir)
  model = Model.from_dict(run['model'])
  evaluation = read_evaluation(workdir)
  figures = web.read_figures(workdir)
  records = read_metrics(workdir)
  title = f'{"Multi-Level VAE" if model.grouped else "VAE"} on {config.dataset}'
  body = [
      f'<h1>{web.escape(title)}</h1>', _intro(workdir, config, model),
      _key_numbers(model, evaluation, records),
      '<h2>What each code tells</h2>', _probes(workdir, model, evaluation),
      figures.get('evidence', ''), _elbos(evaluation), _further(evaluation),
      '<h2>Training</h2>', _training(workdir, records, figures),
      '<h2>Pictures</h2>', _pictures(workdir, figures),
      '<h2>Use the model</h2>', _usage(workdir, model),
      '<h2>Configuration</h2>', _configuration(config),
      '<h2>Software</h2>', _software(),
  ]
  path = os.path.join(workdir, 'report.html')
  cli.write_atomically(path, web.page(title, body))
  return path


def summary(workdir: str) -> str:
  """The main numbers of evaluation.json as a table for the terminal.

  Args:
    workdir: of the run.

  Returns:
    Lines of at most 79 characters: accuracies in %, chance, ELBO per image.
  """
  evaluation = read_evaluation(workdir)
  table = _by_code(evaluation, 'accuracy', 100)
  present = {k for values in table.values() for k in values}
  ks = [k for k in _SUMMARY_KS if k in present]
  width = min(max([24, *(len(code) for code, _ in table)]), 36)
  lines = []
  if table:
    lines.append('test accuracy in %'.ljust(width + 7)
                 + ''.join(f'{f"k={k}":>8}' for k in ks))
    rows = [*table.items(), (('chance', ''), _chance(evaluation))]
    for (code, source), values in rows:
      lines.append(f'{code[:width]:{width}} {source:6}' + ''.join(
          f'{values[k]:8.1f}' if k in values else f'{"-":>8}' for k in ks))
  elbos = [f'{split} {value["elbo_per_image"]:.1f}'
           for split, value in evaluation.get('elbo', {}).items()]
  if elbos:
    lines.append('ELBO per image: ' + ', '.join(elbos))
  return '\n'.join(lines) or 'not evaluated yet'


# Sections.


def _intro(workdir: str, config: presets.Config, model: Model) -> str:
  """What was trained on what, in a paragraph."""
  factors = ', '.join(
      f'{f.name} ({f.dim} dimensions, one code per {f.grouping or "image"})'
      for f in model.factors)
  height, width, channels = model.image_shape
  colour = {1: 'grey', 3: 'RGB'}.get(channels, f'{channels}-channel')
  source = f' from {config.data_dir}' if config.data_dir else ''
  return (
      f'<p class="soft">{height}×{width} {colour} images{web.escape(source)}. '
      f'Factors: {web.escape(factors)}. Likelihood: '
      f'{web.escape(config.likelihood)}. '
      f'Run: <code>{web.escape(workdir)}</code></p>')


def _key_numbers(model: Model, evaluation: dict[str, Any],
                 records: list[dict[str, Any]]) -> str:
  """The numbers to look at first."""
  table, keys = _by_code(evaluation, 'accuracy', 100), []
  for factor in model.factors:
    values = table.get((factor.name, 'mean'), {})
    # Another image says nothing about the code of an ungrouped factor.
    ks = [min(values), max(values)] if values else []
    if factor.grouping is None and model.grouped:
      ks = ks[:1]
    keys += [(f'{factor.name} accuracy, k\xa0=\xa0{k}', f'{values[k]:.1f}\xa0%')
             for k in dict.fromkeys(ks)]
  chance = _chance(evaluation)
  if chance:
    keys.append(('chance', f'{chance[min(chance)]:.1f}\xa0%'))
  if 'test' in evaluation.get('elbo', {}):
    value = evaluation['elbo']['test']['elbo_per_image']
    keys.append(('test ELBO per image', f'{value:,.1f}'))
  rates = [r['images_per_second'] for r in records if 'images_per_second' in r]
  if rates:
    keys.append(('median images/s', f'{statistics.median(rates):,.0f}'))
  if records:
    keys.append(('steps', f'{records[-1]["step"]:,}'))
  return '<dl class="keys">' + ''.join(
      f'<div><dt>{web.escape(name)}</dt><dd>{web.escape(value)}</dd></div>'
      for name, value in keys) + '</dl>' if keys else ''


def _probes(workdir: str, model: Model, evaluation: dict[str, Any]) -> str:
  """What classifiers read off the codes, for every k."""
  if not evaluation.get('probes'):
    return _missing('There is no evaluation of this run', 'evaluate', workdir)
  wish = ('A factor that groups share should tell the label (towards '
          '100&nbsp;%, 0 nats), the others should not (chance). '
          if model.grouped else '')
  parts = [
      '<p>A classifier reads the label off each code; k images of a label '
      f'accumulate their evidence. {wish}The rows in bold are the model\'s '
      'factors, the others are controls.</p>']
  for heading, key, scale, digits in (
      ('Test accuracy in %', 'accuracy', 100, 1),
      ('Conditional entropy in nats', 'conditional_entropy', 1, 3)):
    table = _by_code(evaluation, key, scale)
    ks = sorted({k for values in table.values() for k in values})
    rows = [[code, source, *(_number(values.get(k), digits) for k in ks)]
            for (code, source), values in table.items()]
    if key == 'accuracy':
      chance = _chance(evaluation)
      rows.append(['chance', '', *(_number(chance[k], digits) for k in ks)])
    parts.append(f'<h3>{heading}</h3>' + web.table(
        ['code', 'source', *(f'k={k}' for k in ks)], rows,
        bold=[f.name for f in model.factors]))
  protocol = '; '.join(
      f'{name.replace("_", " ")}: {_plain(value)}'
      for name, value in evaluation.get('protocol', {}).items())
  if protocol:
    parts.append(f'<p class="soft">{web.escape(protocol)}</p>')
  return '\n'.join(parts)


def _elbos(evaluation: dict[str, Any]) -> str:
  """The ELBO and its terms per split."""
  elbos = evaluation.get('elbo')
  if not elbos:
    return ''
  names = list(next(iter(elbos.values()))['kl'])
  rows = [
      [split, *(_number(v, 2) for v in (
          e['elbo_per_image'], e['elbo'], e['log_lik'],
          *(e['kl'][name] for name in names)))] for split, e in elbos.items()]
  return (
      '<h2>ELBO</h2><p>In nats. The last columns are terms of the ELBO per '
      'group: it is the log likelihood less the KL divergences.</p>'
      + web.table(
          ['split', 'ELBO per image', 'ELBO per group', 'log likelihood',
           *(f'KL of {name}' for name in names)], rows))


def _further(evaluation: dict[str, Any]) -> str:
  """Sections of evaluation.json that hold rows of plain values."""
  parts = []
  for name, rows in evaluation.items():
    if name != 'probes' and rows and isinstance(rows, list):
      columns = list(dict.fromkeys(key for row in rows for key in row))
      heading = web.escape(name.replace('_', ' ').capitalize())
      parts.append(f'<h2>{heading}</h2>' + web.table(
          [c.replace('_', ' ') for c in columns],
          [[_plain(row.get(c)) for c in columns] for row in rows]))
  return '\n'.join(parts)


def _training(workdir: str, records: list[dict[str, Any]],
              figures: dict[str, str]) -> str:
  if not records:
    return ('<p class="missing">There is no metrics.jsonl in this run; '
            'training writes it.</p>')
  return figures.get('curves') or _missing(
      'The curves are not drawn', 'figures', workdir)


def _pictures(workdir: str, figures: dict[str, str]) -> str:
  names = [name for name in _PICTURES if name in figures]
  names += sorted(set(figures) - {*_PICTURES, *_PLOTS})
  return '\n'.join(figures[name] for name in names) or _missing(
      'There are no pictures of this run', 'figures', workdir)


def _usage(workdir: str, model: Model) -> str:
  """How to load and use the model from Python."""
  factor = (f', factor={model.grouped[0].name!r}' if len(model.grouped) > 1
            else '')
  encode = (
      f'q = mlvae_jax.encode_group(\n    model, params, images, group_ids, '
      f'num_groups{factor})' if model.grouped else
      'q = mlvae_jax.posteriors(model, params, images)')
  code = ('import mlvae_jax\nmodel, params = mlvae_jax.load('
          f'{os.path.abspath(workdir)!r})\n{encode}')
  return f'<pre>{web.escape(code)}</pre>'


def _configuration(config: presets.Config) -> str:
  return web.table(['setting', 'value'], [
      [name, _plain(value)] for name, value in presets.to_json(config).items()
  ], words=True)


def _software() -> str:
  rows = [['Python', platform.python_version()],
          ['mlvae_jax', mlvae_jax.__version__]]
  rows += [[name, metadata.version(name)] for name in _PACKAGES]
  return ('<p class="soft">As installed when this report was written.</p>'
          + web.table(['package', 'version'], rows, words=True))


# Parts.


def _missing(what: str, module: str, workdir: str) -> str:
  """Says that something is missing, and which commands make it."""
  commands = '\n'.join(
      f'python -m experiments.{name} --workdir={shlex.quote(workdir)}'
      for name in (module, 'report'))
  return (f'<p class="missing">{what}. Make it, then write this report again:'
          f'</p><pre>{web.escape(commands)}</pre>')


def _by_code(evaluation: dict[str, Any], key: str, scale: float
             ) -> dict[tuple[str, str], dict[int, float]]:
  """A number of the probes: {(code, source): {k: value}}."""
  table = {}
  for row in evaluation.get('probes', []):
    values = table.setdefault((row['code'], row['source']), {})
    values[row['k']] = scale * row[key]
  return table


def _chance(evaluation: dict[str, Any]) -> dict[int, float]:
  """Chance in % for each k."""
  return {row['k']: 100 * row['chance']
          for row in evaluation.get('probes', [])}


def _number(value: float | None, digits: int) -> str:
  return '–' if value is None else f'{value:,.{digits}f}'


def _plain(value: Any) -> str:
  """A value of JSON, to be read."""
  if value is None or value == '':
    return '–'
  if isinstance(value, bool):
    return 'yes' if value else 'no'
  if isinstance(value, list):
    return ', '.join(map(_plain, value))
  return f'{value:.5g}' if isinstance(value, float) else str(value)


if __name__ == '__main__':
  define_flags()
  cli.run(main)
