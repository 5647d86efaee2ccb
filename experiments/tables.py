"""Tables of the numbers of evaluation.json and metrics.jsonl, as HTML."""

from __future__ import annotations

import statistics
from typing import Any

from experiments import recognition_tables, web
from mlvae_jax.model import Model

# Sections of evaluation.json whose rows are shown in tables of their own.
_OWN_SECTIONS = ('probes', 'verification', 'few_shot')


def key_numbers(model: Model, evaluation: dict[str, Any],
                records: list[dict[str, Any]]) -> str:
  """The numbers to look at first."""
  table, keys = by_code(evaluation, 'accuracy', 100), []
  for factor in model.factors:
    values = table.get((factor.name, 'mean'), {})
    # Another image says nothing about the code of an ungrouped factor.
    ks = [min(values), max(values)] if values else []
    if factor.grouping is None and model.grouped:
      ks = ks[:1]
    keys += [(f'{factor.name} accuracy, k\xa0=\xa0{k}', f'{values[k]:.1f}\xa0%')
             for k in dict.fromkeys(ks)]
  chance = chance_by_k(evaluation)
  if chance:
    keys.append(('chance', f'{chance[min(chance)]:.1f}\xa0%'))
  auc = recognition_tables.by_score(evaluation.get('verification'), 'auc')
  keys += [(f'{f.name} verification AUC', f'{auc[f.name, "cosine"]:.3f}')
           for f in model.factors if (f.name, 'cosine') in auc]
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


def probe_tables(model: Model, evaluation: dict[str, Any]) -> str:
  """What classifiers read off the codes, for every k."""
  if not evaluation.get('probes'):
    return ''
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
    table = by_code(evaluation, key, scale)
    ks = sorted({k for values in table.values() for k in values})
    rows = [[code, source, *(_number(values.get(k), digits) for k in ks)]
            for (code, source), values in table.items()]
    if key == 'accuracy':
      chance = chance_by_k(evaluation)
      rows.append(['chance', '', *(_number(chance[k], digits) for k in ks)])
    parts.append(f'<h3>{heading}</h3>' + web.table(
        ['code', 'source', *(f'k={k}' for k in ks)], rows,
        bold=[f.name for f in model.factors]))
  protocol = '; '.join(
      f'{name.replace("_", " ")}: {plain(value)}'
      for name, value in evaluation.get('protocol', {}).items())
  if protocol:
    parts.append(f'<p class="soft">{web.escape(protocol)}</p>')
  return '\n'.join(parts)


def elbo_table(evaluation: dict[str, Any]) -> str:
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


def further_tables(evaluation: dict[str, Any]) -> str:
  """Other sections of evaluation.json that hold rows of plain values."""
  parts = []
  for name, rows in evaluation.items():
    if name not in _OWN_SECTIONS and rows and isinstance(rows, list):
      columns = list(dict.fromkeys(key for row in rows for key in row))
      heading = web.escape(name.replace('_', ' ').capitalize())
      parts.append(f'<h2>{heading}</h2>' + web.table(
          [c.replace('_', ' ') for c in columns],
          [[plain(row.get(c)) for c in columns] for row in rows]))
  return '\n'.join(parts)


def by_code(evaluation: dict[str, Any], key: str, scale: float
            ) -> dict[tuple[str, str], dict[int, float]]:
  """A number of the probes: {(code, source): {k: value}}."""
  table = {}
  for row in evaluation.get('probes', []):
    values = table.setdefault((row['code'], row['source']), {})
    values[row['k']] = scale * row[key]
  return table


def chance_by_k(evaluation: dict[str, Any]) -> dict[int, float]:
  """Chance in % for each k."""
  return {row['k']: 100 * row['chance']
          for row in evaluation.get('probes', [])}


def _number(value: float | None, digits: int) -> str:
  return '–' if value is None else f'{value:,.{digits}f}'


def plain(value: Any) -> str:
  """A value of JSON, to be read."""
  if value is None or value == '':
    return '–'
  if isinstance(value, bool):
    return 'yes' if value else 'no'
  if isinstance(value, list):
    return ', '.join(map(plain, value))
  return f'{value:.5g}' if isinstance(value, float) else str(value)
