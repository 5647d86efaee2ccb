"""Folders as users have them: what is read, and what is said of the rest."""

import base64
import dataclasses
import json
import struct
import zlib

import numpy as np
from PIL import Image
import pytest

from experiments import datasets
from experiments.cli import UserError
from experiments.config import presets
from experiments.datasets.sources import detect, records
from experiments.datasets.sources.images import (
    BadImageError,
    Pixels,
    read_image,
)
from experiments.datasets.store import opening
from tests.helpers.made_up import jpeg, line, write_folder, write_tsv

_NO_GROUP = 'lies in no group\'s folder'


def _write(root, *paths):
  """An image at each path."""
  for i, path in enumerate(paths):
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(jpeg(i))
  return root


def _text(root, **contents):
  """Text files by name; a double underscore stands for a dot."""
  root.mkdir(exist_ok=True)
  for name, text in contents.items():
    (root / name.replace('__', '.')).write_text(text)
  return root


def _prepare(root, size=8, **settings):
  return opening.open_or_prepare(
      str(root), image_size=size, store_dir=f'{root}.stores', **settings)


def _names(data):
  """The names of the rows of each group."""
  return {group: [name.decode() for name in data.row_names[start:stop]]
          for group, start, stop in zip(
              data.names, data.offsets, data.offsets[1:])}


def _bad(root):
  """The problem of each bad file, by its path below the folder."""
  path, = root.parent.glob(f'{root.name}.stores/*/bad_images.jsonl')
  rows = map(json.loads, path.read_text().splitlines())
  return {row['where'].removeprefix(f'{root}/'): row['problem']
          for row in rows}


def _notes(root, **choices):
  return detect.detect(str(root), **choices).notes


# Every file is used or named.


def test_the_content_of_a_file_counts_and_not_its_name(tmp_path):
  root = _write(tmp_path / 'x', 'a/1.jpg', 'a/2.jfif', 'a/3', 'b/4.JPE',
                'b/5.xyz')
  Image.new('L', (4, 4)).save(root / 'b' / '6.txt', 'PNG')
  (root / 'b' / '7.jpg').write_text('hello')
  (root / 'b' / 'notes.txt').write_text('hello')
  (root / 'b' / 'empty').write_text('')
  assert _names(_prepare(root)) == {
      'a': ['a/1.jpg', 'a/2.jfif', 'a/3'],
      'b': ['b/4.JPE', 'b/5.xyz', 'b/6.txt']}
  assert _bad(root) == dict.fromkeys(
      ['b/7.jpg', 'b/notes.txt', 'b/empty'],
      'is not an image of a known format')
  with pytest.raises(UserError, match='b/7.jpg: is not an image .*repair or'):
    _prepare(root, size=9, on_bad_image='fail')


def test_litter_is_passed_over_everywhere_and_strays_are_named(tmp_path):
  root = _write(tmp_path / 'x', 'a/1.jpg', 'b/1.jpg', '2.jpg', '.hidden/1.jpg')
  _text(root, README__md='hello')
  for place in (root, root / 'a', root / 'a' / 'inner'):
    _write(place, '__MACOSX/a/._1.jpg', '@eaDir/1.jpg', '$RECYCLE.BIN/1.jpg',
           'lost+found/1.jpg', 'System Volume Information/1.jpg', '.DS_Store',
           'Thumbs.db', 'desktop.ini', '#recycle/1.jpg')
  assert _names(_prepare(root)) == {'a': ['a/1.jpg'], 'b': ['b/1.jpg']}
  assert _bad(root) == {'2.jpg': _NO_GROUP, 'README.md': _NO_GROUP}


@pytest.mark.parametrize('name, expected', [
    ('.x', True), ('._a.jpg', True), ('THUMBS.DB', True), ('@eaDir', True),
    ('__MACOSX', True), ('#Recycle', True), ('thumbs', False),
    ('Ann', False), ('__init__', False), ('lost', False)])
def test_what_is_litter(name, expected):
  assert records.is_litter(name) == expected


def test_litter_is_no_shard_and_no_group(tmp_path):
  write_tsv(tmp_path / 'x' / 'a.tsv', {'m': 2})
  (tmp_path / 'x' / '._a.tsv').write_bytes(b'\0')
  (tmp_path / 'x' / '@eaDir').mkdir()
  _text(tmp_path / 'x', Thumbs__db='x')
  source = detect.detect(str(tmp_path / 'x'))
  assert len(list(source.records())) == 2 and not source.notes


