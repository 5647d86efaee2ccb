"""The library as those meet it who only call it."""

import os
import subprocess
import sys

import pytest

from tests.helpers import ROOT

# What `pip install mlvae_jax` does not bring. (Optax brings absl.)
_EXTRA = ('matplotlib', 'mlxtend', 'PIL', 'sklearn', 'tensorboardX',
          'tensorflow', 'tensorflow_datasets', 'tqdm', 'experiments')
_WITHOUT = f"""
import importlib, pkgutil, sys

class Absent:
  def find_spec(self, name, path=None, target=None):
    if name.partition('.')[0] in {_EXTRA}:
      raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Absent())
import mlvae_jax
for module in pkgutil.walk_packages(mlvae_jax.__path__, 'mlvae_jax.'):
  if module.name != 'mlvae_jax.sklearn':  # It is for users of scikit-learn.
    importlib.import_module(module.name)
"""


def test_the_library_needs_nothing_of_the_experiments():
  done = subprocess.run(
      [sys.executable, '-W', 'error', '-c', _WITHOUT], cwd=ROOT, text=True,
      capture_output=True, check=False)
  assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('module', ['experiments.train', 'experiments.report'])
def test_commands_without_their_extra_say_how_to_get_it(tmp_path, module):
  blocked = tmp_path / 'sitecustomize.py'
  blocked.write_text(
      'from importlib import util\n'
      'found = util.find_spec\n'
      'util.find_spec = lambda name, *rest: (\n'
      '    None if name in ("tqdm", "PIL") else found(name, *rest))\n')
  done = subprocess.run(
      [sys.executable, '-m', module], cwd=ROOT, text=True,
      capture_output=True, check=False,
      env=os.environ | {'PYTHONPATH': str(tmp_path)})
  assert done.returncode == 1
  assert done.stderr.count('\n') == 1, done.stderr
  assert 'experiments need PIL, tqdm' in done.stderr
  assert "pip install -e '.[experiments]'" in done.stderr


def test_an_installed_library_is_typed():
  # A type checker reads the annotations of packages with this file only.
  setuptools = pytest.importorskip('setuptools')
  found = setuptools.Distribution()
  found.parse_config_files([ROOT / 'setup.cfg'])
  assert (ROOT / 'mlvae_jax' / 'py.typed').is_file()
  assert 'py.typed' in found.package_data['mlvae_jax']


def test_public_names_exist_and_are_listed_once():
  import mlvae_jax

  assert len(set(mlvae_jax.__all__)) == len(mlvae_jax.__all__)
  assert all(hasattr(mlvae_jax, name) for name in mlvae_jax.__all__)
