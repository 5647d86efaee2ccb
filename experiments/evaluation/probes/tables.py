"""Tables of the labels that classifiers predict from the codes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from experiments.evaluation import meaning, web
from experiments.evaluation.codes import by_code, chance_by
from experiments.evaluation.formatting import number, plain, terminal_row
from experiments.evaluation.probes.rows import Rows, by_label
from experiments.evaluation.section import Evaluation, Pairs, Results
from experiments.evaluation.wording import worded
from experiments.pictures.subject import EVIDENCE_SIZES


def key_numbers(results: Results) -> Pairs:
  """The accuracies from posterior means, for the least and the most evidence.

  Args:
    results: results of the run.

  Returns:
    Accuracies of the model's factors, each for its own label or the first,
    and chance.
  """
  model, labels = results.model, by_label(results.evaluation)
  keys = []
  for factor in model.factors:
    # The label of an ungrouped factor is the first one, which it should hide.
    found = labels.get(factor.grouping) or next(iter(labels.values()), [])
    values = by_code(found, 'accuracy', 'k').get((factor.name, 'mean'), {})
    # More images do not change the code of an ungrouped factor.
    ks = [min(values), max(values)] if values else []
    if factor.grouping is None and model.grouped:
      ks = ks[:1]
    caveats = meaning.caveats(found, 'k')
    for k in dict.fromkeys(ks):
      said = f' ({caveats[k].partition(",")[0]})' if k in caveats else ''
      # No-break spaces, because cards are narrow.
      keys.append((f'{factor.name} accuracy, k\xa0=\xa0{k}{said}',
                   f'{number(values[k], 1, 100)}\xa0%'))
  for label, found in labels.items():
    chance = chance_by(found, 'k')
    keys.append((f'chance{_of(label, labels)}',
                 f'{number(chance[min(chance)], 1, 100)}\xa0%'))
  return keys


def report(results: Results) -> str:
  """Tables of the scores of probes, for every k.

  Args:
    results: results of the run. If it was not evaluated, or there was nothing
      to score, a paragraph says so.

  Returns:
    HTML with a heading.
  """
  evaluation = results.evaluation
  if evaluation.get('probes') is None:
    tables = [web.missing('This run has not been evaluated', 'evaluate',
                          results.workdir)]
  elif not evaluation['probes']:  # Evaluated, but without any score.
    tables = [_nothing_to_score(evaluation)]
  else:
    tables = [_introduction(results), *_tables(results), _protocol(evaluation)]
  return web.lines('<h2>What each code predicts</h2>', *tables,
                   results.figures.get('evidence'))


def _introduction(results: Results) -> str:
  wish = ('A factor that groups share should predict the label (close to '
          '100&nbsp;% and 0 nats); the other factors should do no better '
          'than chance. ' if results.model.grouped else '')
  return worded(results.model, (
      '<p>Classifiers predict the label from each code; k images of a label '
      'accumulate their evidence (strategy 2; for k = 1 strategy 1). '
      f'{wish}Rows in bold are the model\'s factors; the others are '
      'controls.</p>'))


def _tables(results: Results) -> Iterator[str]:
  """Tables of accuracy and conditional entropy per label."""
  labels = by_label(results.evaluation)
  own = [f.name for f in results.model.factors]
  for label, found in labels.items():
    for heading, key, scale, digits in (
        ('Test accuracy in %', 'accuracy', 100, 1),
        ('Conditional entropy in nats', 'conditional_entropy', 1, 3)):
      table = by_code(found, key, 'k')
      ks = sorted({k for values in table.values() for k in values})
      caveats = meaning.caveats(found, 'k')
      if key == 'accuracy':
        table['chance', ''] = chance_by(found, 'k')
      yield (
          f'<h3>{web.escape(heading + _of(label, labels))}</h3>' + web.table(
              ['code', 'source', *(f'k={k}{_mark(k, caveats)}' for k in ks)],
              [[code, source,
                *(number(values.get(k), digits, scale) for k in ks)]
               for (code, source), values in table.items()], bold=own)
          + web.footnotes(_footnotes(caveats)))


def _protocol(evaluation: Evaluation) -> str:
  protocol = '; '.join(
      f'{name.replace("_", " ")}: {plain(value)}'
      for name, value in evaluation.get('protocol', {}).items())
  return protocol and f'<p class="soft">{web.escape(protocol)}</p>'


def _nothing_to_score(evaluation: Evaluation) -> str:
  why = '; '.join(evaluation.get('warnings') or [
      'no split has enough images with labels'])
  return ('<p class="missing">This run was evaluated, but no probe could be '
          f'scored: {web.escape(why)}.</p>')


def summary(evaluation: Evaluation, width: int) -> list[str]:
  """The accuracies of the probes in %, by label, for the terminal.

  Args:
    evaluation: content of evaluation.json.
    width: maximum length of a code's name, 24 to 36.

  Returns:
    Lines of at most 79 characters.
  """
  labels = by_label(evaluation)
  lines = (['no probe could be scored'] if evaluation.get('probes') == []
           else [])
  for label, found in labels.items():
    present = {row['k'] for row in found}
    ks = [k for k in EVIDENCE_SIZES if k in present]
    caveats = meaning.caveats(found, 'k')
    lines.append(terminal_row(
        f'test accuracy in %{_of(label, labels)}',
        (f'k={k}{_mark(k, caveats)}' for k in ks), width, 8))
    rows = [*by_code(found, 'accuracy', 'k').items(),
            (('chance', ''), chance_by(found, 'k'))]
    for (code, source), values in rows:
      lines.append(terminal_row(
          f'{code[:width]:{width}} {source:6}',
          (number(values.get(k), 1, 100, '-') for k in ks), width, 8))
    lines += _footnotes({k: caveats[k] for k in ks if k in caveats})
  return lines


def _mark(k: int, caveats: Mapping[int, str]) -> str:
  return '*' if k in caveats else ''


def _footnotes(caveats: Mapping[int, str]) -> list[str]:
  return meaning.footnotes({f'k={k}': why for k, why in caveats.items()})


def _of(label: str | None, labels: Mapping[str | None, Rows]) -> str:
  """The addition to a heading if there are several labels; otherwise ''."""
  return f' of {label}' if len(labels) > 1 else ''
