"""A CSV of paths and groups: header, rows, several groupings, bad input."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from experiments.cli import UserError
from experiments.config import presets
from experiments.datasets import folder, splits
from experiments.datasets.sources import detect, records
from experiments.datasets.sources.images import read_image
from experiments.datasets.store import opening, packed, packing
from tests.helpers import ROOT
from tests.helpers.made_up import jpeg

_HEADER = 'path,person,light'


def _write(root, *rows, header=_HEADER, end='\n', images=None):
  """A manifest.csv, and an image for every row that names one."""
  root.mkdir(exist_ok=True)
  (root / 'manifest.csv').write_bytes(
      ''.join(row + end for row in (header, *rows)).encode())
  names = [row.split(',')[0] for row in rows] if images is None else images
  for i, name in enumerate(names):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(jpeg(i))
  return root


def _grid(root, people='abcd', lights='xyz'):
  """An image of every person in every light."""
  return _write(root, *(
      f'{p}{light}.jpg,{p},{light}' for light in lights for p in people))


def _prepare(data_dir, store_dir, **settings):
  return opening.open_or_prepare(
      str(data_dir), image_size=8, store_dir=str(store_dir), **settings)


def _bad(store_dir):
  """Last part of the place, group and problem of what was passed over."""
  path, = store_dir.glob('*/bad_images.jsonl')
  rows = map(json.loads, path.read_text().splitlines())
  return {row['where'].split('/')[-1]: (row['group'], row['problem'])
          for row in rows}


def _rows(data, *groupings):
  """The pixels of each row with the names of its groups, None if unknown."""
  columns = [data.labels_of(name) for name in groupings or data.groupings]
  return {image.tobytes(): tuple(
      names[ids[i]] if ids[i] >= 0 else None for ids, names in columns)
          for i, image in enumerate(data.x)}


def _pixels(i):
  return read_image(jpeg(i), 8).tobytes()


def _config(data_dir, store_dir, **values):
  return dataclasses.replace(
      presets.PRESETS['folder'], image_size=8, data_dir=str(data_dir),
      store_dir=str(store_dir), **values)


# What is read.


def test_every_row_keeps_its_groups(tmp_path):
  root = _write(tmp_path / 'x', '1.jpg,Ann,lamp', 'a/2.jpg,Bo,sun',
                'a/b/3.jpg,Ann,sun', '4.jpg,Cy,lamp')
  data = _prepare(root, tmp_path / 's')
  assert data.groupings == ('person', 'light')
  assert _rows(data) == {
      _pixels(0): ('Ann', 'lamp'), _pixels(1): ('Bo', 'sun'),
      _pixels(2): ('Ann', 'sun'), _pixels(3): ('Cy', 'lamp')}
  assert sorted(data.names) == ['Ann', 'Bo', 'Cy']
  assert data.others['light'].names == ('lamp', 'sun')
  assert data.others['light'].ids.dtype == np.int32


@pytest.mark.parametrize('sort_by, first', [
    ('light', 'light'), ('person', 'person'), ('nothing', 'person'),
    (None, 'person')])
def test_rows_are_sorted_by_the_grouping_that_is_asked_for(
    tmp_path, sort_by, first):
  root = _grid(tmp_path / 'x')
  data = _prepare(root, tmp_path / 's', sort_by=sort_by)
  assert data.grouping == first and set(data.groupings) == {'person', 'light'}
  assert data.num_groups == {'person': 4, 'light': 3}[first]
  plain = _prepare(root, tmp_path / 'plain')
  assert _rows(data, 'person', 'light') == _rows(plain, 'person', 'light')


def test_without_a_group_an_image_is_a_group_of_its_own(tmp_path):
  root = _write(tmp_path / 'x', '1.jpg,,lamp', '2.jpg,Ann,', 'a/3.jpg,  ,""',
                '4.jpg,Ann,lamp', '5.jpg,,lamp')
  data = _prepare(root, tmp_path / 's')
  assert _rows(data) == {
      _pixels(0): ('1.jpg', 'lamp'), _pixels(1): ('Ann', None),
      _pixels(2): ('a/3.jpg', None), _pixels(3): ('Ann', 'lamp'),
      _pixels(4): ('5.jpg', 'lamp')}
  assert sorted(np.diff(data.offsets)) == [1, 1, 1, 2]


@pytest.mark.parametrize('end', ['\n', '\r\n', '\n\n', '\r\n \r\n'])
@pytest.mark.parametrize('bom', ['', '\ufeff'])
def test_windows_and_spreadsheets_are_no_matter(tmp_path, end, bom):
  rows = ['"a, b.jpg","Doe, ""J""",x', ' two  spaces .jpg, <script>,Zoë ',
          'Zoë/ñ 1.jpg,"日本",😀']
  names = ['a, b.jpg', ' two  spaces .jpg', 'Zoë/ñ 1.jpg']
  root = _write(tmp_path / 'x', *rows, header=f'{bom}path,"person", light',
                end=end, images=names)
  data = _prepare(root, tmp_path / 's')
  assert _rows(data) == {
      _pixels(0): ('Doe, "J"', 'x'), _pixels(1): ('<script>', 'Zoë'),
      _pixels(2): ('日本', '😀')}


