"""The entry point that prepares a data set, as a user runs it."""

import dataclasses
import os
import subprocess
import sys

import pytest

from experiments import prepare
from experiments.config import presets
from experiments.datasets import folder
from experiments.datasets.store import packed
from tests.helpers import ROOT
from tests.helpers.made_up import write_folder, write_tsv


def _prepare(*args):
  return subprocess.run(
      [sys.executable, '-W', 'error', '-m', 'experiments.prepare', *args],
      cwd=ROOT, text=True, capture_output=True, timeout=300, check=False,
      env=os.environ | {'JAX_PLATFORMS': 'cpu'})


def _fails(result, code, message):
  """One line of stderr, no traceback; before it there may be a bar."""
  assert result.returncode == code, result.stderr
  last = result.stderr.splitlines()[-1]
  assert last.startswith('error: ') and message in last, result.stderr
  assert 'Traceback' not in result.stderr


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  """The flags and the result of preparing a small TSV."""
  root = tmp_path_factory.mktemp('prepared')
  path = write_tsv(root / 'faces.tsv', {f'm.{i}': 1 + i for i in range(8)})
  with open(path, 'ab') as file:
    file.write(b'bad line\n')
  flags = [f'--data_dir={path}', f'--store_dir={root / "stores"}',
           '--image_size=8', '--celeb_top_k=5']
  return root, flags, _prepare(*flags)


def test_what_is_found_and_prepared_is_said(prepared):
  root, _, result = prepared
  assert result.returncode == 0, result.stderr
  store, = (root / 'stores').glob('*/')
  assert result.stdout.splitlines() == [
      f'data: {root}/faces.tsv, {os.path.getsize(root / "faces.tsv") / 1e9:.3g}'
      ' GB',
      'sorting the images by group',
      f'packed store: 30 images of 8 groups in {store}; 1 bad image skipped, '
      f'see {store}/bad_images.jsonl',
      'images of 8 x 8 x 3, 1 to 5 per group, 7 groups with more than one',
      *(f'{name}: {count} images of {groups} groups' for name, count, groups in
        zip(('train', 'validation', 'test'), *_split_sizes(str(store))))]


def _split_sizes(store):
  data = packed.open_store(store)
  sizes = [data.offsets[b] - data.offsets[a]
           for a, b in ((0, 4), (4, 6), (6, 8))]
  return sizes, (4, 2, 2)


def test_a_flipped_bit_is_found_by_verify(prepared):
  root, flags, _ = prepared
  path, = (root / 'stores').glob('*/images.npy')
  data = bytearray(path.read_bytes())
  data[-1] ^= 1
  path.write_bytes(data)
  result = _prepare(*flags, '--verify')
  data[-1] ^= 1
  path.write_bytes(data)
  _fails(result, 1, 'checksum of images.npy is wrong); delete this folder')
  assert result.stderr.count('\n') == 1


@pytest.mark.slow
def test_errors_are_one_line(tmp_path):
  root = write_folder(tmp_path / 'x', {'a': 1, 'b c': 0})
  result = _prepare(f'--data_dir={root}', f'--store_dir={tmp_path / "s"}',
                    '--on_bad_image=fail')
  _fails(result, 1,
         f'{root}/b c: holds no images; repair or remove it, or skip')


def test_a_split_without_groups_is_shown(tmp_path, capsys):
  root = write_folder(tmp_path / 'x', {'a': 1})
  config = dataclasses.replace(
      presets.PRESETS['celeb'], data_dir=str(root), image_size=8,
      store_dir=str(tmp_path / 's'))
  prepare._show_splits(config, folder.open_images(config))
  lines = capsys.readouterr().out.splitlines()[-3:]
  assert sorted(line.partition(': ')[2] for line in lines) == [
      '0 images of 0 groups', '0 images of 0 groups', '1 images of 1 groups']