@pytest.mark.parametrize('paths', [
    ['a/1.jpg', 'a/s/1.jpg', 'a/s/t/u/1.jpg', 'b/1.jpg'],
    ['a/s/1.jpg', 'a/s/2.jpg', 'a/t/1.jpg', 'b/s/1.jpg']])
def test_images_in_folders_inside_are_the_groups(tmp_path, paths):
  root = _write(tmp_path / 'x', *paths)
  found = _names(_prepare(root))
  assert found == {group: [p for p in paths if p[0] == group]
                   for group in found}
  assert sum(map(len, found.values())) == 4 and not _bad(root)


def test_an_image_deep_inside_that_changes_is_noticed(tmp_path):
  root = _write(tmp_path / 'x', 'a/s/1.jpg', 'b/s/1.jpg')
  assert len(_prepare(root)) == 2
  _write(root, 'b/s/2.jpg')
  assert len(_prepare(root)) == 3


def test_an_image_deep_inside_is_noticed_beyond_the_first_files(
    tmp_path, monkeypatch):
  root = _write(tmp_path / 'x', 'a/s/1.jpg', 'b/s/1.jpg')
  monkeypatch.setattr(records, 'MAX_STATED', 1)
  before = detect.detect(str(root)).fingerprint()
  _write(root, 'b/s/2.jpg')
  assert detect.detect(str(root)).fingerprint() != before


def test_loops_of_links_end_and_are_named(tmp_path):
  root = _write(tmp_path / 'x', 'a/s/1.jpg', 'b/1.jpg')
  for path, target in (('a/s/up', '..'), ('a/s/top', '../..'),
                       ('a/t', 's'), ('a/above', tmp_path), ('c', 'b'),
                       ('b/a', '../a'), ('whole', '.')):
    (root / path).symlink_to(target)
  assert _names(_prepare(root)) == {
      'a': ['a/s/1.jpg'], 'c': ['c/1.jpg', 'c/a/s/1.jpg'],
      'b': ['b/1.jpg', 'b/a/s/1.jpg']}
  bad = _bad(root)
  assert {'a/s/up', 'a/s/top', 'a/t', 'a/above', 'whole'} <= set(bad)
  assert all('is a link to a folder' in problem for problem in bad.values())


# Which folder is the group.


def test_one_folder_too_high_is_refused_with_both_readings(tmp_path):
  root = _write(tmp_path / 'x', *(
      f'all faces/in/{p}/{i}.jpg' for p in 'abc' for i in range(2)))
  _text(root, README__md='hello')
  (root / 'docs').mkdir()
  with pytest.raises(UserError) as error:
    _prepare(root)
  assert '\n' not in str(error.value)
  assert str(error.value).endswith(
      f'in 3 folders of {root}/all faces/in: --data_dir=\'{root}/all faces/in\''
      ' (or --group_level=3) takes these as the groups, --group_level=1 takes '
      'all images as one group, \'all faces\'')
  assert set(_names(_prepare(root, group_level=3))) == set('abc')
  assert set(_names(_prepare(root, group_level=1))) == {'all faces'}
  assert set(_names(_prepare(root / 'all faces' / 'in'))) == set('abc')


@pytest.mark.parametrize('paths', [
    ['a/1.jpg', 'a/s/1.jpg'], ['a/s/1.jpg'], ['a/s/1.jpg', 'b/1.jpg']])
def test_folders_that_can_only_be_groups_are_read(tmp_path, paths):
  assert len(_prepare(_write(tmp_path / 'x', *paths))) == len(paths)


@pytest.mark.parametrize('names', [
    ('train', 'val', 'test'), ('Training', 'Testing'), ('dev', 'eval'),
    ('train2017', 'val2017'), ('train_set', 'test_set')])
def test_folders_called_as_splits_are_not_the_groups(tmp_path, names):
  root = _write(tmp_path / 'x', *(
      f'{name}/{p}/{i}.jpg' for name in names for p in 'ab' for i in '12'))
  _write(root, f'{names[0]}/stray.jpg')
  with pytest.raises(UserError, match=(
      r'are named like splits \(.*\) and contain folders: --group_level=2 '
      'pools them and makes the inner folders the groups; '
      f'--data_dir={root}/{min(names)} reads one of them only; '
      f'--group_level=1 keeps {min(names)}.* and {max(names)} as the groups')):
    _prepare(root)
  data = _prepare(root, group_level=2)
  assert {group: len(rows) for group, rows in _names(data).items()} == {
      'a': 2 * len(names), 'b': 2 * len(names)}
  assert _bad(root) == {f'{names[0]}/stray.jpg': _NO_GROUP}
  assert len(_prepare(root / names[0])) == 4