def test_columns_may_come_in_any_order_and_number(tmp_path):
  root = _write(tmp_path / 'x', 'x,Ann,y,1.jpg', 'x,Bo,z,2.jpg',
                header='light,person,größe,path', images=['1.jpg', '2.jpg'])
  data = _prepare(root, tmp_path / 's', sort_by='person')
  assert data.groupings == ('person', 'light', 'größe')
  assert _rows(data) == {
      _pixels(0): ('Ann', 'x', 'y'), _pixels(1): ('Bo', 'x', 'z')}


def test_one_grouping_is_as_good_as_a_folder_per_group(tmp_path):
  rows = ['a/1.jpg,a', 'b/1.jpg,b', 'a/2.jpg,a']
  root = _write(tmp_path / 'x', *rows, header='path,person')
  data = _prepare(root, tmp_path / 's')
  (root / 'manifest.csv').unlink()
  plain = _prepare(root, tmp_path / 's', grouping='person')
  assert data.groupings == plain.groupings == ('person',)
  assert data.names == plain.names
  np.testing.assert_array_equal(data.x, plain.x)


def test_any_csv_and_images_of_any_extension_may_be_named(tmp_path):
  root = _write(tmp_path / 'x', 'photo,Ann,x')
  path = (root / 'manifest.csv').rename(root / 'Other.CSV')
  assert _rows(_prepare(path, tmp_path / 's')) == {_pixels(0): ('Ann', 'x')}
  with pytest.raises(UserError, match='holds no folders, no .tsv and no man'):
    detect.detect(str(root))


def test_rows_are_called_by_their_path_from_the_folder_of_the_csv(tmp_path):
  root = _write(tmp_path / 'x', images=['a/1.jpg', '2.jpg'])
  _write(root, f'{root}/a/1.jpg,Ann,x', 'a/.././2.jpg,Bo,x', images=())
  data = _prepare(root, tmp_path / 's')
  assert {name.decode(): data.names[label] for name, label in zip(
      data.row_names, data.labels)} == {'a/1.jpg': 'Ann', '2.jpg': 'Bo'}


def test_absolute_paths_and_dots_inside_are_allowed(tmp_path):
  root = _write(tmp_path / 'x', images=['1.jpg', '2.jpg'])
  _write(root, f'{root}/1.jpg,Ann,x', 'a/.././2.jpg,Bo,x', images=())
  assert set(_rows(_prepare(root, tmp_path / 's')).values()) == {
      ('Ann', 'x'), ('Bo', 'x')}


# Bad input.


