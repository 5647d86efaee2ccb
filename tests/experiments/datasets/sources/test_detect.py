"""Sources of images: what is detected, what is read, what is bad."""

import base64
import hashlib
import json
import os

import numpy as np
import pytest

from experiments.cli import UserError
from experiments.datasets.sources import (
    detect,
    folder,
    folder_levels,
    records,
    tfds,
)
from tests.helpers.made_up import jpeg, line, write_folder, write_tsv

SIZES = {'a b': 3, 'Zoë': 1, '<script>': 2}


def _read(source, position=None):
  """All the records, as tuples without their positions."""
  return [r[:-1] for r in source.records(position)]


def _problems(source):
  """The file or line, and the problem, of each bad record."""
  return [(r.where.split('/')[-1], r.problem)
          for r in source.records() if r.problem]


def _tsv(path, *lines):
  path.write_bytes(b''.join(lines))
  return detect.detect(str(path))


@pytest.mark.parametrize('kind, expected', [
    ('folder', 'a folder per group, 3 of them, in '),
    ('tsv', 'faces/1.tsv, '),
    ('shards', '2 .tsv files in '),
])
def test_what_a_path_holds_is_detected_and_said(tmp_path, kind, expected):
  if kind == 'folder':
    path = write_folder(tmp_path / 'faces', SIZES)
  else:
    path = write_tsv(tmp_path / 'faces' / '1.tsv', SIZES)
  if kind == 'shards':
    write_tsv(tmp_path / 'faces' / '2.TSV', SIZES)
    (tmp_path / 'faces' / 'README.md').write_text('hello')
    path = path.parent
  source = detect.detect(str(path))
  assert expected in source.description
  assert len(_read(source)) == (12 if kind == 'shards' else 6)


def test_a_line_holds_group_rank_and_image(tmp_path):
  source = _tsv(tmp_path / 'x.tsv', line('m.0abc', 17, jpeg(0)))
  record, = source.records()
  assert record[:5] == (
      'm.0abc', f'{tmp_path}/x.tsv:1', 17, jpeg(0), None)
  assert record.size == source.total == len(line('m.0abc', 17, jpeg(0)))


def test_blank_lines_and_crlf_are_no_matter(tmp_path):
  lines = line('m.1', 0, b'image'), line('m.2', 0, b'image')
  source = _tsv(tmp_path / 'x.tsv', b'\n', lines[0].replace(b'\n', b'\r\n'),
                b'\r\n', b'\n', lines[1].rstrip(b'\n'))
  assert [(r.group, r.image, r.where[-2:]) for r in source.records()] == [
      ('m.1', b'image', ':2'), ('m.2', b'image', ':5')]


@pytest.mark.parametrize('text, problem', [
    (b'm.1\t0\turl\tpage\tface\tAAAA\n',
     'has 6 columns, expected 7: MID, rank, image URL, page URL, face ID, '
     'face rectangle, face data'),
    (b'one word\n', 'has 1 column, expected 7'),
    (line('', 0, b'x'), 'empty identity'),
    (line('  ', 0, b'x'), 'empty identity'),
    (line('m.1', 'first', b'x'), "search rank 'first'"),
    (line('m.1', '1.5', b'x'), "search rank '1.5'"),
    (line('m.1', '', b'x'), "search rank ''"),
    (line('m.1', 10**19, b'x'), "search rank '1000"),
    (line('m.1', b'\xff', b'x'), r"search rank '\\xff'"),
    (line('m.1', 0, b'x').replace(b'==', b'*='), 'bad base64'),
    (line('m.1', 0, b'xyz').replace(b'\n', b'A\n'), 'bad base64'),
    (line('m.1', 0, b''), 'no image data'),
])
def test_a_bad_line_says_what_is_wrong(tmp_path, text, problem):
  source = _tsv(tmp_path / 'x.tsv', line('m.1', 0, b'x'), text,
                line('m.1', 0, b'x'))
  (where, found), = _problems(source)
  assert where == 'x.tsv:2' and found.startswith(problem)


def test_a_group_that_is_not_utf8_has_a_readable_name(tmp_path):
  source = _tsv(tmp_path / 'x.tsv', line(b'm.\xff\xe9', 0, b'x'))
  assert next(source.records()).group == r'm.\xff\xe9'


def test_an_over_long_line_is_passed_over(tmp_path, monkeypatch):
  monkeypatch.setattr(records, '_MAX_LINE', 100)
  short = line('m.1', 0, b'x')
  source = _tsv(tmp_path / 'x.tsv', short, line('m.2', 0, bytes(500)), short,
                line('m.2', 0, bytes(500)).rstrip())
  assert [name for name, _ in _problems(source)] == ['x.tsv:2', 'x.tsv:4']
  assert [r.group for r in source.records() if not r.problem] == ['m.1'] * 2
  assert sum(r.size for r in source.records()) == source.total