def test_splits_that_hold_images_are_read(tmp_path):
  root = _write(tmp_path / 'x', 'train/1.jpg', 'test/1.jpg')
  assert set(_names(_prepare(root))) == {'train', 'test'}


def test_splits_may_be_insisted_on(tmp_path):
  root = _write(tmp_path / 'x', 'train/a/1.jpg', 'test/a/1.jpg')
  assert set(_names(_prepare(root, group_level=1))) == {'train', 'test'}


def test_pooled_folders_are_said(tmp_path):
  root = _write(tmp_path / 'x', 'p/a/1.jpg', 'q/a/1.jpg', 'q/b/1.jpg')
  source = detect.detect(str(root), group_level=2)
  assert source.description == (
      f'a folder per group, 2 of them, in {root}, at level 2, 3 folders pooled '
      'by name')
  found = list(source.records())
  assert [r.rank for r in found if r.group == 'a'] == [0, 1]
  assert list(source.records(found[0].position)) == found[1:]
  assert _notes(root) == (
      'each group\'s images lie in subfolders, such as p/a; --group_level=2 '
      'makes the subfolders the groups instead',)


def test_a_level_without_folders_is_refused(tmp_path):
  root = _write(tmp_path / 'x', 'a/1.jpg')
  with pytest.raises(UserError, match='no folders at level 3; choose another'):
    _prepare(root, group_level=3)
  write_tsv(tmp_path / 't.tsv', {'m': 1})
  with pytest.raises(UserError, match=(
      '--group_level applies only to folders of images, but --data_dir is read '
      'as: .*t.tsv.*; leave out --group_level')):
    _prepare(tmp_path / 't.tsv', group_level=1)


# Competing readings.


def _csv(root, name, rows):
  _text(root, **{name: 'path,person\n' + ''.join(
      f'{path},{group}\n' for path, group in rows)})


def test_a_csv_beside_one_folder_is_named_with_its_flag(tmp_path, capsys):
  root = _write(tmp_path / 'x y', 'img/1.jpg', 'img/2.jpg')
  _csv(root, 'labels.csv', [('img/1.jpg', 'a'), ('img/2.jpg', 'b')])
  assert len(_prepare(root).names) == 1
  out = capsys.readouterr().out
  assert f'data: a folder per group, 1 of them, in {root}\n' in out
  assert 'note: all images are one group, \'img\': no other folder of ' in out
  assert ('note: labels.csv also lists images; '
          f'--data_dir=\'{root}/labels.csv\' reads it instead\n') in out
  assert _bad(root) == {'labels.csv': _NO_GROUP}
  data = opening.open_or_prepare(
      f'{root}/labels.csv', image_size=8, store_dir=str(tmp_path / 's'))
  assert sorted(data.names) == ['a', 'b']
  assert sorted(_prepare(root, read_as='manifest').names) == ['a', 'b']


def test_a_csv_beside_images_without_folders_is_named(tmp_path):
  root = _write(tmp_path / 'x', '1.jpg', '2.jpg')
  _csv(root, 'labels.csv', [('1.jpg', 'a'), ('2.jpg', 'b')])
  with pytest.raises(UserError, match=(
      'holds no folders.*3 files lie directly in it, so if it is itself a '
      'group, give the folder above it; labels.csv also lists '
      f'images; --data_dir={root}/labels.csv reads it instead')):
    _prepare(root)


def test_a_table_of_anything_else_is_a_stray(tmp_path):
  root = _write(tmp_path / 'x', 'a/1.jpg', 'b/1.jpg')
  _text(root, ages__csv='person,age\na,7\n')
  assert not _notes(root)
  _prepare(root)
  assert _bad(root) == {'ages.csv': _NO_GROUP}


def test_a_manifest_wins_over_folders_and_says_so(tmp_path):
  root = _write(tmp_path / 'x', 'a/1.jpg', 'b/1.jpg', 'b/2.jpg')
  _csv(root, 'manifest.csv', [('a/1.jpg', 'p'), ('b/1.jpg', 'q')])
  _csv(root, 'other.csv', [('a/1.jpg', 'p')])
  assert _notes(root) == (
      'there are also 2 folders; --read_as=folders reads a folder per group '
      'instead',
      'other.csv also lists images; '
      f'--data_dir={root}/other.csv reads it instead')
  assert sorted(_prepare(root).names) == ['p', 'q']
  assert not _bad(root)  # What the user did not select is not bad.
  assert _names(_prepare(root, size=9, read_as='folders')) == {
      'a': ['a/1.jpg'], 'b': ['b/1.jpg', 'b/2.jpg']}
  assert not _notes(root / 'manifest.csv')