def test_bad_rows_are_named_and_passed_over(tmp_path, capsys):
  outside = tmp_path / 'outside.jpg'
  outside.write_bytes(jpeg(9))
  (tmp_path / 'xx').mkdir()
  (tmp_path / 'xx' / '1.jpg').write_bytes(jpeg(9))
  problems = {
      'good.jpg,Ann,x': None,
      'few.jpg,Ann': '2 fields, expected 3',
      'many.jpg,Ann,x,y': '4 fields, expected 3',
      ',Ann,x': 'no path',
      '  ,Ann,x': 'no path',
      '../outside.jpg,Ann,x': "path '../outside.jpg' leads out of the folder",
      f'{outside},Ann,x': 'leads out of the folder',
      '../xx/1.jpg,Ann,x': 'leads out of the folder',
      'a/../../outside.jpg,Ann,x': 'leads out of the folder',
      '/etc/passwd,Ann,x': 'leads out of the folder',
      '.,Ann,x': 'leads out of the folder',
      'good.jpg,Bo,x': "'good.jpg' is named a second time",
      './a/../good.jpg,Ann,x': "'good.jpg' is named a second time",
      '"open.jpg,Ann,x': 'a quoted field does not end in its line',
      '"a"b.jpg,Ann,x': 'is not a row of CSV',
      'caf\udce9.jpg,Ann,x': 'is not UTF-8',
      'good2.jpg,Ann,x': None,
  }
  files = {
      'missing.jpg,Ann,x': ('missing.jpg', 'No such file'),
      'text.jpg,Ann,x': ('text.jpg', 'is not an image of a known format'),
      'cut.jpg,,x': ('cut.jpg', 'truncated'),
      'sub,Ann,x': ('sub', 'is not a file'),
      'nul\0.jpg,Ann,x': ('nul\0.jpg', 'null'),
      'l' * 300 + ',Ann,x': ('l' * 300, 'name too long'),
  }
  root = _write(tmp_path / 'x', images=['good.jpg', 'good2.jpg', 'cut.jpg'])
  (root / 'manifest.csv').write_bytes('\n'.join(
      [_HEADER, *problems, *files]).encode(errors='surrogateescape'))
  (root / 'text.jpg').write_text('hello')
  (root / 'cut.jpg').write_bytes(jpeg(2)[:-60])
  (root / 'sub').mkdir()
  data = _prepare(root, tmp_path / 's')
  assert _rows(data) == {_pixels(0): ('Ann', 'x'), _pixels(1): ('Ann', 'x')}
  bad = _bad(tmp_path / 's')
  expected = {f'manifest.csv:{i}': problem
              for i, problem in enumerate(problems.values(), 2) if problem}
  expected |= dict(files.values())
  assert set(bad) == set(expected)
  for where, problem in expected.items():
    assert problem.lower() in bad[where][1].lower(), where
  assert bad['cut.jpg'][0] == 'cut.jpg' and bad['text.jpg'][0] == 'Ann'
  assert f'{len(expected)} bad images skipped' in capsys.readouterr().out
  with pytest.raises(UserError, match='manifest.csv:3: 2 fields, expected 3'):
    _prepare(root, tmp_path / 's2', on_bad_image='fail')


def test_a_bad_quote_costs_one_row(tmp_path):
  root = _write(tmp_path / 'x', '"1.jpg,a,x', '2.jpg,a,x', '3.jpg,"a,x',
                '4.jpg,a,x', images=['2.jpg', '4.jpg'])
  assert len(_prepare(root, tmp_path / 's')) == 2
  assert list(_bad(tmp_path / 's')) == ['manifest.csv:2', 'manifest.csv:4']


def test_an_over_long_line_is_passed_over(tmp_path, monkeypatch):
  monkeypatch.setattr(records, '_MAX_LINE', 100)
  root = _write(tmp_path / 'x', '1.jpg,a,x', f'2.jpg,{"a" * 300},x',
                '3.jpg,a,x')
  assert len(_prepare(root, tmp_path / 's')) == 2
  assert 'MB in a line' in _bad(tmp_path / 's')['manifest.csv:3'][1]


