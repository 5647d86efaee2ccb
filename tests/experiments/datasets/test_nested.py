"""Nested groupings, such as characters in alphabets, and splits by them."""

import dataclasses
import re
import shutil

import numpy as np
import pytest

from experiments import datasets
from experiments.cli import UserError
from experiments.config import presets
from experiments.datasets import folder
from experiments.datasets.sources import detect, folder_levels
from tests.helpers import ROOT
from tests.helpers.made_up import jpeg

_NESTED = 'alphabet/character'


def _write(root, alphabets=8, characters=3, images=2):
  """ALPHABET/CHARACTER/IMAGE; characters have the same names everywhere."""
  for a in range(alphabets):
    for c in range(characters):
      path = root / f'Alphabet_{a}' / f'character{c:02}'
      path.mkdir(parents=True)
      for i in range(images):
        (path / f'{i}.jpg').write_bytes(jpeg([a, c, i], 'L'))
  return root


def _config(data_dir, **changes):
  return dataclasses.replace(presets.PRESETS['omniglot'], **{
      'data_dir': str(data_dir), 'store_dir': f'{data_dir}.stores',
      'image_size': 8, 'split_by': 'alphabet', 'rotations_as_groups': False,
      'split_fractions': (0.25, 0.25)} | changes)


def _alphabets(data):
  """The alphabets of each split."""
  return [{part.labels_of('alphabet').names[i]
           for i in part.labels_of('alphabet').ids} for part in data.parts]


def _check_split(data, num_alphabets):
  alphabets = _alphabets(data)
  assert sum(map(len, alphabets)) == num_alphabets and all(alphabets)
  assert not data.shares_groups and data.grouping == 'character'


def test_no_character_of_a_test_alphabet_is_trained_on(tmp_path):
  root = _write(tmp_path / 'x')
  data = datasets.load(_config(root))
  _check_split(data, 8)
  assert sum(part.num_groups for part in data.parts) == 24
  assert data.train.names[0].startswith('Alphabet_')
  assert data.train.names[0].split('/')[1].startswith('character')
  # Its store is used when the folder is gone.
  shutil.rmtree(root)
  again = datasets.load(_config(root))
  np.testing.assert_array_equal(again.test.x, data.test.x)


def test_factors_of_both_groupings(tmp_path):
  root = _write(tmp_path / 'x')
  for factors, first in (('a:4:alphabet,b:4:character', 'alphabet'),
                         ('b:4:character,a:4:alphabet', 'character')):
    data = datasets.load(_config(root, factors=factors, split_by='group'))
    assert data.grouping == first and set(data.train.groupings) == {
        'alphabet', 'character'}
    assert not set(data.train.names) & set(data.test.names)


def test_folders_of_one_level_have_the_last_grouping_only(tmp_path):
  root = _write(tmp_path / 'x') / 'Alphabet_0'
  named, plain = (
      datasets.load(_config(root, split_by='group', nested_groupings=names))
      for names in (_NESTED, ''))
  assert named.train.groupings == plain.train.groupings == ('character',)
  for one, other in zip(named.parts, plain.parts):
    assert one.names == other.names
    np.testing.assert_array_equal(one.x, other.x)
  assert named.content == plain.content
  with pytest.raises(UserError, match='alphabet is not a grouping'):
    datasets.load(_config(root))


def test_a_group_level_counts_before_nested_groupings(tmp_path):
  root = _write(tmp_path / 'x')
  data = folder.open_images(_config(root, group_level=2))
  assert set(data.names) == {'character00', 'character01', 'character02'}


def test_images_that_lie_deeper_than_names(tmp_path):
  _write(tmp_path / 'x' / 'images_background')
  _write(tmp_path / 'x' / 'images_evaluation')
  with pytest.raises(UserError, match='images_background/Alphabet_0/char'):
    datasets.load(_config(tmp_path / 'x'))
  # Three names, three levels.
  source = detect.detect(
      str(tmp_path / 'x'), nested_groupings=f'half/{_NESTED}')
  assert source.groupings == ('character', 'alphabet', 'half')
  record = next(source.records())
  assert (record.group, *record.others) == (
      'images_background/Alphabet_0/character00',
      'images_background/Alphabet_0', 'images_background')


@pytest.mark.parametrize('names', ['a/a', 'a//b', 'a b/c', '/a', 'A/a'])
def test_bad_names_of_groupings(names):
  with pytest.raises(ValueError, match='expected --nested_groupings as diff'):
    folder_levels.parse_groupings(names)
  with pytest.raises(ValueError, match='expected --nested_groupings as diff'):
    folder.check(_config('x', nested_groupings=names))


def test_a_table_of_alphabets_becomes_a_manifest(tmp_path, monkeypatch):
  # By the code in docs/data.md.
  data = tmp_path / 'omniglot'
  for number, path in enumerate(sorted(_write(tmp_path / 'y').glob('*/*'))):
    shutil.copytree(path, data / f'{number:04}')
  (tmp_path / 'alphabets.csv').write_text('character,alphabet\n' + ''.join(
      f'{i:04},"A, {i // 3}"\n' for i in range(24)))
  monkeypatch.chdir(tmp_path)
  text = (ROOT / 'docs' / 'data.md').read_text(encoding='utf-8')
  code, = re.findall(r'```python\n(import csv.*?)```', text, re.DOTALL)
  exec(code, {})
  _check_split(datasets.load(_config(data)), 8)
