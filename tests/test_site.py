"""The documentation site: complete, linked and executable."""

import importlib.util
import os
import re
import subprocess
import sys

import pytest

import mlvae_jax
from mlvae_jax.objective.penalties.registry import PENALTIES
from tests.helpers import ROOT

DOCS = ROOT / 'docs'


def _text(page):
  return (DOCS / page).read_text(encoding='utf-8')


def test_the_reference_has_every_public_name_once():
  found = re.findall(
      r'auto(?:class|function):: mlvae_jax\.(\w+)\n', _text('reference.md'))
  assert sorted(found) == sorted(mlvae_jax.__all__)


def test_every_page_is_in_the_contents():
  listed = set()
  for contents in re.findall(r'```\{toctree\}\n(.*?)```', _text('index.md'),
                             re.S):
    listed |= set(re.findall(r'^[\w/]+$', contents, re.M))
  pages = {str(path.relative_to(DOCS).with_suffix(''))
           for path in DOCS.rglob('*.md')} - {'index'}
  assert listed == pages


def _anchor(heading):
  """The anchor of a heading, as GitHub and MyST make it."""
  return re.sub(r'[^\w\- ]', '', heading.strip().lower()).replace(' ', '-')


def _headings(path):
  """Headings of a file, or of the file that it includes."""
  text = path.read_text(encoding='utf-8')
  for name in re.findall(r'```\{include\} (\S+)', text):
    text += (path.parent / name).read_text(encoding='utf-8')
  return re.findall(r'^#+ (.*)$', text, re.M)


def _links():
  """(page, target, anchor) of all links between files of the project."""
  for path in (*ROOT.glob('*.md'), *DOCS.rglob('*.md')):
    text = re.sub(r'```.*?```', '', path.read_text(encoding='utf-8'),
                  flags=re.S)
    for link in re.findall(r'\]\(([^)\s]+)\)', text):
      if not re.match(r'\w+:', link):
        name, _, anchor = link.partition('#')
        yield path, path.parent / name if name else path, anchor


def test_links_lead_somewhere():
  links = list(_links())
  assert len(links) > 50
  for path, target, anchor in links:
    assert target.exists(), f'{path.name}: {target}'
    if anchor:
      assert anchor in map(_anchor, _headings(target)), (
          f'{path.name}: {target.name}#{anchor}')


@pytest.mark.parametrize('page', ['concepts.md', 'how_to.md'])
def test_python_of_a_page_runs(page, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setitem(PENALTIES, 'sparse', None)  # Restores what was there.
  code = '\n'.join(re.findall(r'```python\n(.*?)```', _text(page), re.S))
  found = {'__name__': page}
  exec(code, found)
  assert found['config'].penalties
  assert page != 'how_to.md' or (tmp_path / 'groups.npz').exists()


def test_the_site_builds_without_warnings(tmp_path):
  missing = [name for name in ('sphinx', 'myst_nb', 'sphinx_book_theme')
             if importlib.util.find_spec(name) is None]
  if missing:
    pytest.skip(f'{", ".join(missing)}: pip install -e ".[docs]"')
  done = subprocess.run(
      [sys.executable, '-m', 'sphinx', '-q', '-W', '--keep-going',
       '-D', 'nb_execution_mode=off', DOCS, tmp_path],
      env={**os.environ, 'PYTHONWARNINGS': ''}, capture_output=True,
      text=True, timeout=240, check=False)
  assert done.returncode == 0, done.stderr[-2000:]
  formulas = (tmp_path / 'metrics.html').read_text(encoding='utf-8')
  assert '<math' in formulas and '$' not in re.sub(
      '<script.*?</script>', '', formulas, flags=re.S)
  # Nothing that a page loads comes from a network.
  for page in tmp_path.rglob('*.html'):
    text = page.read_text(encoding='utf-8')
    loaded = re.findall(r'<(?:script|img|link)\b[^>]*?(?:src|href)="(.*?)"',
                        text)
    assert loaded
    assert not [url for url in loaded if re.match(r'(?:https?:)?//', url)]
