"""Tables of the numbers of evaluation.json and metrics.jsonl, as HTML."""

from __future__ import annotations

from collections.abc import Mapping
import statistics
from typing import Any

from experiments.evaluation import meaning, recognition_tables, web
from mlvae_jax.model.model import Model

# Sections of evaluation.json whose rows are shown in tables of their own.
_OWN_SECTIONS = ('probes', 'verification', 'few_shot', 'factors', 'strategies',
                 'disentanglement', 'warnings')
_SUMMARY_KS = (1, 2, 5, 10)

Rows = list[dict[str, Any]]


def key_numbers(model: Model, evaluation: dict[str, Any],
                records: list[dict[str, Any]]) -> str:
  """The numbers to look at first."""
  labels, keys = by_label(evaluation), []
  for factor in model.factors:
    found = labels.get(factor.grouping) or next(iter(labels.values()), [])
    values = by_code(found, 'accuracy', 100).get((factor.name, 'mean'), {})
    # Another image says nothing about the code of an ungrouped factor.
    ks = [min(values), max(values)] if values else []
    if factor.grouping is None and model.grouped:
      ks = ks[:1]
    caveats = meaning.caveats(found, 'k')
    for k in dict.fromkeys(ks):
      said = f' ({caveats[k].partition(",")[0]})' if k in caveats else ''
      keys.append((f'{factor.name} accuracy, k\xa0=\xa0{k}{said}',
                   f'{values[k]:.1f}\xa0%'))
  for label, found in labels.items():
    chance = chance_by_k(found)
    keys.append((f'chance{_of(label, labels)}',
                 f'{chance[min(chance)]:.1f}\xa0%'))
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
  """What classifiers predict from the codes, for every k.

  Args:
    model: the rows of its factors are bold.
    evaluation: the contents of evaluation.json.

  Returns:
    HTML; '' where nothing was evaluated. Where there was nothing to score it
    says why.
  """
  if evaluation.get('probes') is None:
    return ''
  if not evaluation['probes']:
    return _nothing_to_score(evaluation)
  wish = ('A factor that groups share should predict the label (towards '
          '100&nbsp;%, 0 nats), the others should not (chance). '
          if model.grouped else '')
  parts = [
      '<p>A classifier predicts the label from each code; k images of a label '
      'accumulate their evidence (strategy 2; for k = 1 strategy 1). '
      f'{wish}The rows in bold are the model\'s factors, the others are '
      'controls.</p>']
  labels = by_label(evaluation)
  for label, found in labels.items():
    for heading, key, scale, digits in (
        ('Test accuracy in %', 'accuracy', 100, 1),
        ('Conditional entropy in nats', 'conditional_entropy', 1, 3)):
      table = by_code(found, key, scale)
      ks = sorted({k for values in table.values() for k in values})
      caveats = meaning.caveats(found, 'k')
      rows = [[code, source, *(_number(values.get(k), digits) for k in ks)]
              for (code, source), values in table.items()]
      if key == 'accuracy':
        chance = chance_by_k(found)
        rows.append(['chance', '', *(_number(chance[k], digits) for k in ks)])
      parts.append(
          f'<h3>{web.escape(heading + _of(label, labels))}</h3>' + web.table(
              ['code', 'source', *(f'k={k}{_mark(k, caveats)}' for k in ks)],
              rows, bold=[f.name for f in model.factors])
          + web.footnotes(_footnotes(caveats)))
  protocol = '; '.join(
      f'{name.replace("_", " ")}: {plain(value)}'
      for name, value in evaluation.get('protocol', {}).items())
  if protocol:
    parts.append(f'<p class="soft">{web.escape(protocol)}</p>')
  return '\n'.join(parts)


def warnings(evaluation: dict[str, Any]) -> str:
  """What makes the run, or its scores, mean nothing or little."""
  return '\n'.join(f'<p class="missing">Warning: {web.escape(line)}.</p>'
                   for line in evaluation.get('warnings') or [])


def _nothing_to_score(evaluation: dict[str, Any]) -> str:
  why = '; '.join(evaluation.get('warnings') or [
      'no split has enough images with labels'])
  return ('<p class="missing">This run was evaluated, but no probe could be '
          f'scored: {web.escape(why)}.</p>')


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


def by_label(evaluation: dict[str, Any]) -> dict[str | None, Rows]:
  """The rows of "probes" by label; None where they do not name any."""
  labels = {}
  for row in evaluation.get('probes') or []:
    labels.setdefault(row.get('label'), []).append(row)
  return labels


def by_code(rows: Rows, key: str, scale: float
            ) -> dict[tuple[str, str], dict[int, float]]:
  """A number of probes of one label: {(code, source): {k: value}}."""
  table = {}
  for row in rows:
    values = table.setdefault((row['code'], row['source']), {})
    values[row['k']] = scale * row[key]
  return table


def chance_by_k(rows: Rows) -> dict[int, float]:
  """Chance in % for each k, of probes of one label."""
  return {row['k']: 100 * row['chance'] for row in rows}


def summary_lines(evaluation: dict[str, Any], width: int) -> list[str]:
  """What the probes say, for the terminal: accuracies in %, by label.

  Args:
    evaluation: the contents of evaluation.json.
    width: characters for a code, 24 to 36.

  Returns:
    Lines of at most 79 characters.
  """
  lines, labels = [], by_label(evaluation)
  for label, found in labels.items():
    present = {row['k'] for row in found}
    ks = [k for k in _SUMMARY_KS if k in present]
    caveats = meaning.caveats(found, 'k')
    title = f'test accuracy in %{_of(label, labels)}'[:width + 7]
    lines.append(title.ljust(width + 7)
                 + ''.join(f'{f"k={k}{_mark(k, caveats)}":>8}' for k in ks))
    rows = [*by_code(found, 'accuracy', 100).items(),
            (('chance', ''), chance_by_k(found))]
    for (code, source), values in rows:
      lines.append(f'{code[:width]:{width}} {source:6}' + ''.join(
          f'{values[k]:8.1f}' if k in values else f'{"-":>8}' for k in ks))
    lines += _footnotes({k: caveats[k] for k in ks if k in caveats})
  return lines


def _mark(k: int, caveats: Mapping[int, str]) -> str:
  return '*' if k in caveats else ''


def _footnotes(caveats: Mapping[int, str]) -> list[str]:
  return meaning.footnotes({f'k={k}': why for k, why in caveats.items()})


def _of(label: str | None, labels: Mapping[str | None, Rows]) -> str:
  """What to add to a heading where there are several labels."""
  return f' of {label}' if len(labels) > 1 else ''


def _number(value: float | None, digits: int) -> str:
  return '–' if value is None else f'{value:,.{digits}f}'


def plain(value: Any) -> str:
  """A JSON value as text."""
  if value is None or value == '':
    return '–'
  if isinstance(value, bool):
    return 'yes' if value else 'no'
  if isinstance(value, list):
    return ', '.join(map(plain, value))
  return f'{value:.5g}' if isinstance(value, float) else str(value)