def test_a_manifest_that_is_none_names_the_other_reading(tmp_path):
  root = _text(_write(tmp_path / 'x', 'a/1.jpg'), manifest__csv='file,who\n')
  with pytest.raises(UserError, match='no column path.*--read_as=folders'):
    _prepare(root)


def test_notes_of_one_and_of_several(tmp_path):
  root = _write(tmp_path / 'x', 'a/1.jpg')
  _csv(root, 'manifest.csv', [('a/1.jpg', 'p')])
  _text(root, b__tsv='', c__tsv='')
  assert _notes(root) == (
      'b.tsv, c.tsv may hold images, too; --read_as=tsv reads them instead',
      'there is also 1 folder; --read_as=folders reads a folder per group '
      'instead')


def test_notes_are_left_out_where_no_flag_chooses(tmp_path, capsys):
  root = _write(tmp_path / 'x', 'a/1.jpg', 'b/1.jpg')
  _text(root, notes__tsv='a\tred hair\n')
  config = dataclasses.replace(
      presets.PRESETS['folder'], data_dir=str(root), image_size=8,
      store_dir=str(tmp_path / 's'))
  for show_notes in (True, False):
    datasets.load(config, show_notes)
    out = capsys.readouterr().out
    assert 'data: a folder per group' in out
    assert ('note: ' in out and '--read_as' in out) == show_notes


def test_a_tsv_of_notes_does_not_win_over_folders(tmp_path, capsys):
  root = write_folder(tmp_path / 'x', {'a': 2, 'b': 2})
  _text(root, notes__tsv='a\tred hair\nb\tglasses\n')
  assert len(_prepare(root)) == 4
  assert ('note: notes.tsv may hold images, too; --read_as=tsv reads it '
          'instead') in capsys.readouterr().out
  assert _bad(root) == {'notes.tsv': _NO_GROUP}


def test_a_tsv_of_faces_wins_over_folders_and_names_the_rest(tmp_path):
  root = write_folder(tmp_path / 'x', {'a': 2, 'b': 2})
  _text(root, README__md='hello')
  (root / 'faces.tsv').write_bytes(line('m', 0, jpeg(0)))
  assert _prepare(root).names == ('m',)
  assert _notes(root) == (
      f'3 other files or folders of {root} are ignored: a, b, README.md',
      'there are also 2 folders; --read_as=folders reads a folder per group '
      'instead')
  assert len(_prepare(root, read_as='folders')) == 4
  (root / 'faces.tsv').unlink()
  with pytest.raises(UserError, match=(
      '--read_as=tsv needs .tsv files in .*, which has none; check --data')):
    _prepare(root, read_as='tsv')


@pytest.mark.parametrize('read_as, message', [
    ('manifest', '--read_as=manifest needs a manifest.csv, or exactly one .csv '
     'with a column named \'path\', in .*; found none; check --data_dir or '),
    ('tfds', 'needs a data set prepared by TFDS in ')])
def test_a_reading_that_is_not_there_is_refused(tmp_path, read_as, message):
  root = write_folder(tmp_path / 'x', {'a': 1})
  with pytest.raises(UserError, match=message):
    _prepare(root, read_as=read_as)
  with pytest.raises(UserError, match=(
      'y holds no folders; expected one folder per group, with images; 1 ')):
    _prepare(_text(tmp_path / 'y', notes__tsv=''), read_as='folders')


def test_of_several_tables_one_must_be_chosen(tmp_path):
  root = _write(tmp_path / 'x', '1.jpg')
  for name in ('a.csv', 'b.csv'):
    _csv(root, name, [('1.jpg', 'a')])
  with pytest.raises(UserError, match=(
      'found 2; check --data_dir or point it at one .csv')):
    _prepare(root, read_as='manifest')


# Brightness.


def test_float_images_keep_their_brightness(tmp_path):
  root = tmp_path / 'x'
  (root / 'a').mkdir(parents=True)
  (root / 'b').mkdir()
  for name, value in (('a/1', 0.2), ('a/2', 0.6), ('b/1', 1.0), ('b/2', 2.0)):
    Image.fromarray(np.full((4, 4), value, np.float32)).save(
        root / f'{name}.tif')
  data = _prepare(root)
  assert {name.decode(): int(image.mean()) for name, image in zip(
      data.row_names, data.x)} == {
          'a/1.tif': 51, 'a/2.tif': 153, 'b/1.tif': 255}
  assert '--black and --white' in _bad(root)['b/2.tif']
  assert len(_prepare(root, white=2.0)) == 4