@pytest.mark.parametrize('kind', ['folder', 'shards'])
def test_records_go_on_from_any_position(tmp_path, kind):
  if kind == 'folder':
    path = write_folder(tmp_path / 'faces', SIZES)
    (path / 'empty').mkdir()
  else:
    path = write_tsv(tmp_path / 'faces' / '1.tsv', SIZES).parent
    write_tsv(tmp_path / 'faces' / '2.tsv', SIZES)
    (path / '2.tsv').write_bytes(b'\nbad\n\n' + (path / '2.tsv').read_bytes())
  source = detect.detect(str(path))
  records = list(source.records())
  for i, record in enumerate(records):
    position = json.loads(json.dumps(record.position))
    assert list(source.records(position)) == records[i + 1:]


def test_every_file_is_a_record_but_what_is_hidden(tmp_path):
  root = write_folder(tmp_path, {'a': 3})
  (root / 'a' / 'notes.txt').write_text('hello')
  (root / 'a' / '.hidden.jpg').write_text('hello')
  (root / '.hidden').mkdir()
  (root / 'README.md').write_text('hello')
  records = list(detect.detect(str(root)).records())
  assert [r.where.split('/')[-1] for r in records] == [
      'README.md', '000.jpg', '001.jpg', '002.jpg', 'notes.txt']
  assert [(r.group, r.rank, r.problem) for r in records] == [
      ('', 0, 'lies in no group\'s folder'), *(
          ('a', i, None) for i in range(4))]


def test_groups_without_images_are_named(tmp_path):
  root = write_folder(tmp_path / 'faces', {'a': 1})
  (root / 'b vacant').mkdir()
  (root / 'c itself').symlink_to('c itself')
  (root / 'd nowhere').symlink_to('nowhere')
  (root / 'e parent').symlink_to('.')
  (root / 'f.tsv').mkdir()
  source = detect.detect(str(root))
  assert _problems(source) == [
      ('e parent',
       'is a link to a folder above it, or to one that was read already'),
      ('b vacant', 'holds no images'),
      ('c itself', 'cannot be listed: Too many levels of symbolic links'),
      ('d nowhere', 'cannot be listed: No such file or directory'),
      ('f.tsv', 'holds no images')]
  assert source.total == 6
  assert source.fingerprint() == detect.detect(str(root)).fingerprint()


def test_links_among_the_images_are_read_as_images(tmp_path):
  root = write_folder(tmp_path, {'a': 1})
  for name in ('loop.jpg', 'nowhere.jpg'):
    (root / 'a' / name).symlink_to(name)
  (root / 'a' / 'parent.jpg').symlink_to('..')
  (root / 'a' / 'same.jpg').symlink_to('000.jpg')
  assert detect.detect(str(root)).total == 5


def test_names_that_are_not_utf8_are_readable(tmp_path):
  folder = os.path.join(os.fsencode(tmp_path), b'\xff faces', b'b\xe9ta')
  try:
    os.makedirs(folder)
  except OSError:
    pytest.skip('this file system wants UTF-8')
  with open(os.path.join(folder, b'\xfe.jpg'), 'wb') as file:
    file.write(jpeg(0))
  source = detect.detect(os.fsdecode(os.path.dirname(folder)))
  record, = source.records()
  assert record.group == r'b\xe9ta'
  assert record.where.endswith(r'\xff faces/b\xe9ta/\xfe.jpg')
  assert source.description.endswith(r'\xff faces')
  assert os.path.exists(record.image)


@pytest.mark.parametrize('change', ['add', 'remove', 'rename', 'group'])
def test_a_changed_folder_has_another_fingerprint(tmp_path, change):
  root = write_folder(tmp_path / 'faces', SIZES)
  for group in SIZES:  # Clocks may tick slower than this test runs.
    os.utime(root / group, (1, 1))
  before = detect.detect(str(root)).fingerprint()
  assert before == detect.detect(str(root)).fingerprint()
  image = root / 'a b' / '000.jpg'
  if change == 'add':
    (root / 'a b' / 'new.jpg').write_bytes(jpeg(0))
  elif change == 'remove':
    image.unlink()
  elif change == 'rename':
    image.rename(root / 'a b' / 'new.jpg')
  else:
    write_folder(root, {'new': 1})
  assert detect.detect(str(root)).fingerprint() != before


