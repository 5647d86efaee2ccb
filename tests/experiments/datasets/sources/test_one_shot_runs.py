"""One-shot runs in folders and zips, complete or not."""

import zipfile

import numpy as np
import pytest

from experiments.cli import UserError
from experiments.datasets.sources.one_shot_runs import read_runs
from tests.helpers import one_shot


def _zip(path, files):
  with zipfile.ZipFile(path, 'w') as archive:
    for name, content in files.items():
      archive.writestr(name, content)
  return str(path)


@pytest.mark.parametrize('outer', ['', 'all_runs/'])
@pytest.mark.parametrize('kind', ['folder', 'zip'])
def test_runs_are_read_from_folders_and_zips(tmp_path, kind, outer):
  files = {outer + name: content for name, content in one_shot.runs().items()}
  files[f'{outer}demo.py'] = b'print()'
  if kind == 'zip':
    files |= {f'__MACOSX/{outer}run01/test/._item01.png': b'',
              f'{outer}run01/test/': b''}
    path = _zip(tmp_path / 'x.zip', files)
  else:
    path = one_shot.write(tmp_path / 'x', files)
  found = read_runs(path)
  assert [run.name for run in found] == ['run01', 'run02']
  for number, run in enumerate(found, 1):
    order = np.random.default_rng(number).permutation(4)
    np.testing.assert_array_equal(run.answers, order)
    assert len(run.test) == len(run.training) == 4
    np.testing.assert_array_equal(
        run.test[2], one_shot.character(100 * number + order[2], 1))


@pytest.mark.parametrize('line', [
    'test/item01.png training/class02.png', 'item01.png class02.png',
    'all_runs/run01/test/item01.png all_runs/run01/training/class02.png'])
def test_names_may_start_anywhere(tmp_path, line):
  files = {name: content for name, content in one_shot.runs(1).items()
           if 'item' not in name or 'item01' in name}
  files['run01/class_labels.txt'] = f'\n {line} \r\n'.encode()
  run, = read_runs(one_shot.write(tmp_path, files))
  assert run.answers.tolist() == [1] and len(run.training) == 4


_ONE = 'run02/class_labels.txt'


def _without(*names):
  return lambda files: [files.pop(name) for name in names]


def _labels(change):
  def changed(files):
    files[_ONE] = change(files[_ONE].decode()).encode()
  return changed


@pytest.mark.parametrize(('change', 'message'), [
    (_without(_ONE), 'run02 has no class_labels.txt; complete'),
    (_without('run02/test/item03.png'),
     r"class_labels.txt:3: 'test/item03.png' is not among the 3"),
    (_without('run02/training/class01.png'), 'not among the 3 files in train'),
    (_labels(lambda text: text.replace('item02', 'item99')), 'item99.png'),
    (_labels(lambda text: text.replace('item02', 'item01')), 'a second time'),
    (_labels(lambda text: text[:text.index('\n') + 1]), 'no line for .*item02'),
    (_labels(lambda text: text.replace(' ', '', 1)),
     r'txt:1: expected a test and a training image, got'),
    (_labels(lambda text: ''), 'no line for'),
    (lambda files: files.update({'run02/test/item01.png': b'no PNG'}),
     'run02/test/item01.png is not an image of a known format; replace'),
    (lambda files: files.update({
        'run02/test/item01.png': files['run02/test/item01.png'][:60]}),
     'run02/test/item01.png cannot be decoded'),
    (lambda files: files.update({
        f'run03/{name.partition("/")[2]}': content
        for name, content in one_shot.runs(3, 3).items()
        if name.startswith('run03')}),
     'run03 has 3 test images, but run01 has 4'),
    (lambda files: files.update({
        f'other/{name}': content for name, content in files.copy().items()}),
     "several folders of runs, '', 'other/'; point")])
def test_incomplete_runs_are_one_error(tmp_path, change, message):
  files = one_shot.runs()
  change(files)
  for path in (one_shot.write(tmp_path / 'x', files),
               _zip(tmp_path / 'x.zip', files)):
    with pytest.raises(UserError, match=message) as error:
      read_runs(path)
    assert path in str(error.value) and '\n' not in str(error.value)


def test_no_runs(tmp_path):
  with pytest.raises(UserError, match='no folder or zip .*gone; check'):
    read_runs(str(tmp_path / 'gone'))
  with pytest.raises(UserError, match='holds no one-shot runs; expected'):
    read_runs(str(tmp_path))
  (tmp_path / 'x.zip').write_bytes(b'no zip')
  with pytest.raises(UserError, match='neither a folder nor a readable zip'):
    read_runs(str(tmp_path / 'x.zip'))
  with pytest.raises(UserError, match='no one-shot runs'):
    read_runs(_zip(tmp_path / 'empty.zip', {}))
