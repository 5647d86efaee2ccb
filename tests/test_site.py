"""The documentation site: complete, linked and executable."""

import html.parser
import importlib.util
import os
import posixpath
import re
import subprocess
import sys

import pytest

import mlvae_jax
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


@pytest.fixture(scope='module')
def build(tmp_path_factory):
  """The site, whose tutorials were executed, and how building it ended."""
  missing = [name for name in ('sphinx', 'myst_nb', 'sphinx_book_theme')
             if importlib.util.find_spec(name) is None]
  if missing:
    pytest.skip(f'{", ".join(missing)}: pip install -e ".[docs]"')
  # As a user builds it: without the virtual devices of the tests, and with
  # the optimisation that tests leave out.
  env = {name: value for name, value in os.environ.items() if name not in (
      'XLA_FLAGS', 'JAX_DISABLE_MOST_OPTIMIZATIONS', 'PYTHONWARNINGS')}
  site = tmp_path_factory.mktemp('site')
  done = subprocess.run(
      [sys.executable, '-m', 'sphinx', '-q', '-W', '--keep-going', DOCS, site],
      env=env | {'JAX_PLATFORMS': 'cpu'}, capture_output=True, text=True,
      timeout=900, check=False)
  return site, done


class _Page(html.parser.HTMLParser):
  """What a page loads, what it links to, and its anchors."""

  def __init__(self, path):
    super().__init__()
    self.loaded, self.links, self.anchors, self.unnamed = [], [], {''}, []
    self.feed(path.read_text(encoding='utf-8'))

  def handle_starttag(self, tag, attrs):
    attrs = dict(attrs)
    self.anchors |= {attrs.get('id')}
    if tag == 'a':
      self.links.append(attrs.get('href', ''))
    elif tag in ('script', 'img', 'link'):
      self.loaded.append(attrs.get('src', attrs.get('href', '')))
    if tag == 'img' and not attrs.get('alt'):
      self.unnamed.append(attrs['src'])


def _pages(build):
  """The built pages by name; their text is read once."""
  return {path.relative_to(build[0]).as_posix(): _Page(path)
          for path in build[0].rglob('*.html')}


@pytest.mark.slow
def test_the_site_builds_without_warnings(build):
  assert build[1].returncode == 0, build[1].stderr[-2000:]


@pytest.mark.slow
def test_formulas_are_drawn_without_scripts(build):
  text = (build[0] / 'metrics.html').read_text(encoding='utf-8')
  assert '<math' in text and '$' not in re.sub(
      '<script.*?</script>', '', text, flags=re.S)


@pytest.mark.slow
def test_signatures_name_types_that_readers_know(build):
  text = (build[0] / 'reference.html').read_text(encoding='utf-8')
  assert 'ArrayLike' in text and '_SupportsArray' not in text


@pytest.mark.slow
def test_pages_load_nothing_from_a_network_and_describe_their_pictures(build):
  for name, page in _pages(build).items():
    assert page.loaded, name
    assert not [url for url in page.loaded if re.match(r'(?:https?:)?//', url)]
    assert not page.unnamed, name


@pytest.mark.slow
def test_links_of_the_site_lead_somewhere(build):
  pages, count = _pages(build), 0
  for name, page in pages.items():
    for link in page.links:
      if re.match(r'\w+:', link):
        continue
      target, _, anchor = link.partition('#')
      target = posixpath.normpath(
          posixpath.join(posixpath.dirname(name), target)) if target else name
      assert (build[0] / target).is_file(), f'{name}: {link}'
      if target in pages:
        assert anchor in pages[target].anchors, f'{name}: {link}'
        count += 1
  assert count > 500


# What a tutorial prints, and what its text says about it.
_SAID = {
    'images': (r'content .* robot of *(\d+)%.*\nstyle .* robot of *(\d+)%.*\n'
               r'pixels .* robot of *(\d+)%',
               lambda content, style, pixels: content > 60 and max(
                   style, pixels) < 40),
    'arrays': (r"(?s)'content': '(\d+)%', 'style': '(\d+)%'"
               r".*'content': '(\d+)%', 'style': '(\d+)%'",
               lambda content, style, content2, style2: content > 80
               and 35 < style < 65 and content2 > 90 and style2 < 20),
    'groupings': (r'letter +(\d+)% +(\d+)%\nfont +(\d+)% +(\d+)%\n'
                  r'style +(\d+)% +(\d+)%',
                  lambda a, b, c, d, e, f: a > 70 and d > 45 and max(
                      b, c, e, f) < 25),
    'jax_program': (r'variance of the target: (\d)\.(\d\d)\n'
                    r'before: .*\nafter:  (\d)\.(\d\d)',
                    lambda a, b, c, d: 100 * a + b > 3 * (100 * c + d)),
}


@pytest.mark.slow
@pytest.mark.parametrize('name', [
    path.stem for path in sorted((DOCS / 'tutorials').glob('*.md'))])
def test_tutorials_print_what_they_say(build, name):
  path = build[0] / 'tutorials' / f'{name}.html'
  text = html.unescape(re.sub('<.*?>', '', path.read_text(encoding='utf-8')))
  pattern, holds = _SAID[name]
  found = re.search(pattern, text)
  assert found and holds(*map(int, found.groups())), found
  assert [url for url in _Page(path).loaded if '_images/' in url]
