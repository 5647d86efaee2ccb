"""The library's house rules: imports point down, and nothing prints."""

import ast
import pathlib

import pytest

LIBRARY = pathlib.Path(__file__).parents[1] / 'mlvae_jax'

# From the ground up: a module imports only what stands before it.
MODULES = (
    'normal', 'devices', 'augment', 'evidence', 'group_posteriors', 'factors',
    'likelihoods', 'convolution', 'networks', 'model', 'penalties',
    'objective', 'svi', 'inference', 'latents', 'batching', 'mixing', 'store',
    'feed', 'training', 'evaluation', 'seals', 'checkpoint', 'bounds',
    'probes', 'recognition',
    '__init__')
# What reads flags, files and pictures belongs to the experiments.
FOREIGN = (
    'experiments', 'absl', 'matplotlib', 'PIL', 'tensorflow', 'tqdm',
    'mlxtend')

FILES = sorted(path.stem for path in LIBRARY.rglob('*.py'))
each_file = pytest.mark.parametrize('name', FILES)


def _tree(name):
  return ast.parse((LIBRARY / f'{name}.py').read_text(encoding='utf-8'))


def _imported(name):
  """Full names of the modules that a file imports, wherever it does so."""
  for node in ast.walk(_tree(name)):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{name}.py has a relative import'
      if node.module == 'mlvae_jax':
        yield from (f'mlvae_jax.{alias.name}' for alias in node.names)
      else:
        yield node.module


def test_every_file_has_its_place():
  assert {path.parent for path in LIBRARY.rglob('*.py')} == {LIBRARY}
  assert set(FILES) <= set(MODULES), (
      'add the file to MODULES, where it belongs')


@each_file
def test_imports_point_down(name):
  modules = [module.split('.')[1] for module in _imported(name)
             if module.startswith('mlvae_jax.')]
  assert set(modules) <= set(MODULES[:MODULES.index(name)])


@each_file
def test_the_library_imports_neither_flags_nor_pictures(name):
  for module in _imported(name):
    top = module.split('.')[0]
    assert not top.startswith(FOREIGN), f'{name}.py imports {module}'


@each_file
def test_the_library_does_not_print(name):
  for node in ast.walk(_tree(name)):
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
      assert node.func.id != 'print', f'{name}.py prints, line {node.lineno}'


def test_public_names_exist_and_are_listed_once():
  import mlvae_jax

  assert len(set(mlvae_jax.__all__)) == len(mlvae_jax.__all__)
  assert all(hasattr(mlvae_jax, name) for name in mlvae_jax.__all__)
