"""The HTML page of a report: a single file that loads nothing."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
import hashlib
import html
import os
import shlex
from typing import Any

from PIL import Image

_STYLE = """
:root { --ink: #1c1e21; --soft: #5d636b; --line: #dcdfe3; --page: #fbfbfa;
  --card: #fff; --accent: #0072b2; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e3; --soft: #a2a8b0;
  --line: #383c42; --page: #17191c; --card: #202327; --accent: #56b4e9; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 62rem;
  background: var(--page); color: var(--ink); overflow-wrap: anywhere;
  font: 16px/1.55 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.25rem; margin: 2.8rem 0 .6rem; padding-bottom: .3rem;
  border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p { margin: .5rem 0; max-width: 46rem; }
.soft, figcaption, caption { color: var(--soft); }
.keys { display: grid; gap: .75rem; margin: 1.5rem 0 0; padding: 0;
  grid-template-columns: repeat(auto-fill, minmax(10.5rem, 1fr)); }
.keys div { background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; padding: .7rem .9rem; }
.keys dt { color: var(--soft); font-size: .82rem; }
.keys dd { margin: 0; font-size: 1.45rem; font-weight: 600;
  font-variant-numeric: tabular-nums; overflow-wrap: normal; }
.scroll { overflow-x: auto; margin: .6rem 0; break-inside: avoid; }
table { border-collapse: collapse; font-size: .9rem; overflow-wrap: normal;
  font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .7rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th:first-child, td:first-child, .words th, .words td { text-align: left; }
.words td { white-space: normal; overflow-wrap: anywhere; }
thead th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
tr.own { font-weight: 600; }
figure { margin: 1.2rem 0 2rem; break-inside: avoid; }
figure img { display: block; max-width: 100%; height: auto; background: #fff;
  border: 1px solid var(--line); border-radius: 8px; padding: .5rem; }
figcaption { font-size: .88rem; margin-top: .5rem; max-width: 46rem; }
pre, code { font: .86rem/1.5 ui-monospace, "DejaVu Sans Mono", monospace; }
pre { background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; padding: .8rem 1rem; overflow-x: auto; }
.missing { border-left: 3px solid var(--accent); padding-left: .8rem; }
@media print { :root { --ink: #000; --soft: #444; --line: #ccc; --page: #fff;
  --card: #fff; color-scheme: light; } body { max-width: none; padding: 0;
  font-size: 10.5pt; } pre { white-space: pre-wrap; } .scroll { overflow:
  visible; } table { font-size: 8pt; } th, td { padding: .2rem .4rem; }
  h2, h3, p:has(+ .scroll) { break-after: avoid; } }
"""
# The policy forbids everything but inline styles, pictures, and the page's own
# script by its hash: the page loads nothing, and text of the user's can do no
# harm.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'{policy}">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
{script}</body>
</html>
"""


def lines(*pieces: str | None) -> str:
  """Joins pieces of HTML; None and '' are left out."""
  return '\n'.join(filter(None, pieces))


def key_numbers(pairs: Iterable[tuple[str, str]]) -> str:
  """Cards with the names and values to look at first; '' without any."""
  cards = ''.join(
      f'<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>'
      for name, value in pairs)
  return cards and f'<dl class="keys">{cards}</dl>'


def missing(what: str, module: str, workdir: str) -> str:
  """A paragraph that names a missing part, and the commands that make it."""
  commands = '\n'.join(
      f'python -m experiments.{name} --workdir={shlex.quote(workdir)}'
      for name in (module, 'report'))
  return (f'<p class="missing">{what}. Run these commands to add this part to '
          f'the report:</p><pre>{escape(commands)}</pre>')


def footnotes(lines: Iterable[str]) -> str:
  """Lines of text below a table."""
  return ''.join(f'<p class="soft">{escape(line)}.</p>' for line in lines)


def page(title: str, body: Iterable[str], script: str = '', style: str = ''
         ) -> str:
  """The whole page.

  Args:
    title: title of the page.
    body: pieces of HTML.
    script: JavaScript to run at the end of the page, if any.
    style: CSS besides that of every page.

  Returns:
    The page's HTML.
  """
  policy = ''
  if script:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"; script-src 'sha256-{digest}'"
    script = f'<script>{script}</script>\n'
  return _PAGE.format(title=escape(title), style=_STYLE + style, policy=policy,
                      body=lines(*body), script=script)


def read_figures(workdir: str) -> dict[str, str]:
  """The `<figure>` element of each PNG of a run, by name."""
  folder = os.path.join(workdir, 'figures')
  if not os.path.isdir(folder):
    return {}
  found = {}
  for file_name in sorted(os.listdir(folder)):
    name, extension = os.path.splitext(file_name)
    if extension == '.png':
      found[name] = figure(os.path.join(folder, file_name), name)
  return found


def figure(path: str, name: str) -> str:
  """A `<figure>` element that contains a PNG and the caption stored in it."""
  try:
    with Image.open(path, formats=['PNG']) as image:
      image.load()  # Finds out whether the pixels are damaged.
      # Legible text needs a little more than the size on paper.
      scale = 125 / image.info.get('dpi', (200, 200))[0]
      width, height = (round(scale * pixels) for pixels in image.size)
      caption = image.text.get('Description', name)
  except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
    return (f'<p class="missing">{escape(path)} is not a readable PNG; draw '
            'it again.</p>')
  # Inside the page, which then can be sent to others as one file.
  with open(path, 'rb') as file:
    pixels = base64.b64encode(file.read()).decode('ascii')
  return (
      f'<figure><img alt="{escape(name)}" width="{width}" height="{height}" '
      f'src="data:image/png;base64,{pixels}">'
      f'<figcaption>{escape(caption)}</figcaption></figure>')


def table(head: Sequence[str], rows: Iterable[Sequence[str]],
          bold: Sequence[str] = (), words: bool = False) -> str:
  """A table, which scrolls if it is too wide; its cells are escaped here."""
  lines = ''.join(
      ('<tr class="own">' if row[0] in bold else '<tr>')
      + ''.join(f'<td>{escape(cell)}</td>' for cell in row) + '</tr>\n'
      for row in rows)
  style = ' class="words"' if words else ''
  return (
      f'<div class="scroll"><table{style}><thead>'
      f'<tr>{"".join(f"<th>{escape(cell)}</th>" for cell in head)}</tr>'
      f'</thead><tbody>\n{lines}</tbody></table></div>')


def escape(text: Any) -> str:
  """Text escaped for HTML; bytes of file names that are not text become '?'."""
  return html.escape(str(text).encode('utf-8', 'replace').decode('utf-8'))