@pytest.mark.parametrize('change', ['size', 'time', 'later'])
def test_an_image_that_is_mended_in_place_is_noticed(
    tmp_path, monkeypatch, change):
  root = write_folder(tmp_path / 'faces', SIZES)
  if change == 'later':  # Of more files, the first are looked at.
    monkeypatch.setattr(records, 'MAX_STATED', 2)
  path = root / 'a b' / '002.jpg'
  os.utime(path, (1, 1))
  os.utime(path.parent, (1, 1))
  before = detect.detect(str(root)).fingerprint()
  if change == 'size':
    path.write_bytes(jpeg(0) + b'more')
  os.utime(path, (1, 1 if change == 'size' else 2))
  os.utime(path.parent, (1, 1))
  after = detect.detect(str(root)).fingerprint()
  assert (after != before) == (change != 'later')


def test_fingerprints_of_tsv_files_stay_what_they_were(tmp_path):
  path = write_tsv(tmp_path / 'x.tsv', SIZES)
  os.utime(path, (7, 7))
  expected = json.dumps([['x.tsv', path.stat().st_size, 7_000_000_000]])
  assert detect.detect(str(path)).fingerprint() == (
      hashlib.sha256(expected.encode()).hexdigest())


@pytest.mark.parametrize('ranks, rank, top_k, expected', [
    ([], 5, 0, 0), ([], 5, 2, 0), ([3], 5, 2, 1), ([3, 4], 5, 2, None),
    ([3, 4], 4, 2, None), ([3, 4], 3, 2, 1), ([4, 3], 3, 2, 0),
    ([4, 4], -1, 2, 1), ([1, 2, 3], 9, 0, 3)])
def test_of_equal_ranks_the_image_that_came_first_is_kept(
    ranks, rank, top_k, expected):
  assert records.place(ranks, rank, top_k) == expected


def test_a_changed_tsv_has_another_fingerprint(tmp_path):
  path = write_tsv(tmp_path / 'x.tsv', SIZES)
  before = detect.detect(str(path)).fingerprint()
  write_tsv(path, SIZES | {'new': 1})
  changed = detect.detect(str(path)).fingerprint()
  os.utime(path, (1, 1))
  touched = detect.detect(str(path)).fingerprint()
  assert len({before, changed, touched}) == 3


def test_many_groups_are_not_listed_to_detect_them(tmp_path, monkeypatch):
  root = write_folder(tmp_path, {f'g{i}': 1 for i in range(5)})
  monkeypatch.setattr(tfds, '_MAX_DATA_SETS', 4)
  monkeypatch.setattr(folder_levels, '_FEW', 4)
  monkeypatch.setattr(records, 'MAX_STATED', 2)
  # Not all file systems count the folders in a folder.
  monkeypatch.setattr(folder, '_is_flat', lambda path: True)
  listed = []
  scandir = os.scandir
  monkeypatch.setattr(
      os, 'scandir', lambda path: (
          listed.append(path.rstrip('/')) or scandir(path)))
  source = detect.detect(str(root))
  assert set(listed) == {str(root), str(root / 'g0')}
  source.fingerprint()
  assert set(listed) == {str(root), str(root / 'g0'), str(root / 'g1')}


@pytest.mark.parametrize('path, message', [
    (None, 'needs --data_dir'),
    ('none', 'no folder .*none; check --data_dir'),
    ('notes.txt', '^/.*/notes.txt is neither a folder nor a .csv or .tsv file; '
     'check --data_dir'),
    ('vacant', 'holds no folders, no .tsv and no manifest.csv'),
])
def test_a_path_without_images_names_the_remedy(tmp_path, path, message):
  (tmp_path / 'vacant').mkdir()
  (tmp_path / 'notes.txt').write_text('hello')
  with pytest.raises(UserError, match=message):
    detect.detect(path and str(tmp_path / path))


# TFDS.


def _prepare(data_dir, name, labels, splits=('train',), key='label',
             alphabets=None):
  """A data set of TFDS in array_record, written without TensorFlow."""
  import tensorflow_datasets as tfds

  def _info(self):
    inner = tfds.features.Scalar(np.int64)
    features = {'image': tfds.features.Image(shape=(None, None, 3)), key: inner}
    if key == 'identity/Identity_No':
      features = features | {'identity': {'Identity_No': inner}}
      del features[key]
    if key == 'identity':
      features[key] = tfds.features.Text()
    if alphabets:
      features['alphabet'] = tfds.features.ClassLabel(num_classes=50)
    return tfds.core.DatasetInfo(
        builder=self, features=tfds.features.FeaturesDict(features),
        disable_shuffling=True)

  def _split_generators(self, dl_manager):
    del dl_manager
    return {split: self._generate_examples() for split in splits}

  def _generate_examples(self):
    for i, label in enumerate(labels):
      outer, _, inner = key.partition('/')
      yield i, {'image': jpeg(i), outer: {inner: label} if inner else label} | (
          {'alphabet': alphabets[i]} if alphabets else {})

  with tfds.core.registered.skip_registration():
    builder = type(name, (tfds.core.GeneratorBasedBuilder,), {
        'VERSION': tfds.core.Version('1.0.0'), 'name': name, '_info': _info,
        '_split_generators': _split_generators,
        '_generate_examples': _generate_examples, '__module__': __name__})
    builder(data_dir=data_dir, file_format='array_record').download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False))
  return data_dir / name


