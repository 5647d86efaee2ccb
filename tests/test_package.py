"""What is installed: the library alone, with one version."""

import configparser
import re

import mlvae_jax
from tests.helpers import ROOT

_CONFIG = configparser.ConfigParser()
_CONFIG.read(ROOT / 'setup.cfg', encoding='utf-8')
_METADATA = _CONFIG['metadata']


def test_only_the_library_is_packaged():
  assert _CONFIG['options.packages.find']['include'].split() == ['mlvae_jax*']
  assert list(_CONFIG['options.package_data']) == ['mlvae_jax']
  for path in (ROOT / 'mlvae_jax').rglob('*.py'):
    assert (path.parent / '__init__.py').exists(), path
  # Which setuptools would put into the source distribution by itself.
  assert 'prune tests' in (ROOT / 'MANIFEST.in').read_text(encoding='utf-8')


def test_the_version_stands_once_and_is_that_of_the_changes():
  assert _METADATA['version'] == 'attr: mlvae_jax.__version__'
  text = (ROOT / 'CHANGELOG.md').read_text(encoding='utf-8')
  newest, remark = re.search(r'^## (\S+)(.*)$', text, re.M).groups()
  assert mlvae_jax.__version__ == newest + ('.dev0' if remark else '')


def test_the_metadata_name_the_versions_of_python_that_the_readme_does():
  text = (ROOT / 'README.md').read_text(encoding='utf-8')
  first, last = map(int, re.search(
      r'Python 3\.(\d+) to 3\.(\d+) is supported', text).groups())
  assert _CONFIG['options']['python_requires'] == f'>=3.{first}'
  assert re.findall(r'Python :: 3\.(\d+)$', _METADATA['classifiers'],
                    re.M) == [str(i) for i in range(first, last + 1)]
  assert 'https://arxiv.org/abs/1705.08841' in _METADATA['project_urls']