def test_one_bright_pixel_does_not_change_16_bit_images(tmp_path):
  root = tmp_path / 'x'
  (root / 'a').mkdir(parents=True)
  for top in (255, 256):
    pixels = np.full((64, 64), 200, np.uint16)
    pixels[0, 0] = top
    Image.fromarray(pixels).save(root / 'a' / f'{top}.png')
  assert np.ptp(_prepare(root).x.reshape(2, -1).mean(1)) < 0.1
  found = _prepare(root, white=256.0).x
  assert abs(found.mean() - 200 / 256 * 255) < 1


def _write_png_of_16_bits(path, colour_type, channels):
  """A PNG of 16 bits per colour, which Pillow reads and cannot write."""
  def chunk(kind, data):
    return (struct.pack('>I', len(data)) + kind + data
            + struct.pack('>I', zlib.crc32(kind + data)))

  rows = b''.join(b'\0' + struct.pack('>H', 300) * 8 * channels
                  for _ in range(8))
  path.write_bytes(
      b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack(
          '>IIBBBBB', 8, 8, 16, colour_type, 0, 0, 0))
      + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b''))


@pytest.mark.parametrize('colour_type, channels', [(2, 3), (4, 2), (6, 4)])
def test_a_scale_is_not_ignored_where_colours_have_16_bits(
    tmp_path, colour_type, channels):
  path = tmp_path / '1.png'
  _write_png_of_16_bits(path, colour_type, channels)
  assert read_image(str(path), 8).max() <= 1  # 300 of 65,535.
  for scale in ({'white': 600.0}, {'black': 0.0}):
    with pytest.raises(BadImageError, match='16 bits per colour, of which'):
      read_image(str(path), Pixels(8, **scale))


@pytest.mark.parametrize('largest, is_deep', [(4095, True), (65535, True),
                                              (255, False), (100, False)])