@pytest.mark.parametrize('header, message', [
    ('', 'is empty; expected a header: path,GROUPING'),
    ('\n\r\n ', 'is empty'),
    ('file,person', "has no column path; .* found 'file, person'"),
    ('a.jpg,Ann', 'has no column path'),
    ('path;person', "separated by commas; found 'path;person'"),
    ('Path,person', 'has no column path'),
    ('path', 'has no column but path; add one for every grouping'),
    ('path,person,person', "has two columns 'person'; rename or remove"),
    ('path,person,Person', "has two columns 'person'"),
    ('path,person,path', "has two columns 'path'"),
    ('path,hair colour', "a column 'hair colour'; .* letters, digits and und"),
    ('path,person,', "a column ''"),
    ('path,1st', "a column '1st'"),
    ('path,a/b', "a column 'a/b'"),
    ('path,../../x', 'a column'),
    ('path,' + 'a' * 300, 'a column'),
    ('path,"person', 'does not end in its line; save it as CSV in UTF-8'),
    ('path,person\r1.jpg,Ann\r', 'bare carriage return, .* tr .* a line for'),
    ('path,caf\udce9', 'is not UTF-8; save it as CSV in UTF-8'),
    ('\udcff\udcfep\0a\0t\0h\0', 'is not UTF-8'),
])
def test_a_header_of_no_use_is_one_error(tmp_path, header, message):
  (tmp_path / 'manifest.csv').write_bytes(
      header.encode(errors='surrogateescape'))
  with pytest.raises(UserError, match=f'manifest.csv.*{message}') as error:
    _prepare(tmp_path, tmp_path / 's')
  assert '\n' not in str(error.value)
  assert not (tmp_path / 's').exists()


def test_a_manifest_without_images_is_one_error(tmp_path):
  root = _write(tmp_path / 'x')
  with pytest.raises(UserError, match='no usable image in .*manifest.csv'):
    _prepare(root, tmp_path / 's')
  (root / 'manifest.csv').unlink()
  (root / 'manifest.csv').symlink_to('nowhere')
  with pytest.raises(UserError, match='cannot read .*: No such file'):
    _prepare(root, tmp_path / 's')


def test_spaces_around_a_path_count_where_a_file_has_them(tmp_path):
  root = _write(tmp_path / 'x', ' 1.jpg ,Ann,x', ' 2.jpg,Bo, x', '   ,Cy,x',
                images=['1.jpg', ' 2.jpg', '2.jpg'])
  assert _rows(_prepare(root, tmp_path / 's')) == {
      _pixels(0): ('Ann', 'x'), _pixels(1): ('Bo', 'x')}
  assert list(_bad(tmp_path / 's')) == ['manifest.csv:4']


def test_backslashes_in_paths_are_named(tmp_path):
  root = _write(tmp_path / 'x', r'a\1.jpg,Ann,x', r'a\2.jpg,Bo,x',
                images=['a/1.jpg', 'a/2.jpg'])
  with pytest.raises(UserError, match='has backslashes, so write / between'):
    _prepare(root, tmp_path / 's')


def test_bare_carriage_returns_after_the_header_are_one_bad_row(tmp_path):
  root = _write(tmp_path / 'x', '1.jpg,Ann,x', '2.jpg,Ann,x\r3.jpg,Ann,x',
                images=['1.jpg'])
  assert len(_prepare(root, tmp_path / 's')) == 1
  assert 'bare carriage return' in _bad(tmp_path / 's')['manifest.csv:3'][1]


def test_an_image_without_a_group_is_not_put_into_a_group_named_like_it(
    tmp_path):
  root = _write(tmp_path / 'x', 'a/1.jpg,,x', '2.jpg,,x', '3.jpg,a/1.jpg,x',
                '4.jpg,a/1.jpg,x')
  assert _rows(_prepare(root, tmp_path / 's')) == {
      _pixels(1): ('2.jpg', 'x'), _pixels(2): ('a/1.jpg', 'x'),
      _pixels(3): ('a/1.jpg', 'x')}
  assert _bad(tmp_path / 's') == {'manifest.csv:2': ('a/1.jpg', (
      "has no person, and its path 'a/1.jpg' is the name of another row's "
      'group, so rename that group'))}


