"""The house rules: imports point down, and the library prints nothing."""

import ast
import graphlib

import pytest

from tests.helpers import ROOT

# From the ground up: a room imports only from itself and what stands before it.
ROOMS = {
    'mlvae_jax': (
        'devices', 'files', 'grouping', 'model', 'data', 'objective',
        'inference', 'training', 'measures', '__init__', 'sklearn'),
    'experiments': (
        '__init__', 'config.flags', 'cache', 'compiler', 'cli', 'config',
        'datasets.sources', 'datasets.store', 'datasets', 'runs', 'pictures',
        'evaluation', 'explorer', 'encoding', 'cluster', 'benchmarks', 'report',
        'figures', 'evaluate', 'prepare', 'export', 'encode', 'launch',
        'benchmark', 'many_groups', 'svi_comparison', 'train', 'studies',
        'study'),
}
# What reads flags, files and pictures belongs to the experiments.
FOREIGN = (
    'experiments', 'absl', 'matplotlib', 'PIL', 'tensorflow', 'tqdm',
    'mlxtend')
# What a file may import nevertheless, where a user asks for it.
OPTIONAL = {('mlvae_jax.training.progress', 'tqdm')}

FILES = {
    '.'.join(path.relative_to(ROOT).with_suffix('').parts): path
    for package in ROOMS for path in sorted((ROOT / package).rglob('*.py'))}
LIBRARY = [name for name in FILES if name.startswith('mlvae_jax.')]
each_file = pytest.mark.parametrize('name', FILES)
each_library_file = pytest.mark.parametrize('name', LIBRARY)


def _tree(name):
  return ast.parse(FILES[name].read_text(encoding='utf-8'))


def _imported(name):
  """Full names of what a file imports, wherever it does so."""
  for node in ast.walk(_tree(name)):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{name} has a relative import'
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


def _file_of(full):
  """The file that a full name is of or in; None for another package's."""
  while full:
    for name in (full, f'{full}.__init__'):
      if name in FILES:
        return name
    full = full.rpartition('.')[0]
  return None


def _room(name):
  """(package, room) of a file; the longest room that fits."""
  package, _, rest = name.partition('.')
  fitting = [room for room in ROOMS[package]
             if rest == room or rest.startswith(f'{room}.')]
  assert fitting, f'{name} is in no room: add it to ROOMS, where it belongs'
  return package, max(fitting, key=len)


def _imported_files(name):
  return {file for full in _imported(name)
          if (file := _file_of(full)) not in (None, name)}


@each_file
def test_imports_point_down(name):
  package, room = _room(name)
  below = ROOMS[package][:ROOMS[package].index(room) + 1]
  for file in _imported_files(name):
    of, imported = _room(file)
    assert of != package or imported in below, f'{name} imports {file}'
    assert (package, of) != ('mlvae_jax', 'experiments')


@pytest.mark.parametrize('package', ROOMS)
def test_rooms_are_there(package):
  assert {_room(name)[1] for name in FILES if name.startswith(package)} == set(
      ROOMS[package])


def test_no_imports_in_circles():
  tuple(graphlib.TopologicalSorter(
      {name: _imported_files(name) for name in FILES}).static_order())


@pytest.mark.parametrize(
    'name', [name for name in FILES if name.endswith('.chart')])
def test_charts_write_no_html(name):
  wrong = {file for file in _imported_files(name)
           if file.rpartition('.')[2] in ('web', 'formatting', 'tables')}
  assert not wrong, f'{name} imports {wrong}'


@each_library_file
def test_the_library_imports_neither_flags_nor_pictures(name):
  for module in _imported(name):
    top = module.split('.')[0]
    assert not top.startswith(FOREIGN) or (name, top) in OPTIONAL, (
        f'{name} imports {module}')


@each_library_file
def test_the_library_does_not_print(name):
  for node in ast.walk(_tree(name)):
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
      assert node.func.id != 'print', f'{name} prints, line {node.lineno}'