@pytest.mark.parametrize('key, labels, groups', [
    ('label', [3, 1, 3], ['3', '1', '3']),
    ('identity/Identity_No', [30, 10], ['30', '10']),
    ('identity', ['Zoë', b'\xff', ''], ['Zoë', r'\xff', '']),
])
def test_what_tfds_prepared_is_read_without_tensorflow(
    tmp_path, key, labels, groups):
  path = _prepare(tmp_path / 'tfds', 'faces', labels, key=key)
  for data_dir in (path.parent, path, path / '1.0.0'):
    source = detect.detect(str(data_dir))
    records = list(source.records())
    assert [r.group for r in records] == groups
    assert [r.image for r in records] == list(map(jpeg, range(len(labels))))
    assert [r.name for r in records] == [
        f'train[{i}]' for i in range(len(labels))]
    assert [r.problem for r in records] == [
        None if group else 'empty identity' for group in groups]
  assert f'{len(labels)} images' in source.description
  assert list(source.records(records[0].position)) == records[1:]


def test_all_splits_of_tfds_are_read_but_omniglots_subsets(tmp_path):
  path = _prepare(tmp_path, 'letters', [5, 6],
                  splits=('train', 'test', 'small1', 'small2'))
  source = detect.detect(str(path))
  assert [r.where.split()[-1] for r in source.records()] == [
      'test[0]', 'test[1]', 'train[0]', 'train[1]']
  assert source.total == 4


def test_alphabets_of_omniglot_are_a_grouping_if_they_are_named(tmp_path):
  path = _prepare(tmp_path, 'omniglot', [5, 6, 7], alphabets=[2, 2, 3])
  plain = detect.detect(str(path))
  assert plain.groupings == () and next(plain.records()).others == ()
  source = detect.detect(str(path), nested_groupings='alphabet/character')
  assert source.groupings == ('character', 'alphabet')
  assert [(r.group, *r.others) for r in source.records()] == [
      ('5', '2'), ('6', '2'), ('7', '3')]
  assert source.fingerprint() != plain.fingerprint()
  other = detect.detect(str(path), 'alphabet', 'auto', 0, 'alphabet/character')
  assert [r.group for r in other.records()] == ['2', '2', '3']
  unknown = detect.detect(str(path), nested_groupings='family/character')
  assert unknown.groupings == ()


def test_of_several_data_sets_of_tfds_one_must_be_chosen(tmp_path):
  for name in ('first', 'second'):
    _prepare(tmp_path, name, [0])
  with pytest.raises(UserError, match='point --data_dir at one of .*first, '):
    detect.detect(str(tmp_path))
  # Of one data set the newest is taken.
  old, new = tmp_path / 'first' / '1.0.0', tmp_path / 'first' / '1.0.1'
  new.mkdir()
  for file in old.iterdir():
    (new / file.name).write_bytes(file.read_bytes().replace(b'1.0.0', b'1.0.1'))
  os.utime(old / 'dataset_info.json', (1, 1))
  assert detect.detect(str(tmp_path / 'first')).description.endswith('1.0.1')


def test_what_tfds_prepared_without_groups_is_refused(tmp_path):
  path = _prepare(tmp_path, 'plain', [0], key='number')
  with pytest.raises(UserError, match='expected image, and identity or label'):
    detect.detect(str(path))


def test_what_tfds_prepared_and_is_damaged_is_one_error(tmp_path):
  path = _prepare(tmp_path, 'damaged', [0]) / '1.0.0'
  (path / 'dataset_info.json').write_text('{')
  with pytest.raises(UserError, match='cannot read the data set'):
    detect.detect(str(path))


def test_the_payload_may_be_any_bytes(tmp_path):
  text = line('m.1', 0, b'').rstrip() + b'\t' + base64.b64encode(b'GIF89a')
  source = _tsv(tmp_path / 'x.tsv', text.replace(b'\t\t', b'\t'))
  assert next(source.records()).image == b'GIF89a'