# The stream.


@pytest.mark.parametrize('start', range(9))
def test_records_go_on_from_any_position(tmp_path, start):
  root = _write(tmp_path / 'x', '1.jpg,a,x', '2.jpg,b,y', '1.jpg,c,', 'bad', '',
                '"open', '2.jpg,,x', '1.jpg,a,x', '3.jpg,a,x', '3.jpg,b,x',
                end='\r\n', images=())
  source = detect.detect(str(root))
  found = list(source.records())
  assert len(found) == source.total == 9
  assert [r.problem is None for r in found] == [
      True, True, False, False, False, False, False, True, False]
  position = json.loads(json.dumps(found[start].position))
  again = detect.detect(str(root))
  assert list(again.records(position)) == found[start + 1:]


_MEMORY = """
import os, sys
from experiments.datasets.sources import detect

for folder in sys.argv[1:]:
  pid = os.fork()
  if not pid:
    source = detect.detect(folder)
    assert sum(r.problem is None for r in source.records()) == source.total - 1
    os._exit(0)
  _, status, usage = os.wait4(pid, 0)
  assert status == 0
  print(usage.ru_maxrss)
"""


@pytest.mark.slow
def test_a_long_manifest_is_not_held(tmp_path):
  for name, num_rows in (('short', 1000), ('long', 100_000)):
    (tmp_path / name).mkdir()
    with open(tmp_path / name / 'manifest.csv', 'w') as file:
      file.write(_HEADER + '\n')
      for i in range(num_rows):
        file.write(f'some/rather/long/folder/{i:09}.jpg,person {i},light\n')
      file.write(f'some/rather/long/folder/{0:09}.jpg,person,light\n')
  result = subprocess.run(
      [sys.executable, '-c', _MEMORY, tmp_path / 'short', tmp_path / 'long'],
      cwd=ROOT, text=True, capture_output=True, timeout=300, check=False)
  assert result.returncode == 0, result.stderr
  short, long = map(int, result.stdout.split())
  assert (long - short) * 1024 < 80 * 100_000  # Bytes a row, all arrays.


_KILLED = """
import os, signal, sys
from experiments.datasets.store import opening, partial_store

done, calls = partial_store.PartialStore.done, []
def killing(images, record):
  done(images, record)
  calls.append(0)
  if len(calls) == 5:
    images.save()
  if len(calls) == 8:
    os.kill(os.getpid(), signal.SIGKILL)
partial_store.PartialStore.done = killing
opening.open_or_prepare(sys.argv[1], image_size=8, store_dir=sys.argv[2])
"""


def test_after_a_kill_the_same_store_is_made(tmp_path, capsys):
  root = _write(tmp_path / 'x', *(
      f'{i % 11}.jpg,{i % 4 or ""},{"xyz"[i % 3] if i % 5 else ""}'
      for i in range(12)))
  result = subprocess.run(
      [sys.executable, '-c', _KILLED, root, tmp_path / 's'], cwd=ROOT,
      capture_output=True, timeout=300, check=False)
  assert result.returncode == -9
  capsys.readouterr()
  _prepare(root, tmp_path / 's')
  assert 'resuming with 5 images' in capsys.readouterr().out
  _prepare(root, tmp_path / 'whole')
  found, whole = (
      {path.name: path.read_bytes() for path in (tmp_path / name).glob('*/*')}
      for name in ('s', 'whole'))
  assert found == whole and set(whole) == {
      'bad_images.jsonl', 'images.npy', 'labels-light.npy', 'manifest.json',
      'names-light.json', 'names.json', 'offsets.npy', 'row_names.npy'}


# The store.


