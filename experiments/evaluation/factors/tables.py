"""Tables of which labels each code predicts."""

from __future__ import annotations

from collections.abc import Mapping

from experiments.evaluation import meaning, web
from experiments.evaluation.codes import by_code, chance_by
from experiments.evaluation.formatting import number
from experiments.evaluation.section import Evaluation, Results

_COLUMN = 9  # Characters of a label's column in the terminal.
_TEXT = (
    '<p>The data have several groupings. A classifier predicts the labels of '
    'each from each code, every image encoded alone (strategy 1). A factor '
    'should predict the label that it is grouped by, and none that another is '
    'grouped by (chance); labels that no factor is grouped by belong in the '
    'factors that no group shares. Where the test split is of combinations of '
    'labels never trained on, a classifier that relies on the wrong label '
    'scores below chance.</p>')


def report(results: Results) -> str:
  """The matrix of codes and labels.

  Args:
    results: what the report has; its figure "factors" goes first.

  Returns:
    HTML with a heading; '' where nothing was measured.
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
  return '\n'.join(['<h2>Label accuracy by code</h2>', _TEXT,
                    results.figures.get('factors', ''), *parts])


def summary(evaluation: Evaluation, width: int) -> list[str]:
  """The accuracies of "factors" for the terminal, from posterior means.

  Args:
    evaluation: the contents of evaluation.json.
    width: characters for a code, 24 to 36.

  Returns:
    Lines of at most 79 characters, in blocks of as many labels as fit; none
    where nothing was measured.
  """
  rows = evaluation.get('factors') or []
  chance, lines = chance_by(rows, 'label'), []
  table = {code: found for (code, source), found
           in by_code(rows, 'accuracy', 'label').items() if source == 'mean'}
  caveats = meaning.caveats(rows, 'label')
  across = (79 - width - 7) // _COLUMN
  for start in range(0, len(chance), across):
    shown = list(chance)[start:start + across]
    names = [_marked(n, caveats, _COLUMN - 1) for n in shown]
    lines.append('label accuracy by code, %'.ljust(width + 7)[:width + 7]
                 + ''.join(f'{name:>{_COLUMN}}' for name in names))
    for code, found in [*table.items(), ('chance', chance)]:
      lines.append(code[:width].ljust(width + 7) + ''.join(
          f'{number(found.get(n), 1, 100, "-"):>{_COLUMN}}' for n in shown))
  return lines + meaning.footnotes(caveats)


def _marked(label: str, caveats: Mapping[str, str],
            width: int | None = None) -> str:
  """A label's heading of at most `width` characters, with the mark it needs."""
  mark = '*' if label in caveats else ''
  return label[:width and width - len(mark)] + mark