def test_nor_in_ppm_files(tmp_path, largest, is_deep):
  path = tmp_path / '1.ppm'
  value = (largest // 2).to_bytes(2 if is_deep else 1, 'big')
  path.write_bytes(b'P6\n8 8\n%d\n' % largest + value * 8 * 8 * 3)
  assert abs(read_image(str(path), 8).astype(int) - 127).max() <= 1
  if is_deep:
    with pytest.raises(BadImageError, match='16 bits per colour, of which'):
      read_image(str(path), Pixels(8, white=float(largest)))
  else:
    read_image(str(path), Pixels(8, white=65535.0))


@pytest.mark.parametrize('white', [0.0, -1.0])
def test_white_is_above_black(white):
  with pytest.raises(ValueError, match='above the value of black, 0'):
    datasets.check(dataclasses.replace(
        presets.PRESETS['folder'], data_dir='x', white=white))


# Cells that say that nothing is known.


@pytest.mark.parametrize('spelling', [
    'NaN', 'nan', 'NA', 'N/A', 'n/a', 'NULL', 'null', 'None', 'none', '-', '?',
    '#N/A'])
def test_spellings_of_missing_are_named_at_every_load(
    tmp_path, capsys, spelling):
  root = _write(tmp_path / 'x', '1.jpg', '2.jpg', '3.jpg')
  _text(root, manifest__csv='path,person,lamp\n1.jpg,a,sun\n'
        f'2.jpg,b,{spelling}\n3.jpg,{spelling},{spelling}\n')
  expected = [
      f'warning: {count} images have {spelling!r} as their {grouping}: it is '
      'taken as the name of a group; leave the cell empty if the group is '
      'unknown'
      for count, grouping in ((1, 'person'), (2, 'lamp'))]
  for _ in range(2):
    data = _prepare(root)
    out = capsys.readouterr().out.splitlines()
    assert [text for text in out if text.startswith('warning')] == expected
  assert spelling in data.others['lamp'].names


def test_folders_may_have_such_names(tmp_path, capsys):
  _prepare(write_folder(tmp_path / 'x', {'None': 1, 'a': 1}))
  assert 'warning' not in capsys.readouterr().out


# No image at all.


def test_lines_of_six_columns_are_said_to_be_short(tmp_path):
  path = tmp_path / 'x.tsv'
  path.write_bytes(b''.join(
      b'm\t%d\tu\tp\tf\t' % i + base64.b64encode(jpeg(i)) + b'\n'
      for i in range(15)))
  with pytest.raises(UserError, match=(
      'no usable image in .*x.tsv.*: 15 of 15 have 6 columns, expected 7: MID, '
      'rank, image URL, page URL, face ID, face rectangle, face data; see ')):
    opening.open_or_prepare(str(path), image_size=8, store_dir=str(tmp_path))


@pytest.mark.parametrize('make, message', [
    (lambda root: _text(_text(root / 'a', x__txt='1', y__txt='2').parent,
                        z__md='3'),
     '2 of 3 are not images of a known format; see .*/bad_images.jsonl$'),
    (lambda root: _text(root / 'a', x__txt='1'),
     'the only one is not an image of a known format; see '),
    (lambda root: _text(root, manifest__csv='path,who\n ,a\n'),
     'the only one has this problem: no path; see '),
    (lambda root: _text(root, manifest__csv='path,who\n'),
     'it contains no images; check --data_dir$'),
    (lambda root: (_write(root, '1.jpg', '2.jpg') / 'docs').mkdir(),
     '2 of 3 lie in no group\'s folder; put the images of each group into a '
     'folder of its own, or name images and groups in a manifest.csv; see '),
    (lambda root: [_text(root / name) for name in 'abc'],
     '3 of 3 hold no images; put images there, or choose another --data_dir'),
])
def test_the_commonest_problem_is_said_with_its_remedy(
    tmp_path, make, message):
  (tmp_path / 'x').mkdir()
  make(tmp_path / 'x')
  with pytest.raises(UserError, match=f'no usable image in .*: {message}'):
    _prepare(tmp_path / 'x')


def test_a_commonest_problem_that_is_there_once(tmp_path):
  _text(tmp_path / 'x', manifest__csv='path,who\n ,a\n../1.jpg,a\n')
  with pytest.raises(UserError, match=': 1 of 2 has this problem: no path; '):
    _prepare(tmp_path / 'x')


def test_problems_that_differ_in_numbers_are_of_one_kind(tmp_path):
  root = tmp_path / 'x'
  (root / 'a').mkdir(parents=True)
  for i in range(3):
    Image.fromarray(np.full((4, 4), 10 + i, np.float32)).save(
        root / 'a' / f'{i}.tif')
  _text(root, x__txt='', y__txt='')
  with pytest.raises(UserError, match=(
      ': 3 of 5 are like .*/a/0.tif: holds values from 10 to 10, expected'
      r' 0 \(black\) to 1 \(white\); set the scale with --black and --white')):
    _prepare(root)


@pytest.mark.parametrize('csv_path, image, message', [
    ('x/manifest.csv', 'x/img/1.jpg', 'are relative to .*/x; the file there is '
     'img/1.jpg, so correct the paths; see'),
    ('x/manifest.csv', 'y/1.jpg', 'paths are relative to .*/x; see'),
])
def test_images_that_lie_elsewhere_are_found(
    tmp_path, csv_path, image, message):
  _write(tmp_path, image)
  path = tmp_path / csv_path
  path.parent.mkdir(exist_ok=True)
  path.write_text('path,person\n1.jpg,a\n2.jpg,b\n')
  with pytest.raises(UserError, match=(
      f': 2 of 2 cannot be decoded: No such file or directory; .*{message}')):
    _prepare(tmp_path / 'x')


def test_images_outside_the_folder_of_a_csv_name_the_remedy(tmp_path):
  root = _text(tmp_path / 'x', faces__csv='path,who\n../1.jpg,a\n../2.jpg,b\n')
  with pytest.raises(UserError, match=(
      '2 of 2 are like .*faces.csv:2: path \'../1.jpg\' leads out of the '
      'folder of faces.csv; .* move the .csv')):
    _prepare(root / 'faces.csv')


# Proportions.


def test_a_store_is_of_one_way_to_resize(tmp_path):
  root = tmp_path / 'x'
  (root / 'a').mkdir(parents=True)
  Image.new('L', (8, 4), 255).save(root / 'a' / '1.png')
  assert _prepare(root).x.min() == 255
  padded = _prepare(root, resize='pad').x[0]
  assert (padded[2:6] == 255).all() and not padded[:2].any()
  np.testing.assert_array_equal(
      _prepare(root).x[0], read_image(str(root / 'a' / '1.png'), 8))