def test_a_source_that_has_not_changed_is_not_prepared_again(
    tmp_path, monkeypatch):
  root = _grid(tmp_path / 'x')
  first = _rows(_prepare(root, tmp_path / 's'))
  monkeypatch.setattr(packing, 'prepare', None)
  assert _rows(_prepare(root, tmp_path / 's')) == first
  assert _rows(_prepare(root, tmp_path / 's', sort_by='person')) == first


@pytest.mark.parametrize('change', ['row', 'label', 'image', 'added'])
def test_a_source_that_has_changed_is_prepared_again(tmp_path, change):
  rows = ['1.jpg,a,x', '2.jpg,b,x', '3.jpg,b,y']
  root = _write(tmp_path / 'x', *rows, images=['1.jpg', '2.jpg'])
  _prepare(root, tmp_path / 's')
  time = (root / 'manifest.csv').stat().st_mtime_ns
  if change == 'row':
    _write(root, *rows, '4.jpg,a,z')
  elif change == 'label':
    _write(root, rows[0], '2.jpg,a,x', rows[2])
    os.utime(root / 'manifest.csv', ns=(time, time + 1))
  elif change == 'image':
    (root / '2.jpg').write_bytes(jpeg(7) + b'more')
  else:
    (root / '3.jpg').write_bytes(jpeg(7))
  data = _prepare(root, tmp_path / 's')
  expected = {_pixels(0): ('a', 'x'), _pixels(1): ('b', 'x')}
  assert _rows(data) == {
      'row': expected | {_pixels(2): ('b', 'y'), _pixels(3): ('a', 'z')},
      'label': {_pixels(0): ('a', 'x'), _pixels(1): ('a', 'x'),
                _pixels(2): ('b', 'y')},
      'image': {_pixels(0): ('a', 'x'), _pixels(7): ('b', 'x')},
      'added': expected | {_pixels(7): ('b', 'y')}}[change]


def test_without_its_source_a_store_is_used(tmp_path, capsys):
  root = _grid(tmp_path / 'x')
  first = _rows(_prepare(root, tmp_path / 's', sort_by='light'))
  root.rename(tmp_path / 'gone')
  assert _rows(_prepare(root, tmp_path / 's', sort_by='light')) == first
  assert 'does not exist; using its packed store' in capsys.readouterr().out


@pytest.mark.parametrize('name', ['labels-light.npy', 'names-light.json'])
@pytest.mark.parametrize('damage', ['flip', 'remove'])
def test_damage_to_a_grouping_is_found_at_open(tmp_path, name, damage):
  root = _grid(tmp_path / 'x')
  _prepare(root, tmp_path / 's')
  path, = (tmp_path / 's').glob(f'*/{name}')
  data = bytearray(path.read_bytes())
  data[-3] ^= 1
  path.unlink() if damage == 'remove' else path.write_bytes(data)
  with pytest.raises(UserError, match=f'{name}.*; delete this folder'):
    _prepare(root, tmp_path / 's')


@pytest.mark.parametrize('groupings', [5, [], None, ['a', 'b'], [None, {}]])
def test_a_manifest_of_odd_groupings_is_one_error_or_none(tmp_path, groupings):
  _prepare(_grid(tmp_path / 'x'), tmp_path / 's')
  path, = (tmp_path / 's').glob('*/manifest.json')
  path.write_text(json.dumps(
      json.loads(path.read_text()) | {'groupings': groupings}))
  if groupings:
    with pytest.raises(UserError, match='is damaged'):
      packed.open_store(str(path.parent))
  else:  # As in a store of a source that does not say its grouping.
    data = packed.open_store(str(path.parent), 'person')
    assert data.groupings == ('person',) and len(data) == 12


# Splits and runs.


def test_a_person_is_in_one_split_and_a_lamp_may_be_in_all(tmp_path):
  config = _config(
      _grid(tmp_path / 'x'), tmp_path / 's', split_by='group',
      factors='identity:4:person,light:4:light,style:2')
  found = folder.load(config)
  parts = [found.train, found.validation, found.test]
  assert found.grouping == 'person' and not found.shares_groups
  assert len({name for part in parts for name in part.names}) == 4
  for part in parts:
    assert part.labels_of('light').names == ('x', 'y', 'z')
    assert sorted(part.labels_of('light').ids) == sorted(
        list(range(3)) * part.num_groups)
  rows = {}
  for part in parts:
    rows |= _rows(part)
  assert rows == _rows(folder.open_images(config))


