"""The explorer as a part of the report: an element, a script and a style."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any, NamedTuple

from experiments.evaluation import web
from experiments.explorer import block

_FOLDER = pathlib.Path(__file__).parent
# One script, in the order in which they build on each other.
_SCRIPTS = ('decoder.js', 'codes.js', 'elements.js', 'state.js', 'sides.js',
            'square.js', 'grid.js', 'explorer.js')


class Explorer(NamedTuple):
  """The parts of a page; all are '' if it has no explorer.

  Attributes:
    body: HTML where the explorer appears.
    script: JavaScript, to run at the end of the page.
    style: CSS.
  """

  body: str = ''
  script: str = ''
  style: str = ''


def read(workdir: str) -> Explorer:
  """Reads the explorer of a run from its folder of figures."""
  path = os.path.join(workdir, 'figures', block.FILE)
  if not os.path.exists(path):
    return Explorer()
  data = _load(path)
  if data is None:
    return Explorer(
        f'<p class="missing">{web.escape(path)} is damaged; draw the figures '
        'again.</p>')
  if 'missing' in data:
    return Explorer(f'<p class="soft">{web.escape(data["missing"])}</p>')
  # Names of the user's must not end the element.
  text = json.dumps(data).replace('<', r'\u003c')
  return Explorer(
      '<section id="explorer" aria-label="Explorer of codes" hidden></section>'
      f'<script type="application/json" id="explorer-data">{text}</script>',
      '(() => {\n"use strict";\n' + '\n'.join(
          map(_read_text, _SCRIPTS)) + '})();\n',
      _read_text('explorer.css'))


def _load(path: str) -> dict[str, Any] | None:
  """The data of an explorer; None if they are damaged."""
  try:
    with open(path, encoding='utf-8') as file:
      data = json.load(file)
  except ValueError:
    return None
  return data if isinstance(data, dict) else None


def _read_text(name: str) -> str:
  return (_FOLDER / name).read_text(encoding='utf-8')
