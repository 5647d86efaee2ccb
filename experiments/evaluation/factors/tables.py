"""Tables of the labels that each code predicts."""

from __future__ import annotations

from collections.abc import Mapping

from experiments.evaluation import meaning, web
from experiments.evaluation.codes import by_code, chance_by
from experiments.evaluation.formatting import number, terminal_row
from experiments.evaluation.section import Evaluation, Results
from experiments.evaluation.wording import worded

_COLUMN = 9  # Width in characters of the column of a label in the terminal.
_TEXT = (
    '<p>The data have several groupings. Classifiers predict the labels of '
    'each from each code, with every image encoded alone (strategy 1). A '
    'factor should predict the label by which it is grouped, and no better '
    'than chance a label by which another factor is grouped; labels by which '
    'no factor is grouped belong in the factors that no group shares. If the '
    'test split consists of combinations of labels that were never trained on, '
    'a classifier that relies on the wrong label scores below chance.</p>')


def report(results: Results) -> str:
  """Tables of codes and labels.

  Args:
    results: results of the run; the figure "factors" comes first.

  Returns:
    HTML with a heading; '' if nothing was measured.
  """
  rows = results.evaluation.get('factors')
  if not rows:
    return ''
  chance, caveats = chance_by(rows, 'label'), meaning.caveats(rows, 'label')
  parts = []
  for heading, key, scale, digits in (
      ('Test accuracy in %', 'accuracy', 100, 1),
      ('Conditional entropy in nats', 'conditional_entropy', 1, 3)):
    table = by_code(rows, key, 'label')
    if key == 'accuracy':
      table['chance', ''] = chance
    parts.append(f'<h3>{heading}</h3>' + web.table(
        ['code', 'source', *(_marked(name, caveats) for name in chance)],
        [[code, source, *(number(found.get(label), digits, scale)
                          for label in chance)]
         for (code, source), found in table.items()],
        bold=[factor.name for factor in results.model.factors])
                 + web.footnotes(meaning.footnotes(caveats)))
  return '\n'.join(['<h2>Label accuracy by code</h2>',
                    worded(results.model, _TEXT),
                    results.figures.get('factors', ''), *parts])


def summary(evaluation: Evaluation, width: int) -> list[str]:
  """The accuracies of "factors" from posterior means, for the terminal.

  Args:
    evaluation: content of evaluation.json.
    width: maximum length of a code's name, 24 to 36.

  Returns:
    Lines of at most 79 characters, in blocks of as many labels as fit; none
    if nothing was measured.
  """
  rows = evaluation.get('factors') or []
  chance, lines = chance_by(rows, 'label'), []
  table = {code: found for (code, source), found
           in by_code(rows, 'accuracy', 'label').items() if source == 'mean'}
  caveats = meaning.caveats(rows, 'label')
  # Every table has `width` characters for a code, and 7 for its source.
  across = (79 - width - 7) // _COLUMN
  for start in range(0, len(chance), across):
    shown = list(chance)[start:start + across]
    names = [_marked(n, caveats, _COLUMN - 1) for n in shown]
    lines.append(terminal_row(
        'label accuracy by code, %', names, width, _COLUMN))
    for code, found in [*table.items(), ('chance', chance)]:
      lines.append(terminal_row(
          code[:width], (number(found.get(n), 1, 100, '-') for n in shown),
          width, _COLUMN))
  return lines + meaning.footnotes(caveats)


def _marked(label: str, caveats: Mapping[str, str],
            width: int | None = None) -> str:
  """The heading of a label, of at most `width` characters, marked if needed."""
  mark = '*' if label in caveats else ''
  return label[:width and width - len(mark)] + mark