def test_images_are_split_with_all_their_groups(tmp_path):
  root = _grid(tmp_path / 'x', 'ab', map(str, range(10)))
  config = _config(root, tmp_path / 's', factors='light:4:person,style:2')
  found = folder.load(config)
  assert sum(len(part) for part in (
      found.train, found.validation, found.test)) == 20
  rows = _rows(folder.open_images(config))
  for part in (found.train, found.validation, found.test):
    assert _rows(part).items() <= rows.items()


@pytest.mark.parametrize('factors, sort_by', [
    ('a:4:light,b:4:person,s:2', 'light'), ('s:2,b:4:person', 'person'),
    ('s:2', None)])
def test_the_first_factors_grouping_comes_first(tmp_path, factors, sort_by):
  root = _grid(tmp_path / 'x')
  config = _config(root, tmp_path / 's', factors=factors, split_by='group')
  assert folder.store_settings(config)['sort_by'] == sort_by
  assert folder.load(config).grouping == (sort_by or 'person')
  assert folder.bad_images(config) is None


def test_a_grouping_that_is_no_column_fails_before_all_is_prepared(
    tmp_path):
  root = _grid(tmp_path / 'x')
  for dataset in ('folder', 'celeb'):
    preset = presets.PRESETS[dataset]
    config = _config(root, tmp_path / 's', dataset=dataset,
                     factors=preset.factors)
    with pytest.raises(UserError, match=(
        'manifest.csv has the groupings person, light; choose among them, as '
        'in --factors=content:')):
      folder.load(config)
  assert not (tmp_path / 's').exists()
  folder.load(dataclasses.replace(config, model='vae', split_by='group'))


def test_the_entry_point_says_what_a_manifest_holds(tmp_path):
  root = _grid(tmp_path / 'x')
  with open(root / 'manifest.csv', 'a') as file:
    file.write('ax.jpg,a,x\n')
  (root / 'bx.jpg').write_bytes(jpeg(50))
  result = subprocess.run(
      [sys.executable, '-W', 'error', '-m', 'experiments.prepare',
       f'--data_dir={root}', f'--store_dir={tmp_path / "s"}', '--image_size=8',
       '--factors=light:4:light,style:2', '--verify'],
      cwd=ROOT, text=True, capture_output=True, timeout=300, check=False,
      env=os.environ | {'JAX_PLATFORMS': 'cpu'})
  assert result.returncode == 0, result.stderr
  store, = (tmp_path / 's').glob('*/')
  assert result.stdout.splitlines() == [
      f'data: images named by {root}/manifest.csv, grouped by light, person',
      'sorting the images by group',
      f'packed store: 12 images of 3 groups in {store}; 1 bad image skipped, '
      f'see {store}/bad_images.jsonl',
      'all checksums are correct',
      'images of 8 x 8 x 3, 4 to 4 per group, 3 groups with more than one',
      'also grouped by person: 4 groups, 0 images without a label',
      'train: 8 images of 2 groups', 'validation: 4 images of 1 groups',
      'test: 0 images of 0 groups']


def test_tfds_gets_the_grouping_that_is_asked_for(tmp_path):
  from experiments.datasets import celeb_builder, celeb_index  # TFDS is slow.

  root = _grid(tmp_path / 'x', lights='xya')  # One for every split.
  builder = celeb_builder.write(
      str(root), str(tmp_path / 'tfds'), sort_by='light')
  data = _prepare(root, tmp_path / 's', sort_by='light')
  parts = splits.split_groups(data, celeb_index.FRACTIONS)
  names = [record['identity'].decode()
           for record in builder.as_data_source('train')]
  assert names == list(np.repeat(
      parts.train.names, np.diff(parts.train.offsets)))
