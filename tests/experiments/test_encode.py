"""Codes that leave the project are those that the library gives."""

import errno
import json
import os

import numpy as np
from PIL import Image
import pytest

from experiments import encode
from experiments.cli import UserError
from experiments.config.library import make_model
from experiments.datasets.splits import Scale
from experiments.encoding import data_set, files, merging
from experiments.runs.reading import load_model
from experiments.runs.workdir import open_workdir, write_scale
import mlvae_jax
from mlvae_jax.grouping.normal import Normal
from tests.helpers import runs

GROUPS = {'anna, b.': 5, 'Zoë': 1, '李': 7, 's10': 2}


@pytest.fixture(name='photos')
def _photos(tmp_path):
  """Images of four groups, of one to seven images."""
  return write_images(tmp_path / 'photos', GROUPS)


def write_images(folder, groups, channels=1, seed=0):
  rng = np.random.default_rng(seed)
  for name, number in groups.items():
    (folder / name).mkdir(parents=True)
    for i in range(number):
      pixels = rng.integers(0, 256, (8, 8, channels), np.uint8)
      Image.fromarray(pixels if channels > 1 else pixels[..., 0]).save(
          folder / name / f'{i}.png')
  return folder


@pytest.fixture(name='run')
def _run(tmp_path, photos):
  """A run on these images."""
  config = runs.config(data_dir=str(photos), store_dir=str(tmp_path / 'store'))
  runs.untrained(tmp_path / 'run', config, (8, 8, 1))
  return str(tmp_path / 'run')


def _read(folder, name):
  with np.load(os.path.join(folder, f'{name}.npz')) as file:
    return dict(file)


def _pixels(photos, sources):
  return np.stack([np.asarray(Image.open(photos / name)) for name in sources])


def test_codes_of_images_and_groups(run, photos, tmp_path):
  out = str(tmp_path / 'out')
  paths = data_set.encode_run(run, out)
  assert [os.path.basename(path) for path in paths] == [
      'about.json', 'evidence.npz', 'groups_content.npz', 'images.npz']
  assert set(os.listdir(tmp_path)) == {'out', 'photos', 'run', 'store'}
  images, groups = _read(out, 'images'), _read(out, 'groups_content')
  assert set(images) == {
      'source', 'group', 'content_mean', 'content_variance', 'style_mean',
      'style_variance'}
  assert sorted(images['source']) == sorted(
      f'{name}/{i}.png' for name, number in GROUPS.items()
      for i in range(number))
  assert all(source.split('/')[0] == group for source, group in zip(
      images['source'], images['group']))
  assert groups['name'].tolist() == sorted(GROUPS)
  assert groups['count'].tolist() == [GROUPS[n] for n in sorted(GROUPS)]
  model, params = load_model(run)
  x = _pixels(photos, images['source'])[..., None]
  for name, q in mlvae_jax.posteriors(model, params, x).items():
    np.testing.assert_allclose(images[f'{name}_mean'], q.mean, atol=1e-5)
    np.testing.assert_allclose(
        images[f'{name}_variance'], np.exp(q.logvar), rtol=1e-4)
  ids = np.searchsorted(groups['name'], images['group'])
  q = mlvae_jax.encode_group(model, params, x, ids, 4)
  np.testing.assert_allclose(groups['mean'], q.mean, atol=1e-5)
  np.testing.assert_allclose(groups['variance'], np.exp(q.logvar), rtol=1e-4)
  about = json.loads((tmp_path / 'out' / 'about.json').read_text())
  assert about['step'] == 0 and about['num_images'] == 15


def test_parquet_has_the_same_columns(run, tmp_path):
  parquet = pytest.importorskip('pyarrow.parquet')
  data_set.encode_run(run, str(tmp_path / 'npz'))
  data_set.encode_run(run, str(tmp_path / 'out'), file_format='parquet')
  for name in ('images', 'groups_content'):
    expected = _read(tmp_path / 'npz', name)
    table = parquet.read_table(tmp_path / 'out' / f'{name}.parquet')
    assert table.column_names == list(expected)
    for column, values in expected.items():
      assert table[column].to_pylist() == values.tolist()


def test_blocks_and_shards_do_not_show(run, tmp_path, monkeypatch):
  parquet = pytest.importorskip('pyarrow.parquet')
  data_set.encode_run(run, str(tmp_path / 'whole'))
  monkeypatch.setattr(data_set, '_SHARD_ROWS', 4)
  data_set.encode_run(run, str(tmp_path / 'parts'))
  data_set.encode_run(run, str(tmp_path / 'rows'), file_format='parquet')
  for name in ('images', 'groups_content', 'evidence'):
    whole, parts = (
        _read(tmp_path / folder, name) for folder in ('whole', 'parts'))
    assert list(whole) == list(parts)
    for key, values in whole.items():
      if values.dtype.kind == 'f':
        np.testing.assert_allclose(parts[key], values, rtol=1e-5, atol=1e-6)
      else:
        np.testing.assert_array_equal(parts[key], values)
  file = parquet.ParquetFile(tmp_path / 'rows' / 'images.parquet')
  assert file.num_row_groups == 4 and file.metadata.num_rows == 15


def test_other_data_are_read_with_the_settings_of_the_run(run, tmp_path):
  new = write_images(tmp_path / 'new', {'x': 3, 'y': 2}, seed=1)
  data_set.encode_run(run, str(tmp_path / 'out'), data_dir=str(new))
  assert _read(tmp_path / 'out', 'groups_content')['name'].tolist() == [
      'x', 'y']


@pytest.mark.slow
def test_grey_images_among_colours(tmp_path):
  runs.untrained(tmp_path / 'rgb', runs.config(
      data_dir=str(tmp_path), store_dir=str(tmp_path / 'store')), (8, 8, 3))
  photos = write_images(tmp_path / 'photos', {'a': 2})
  data_set.encode_run(
      str(tmp_path / 'rgb'), str(tmp_path / 'out'), data_dir=str(photos))
  found = _read(tmp_path / 'out', 'images')
  model, params = load_model(str(tmp_path / 'rgb'))
  x = np.repeat(_pixels(photos, found['source'])[..., None], 3, axis=-1)
  np.testing.assert_allclose(
      found['style_mean'], mlvae_jax.infer(model, params, x)['style'],
      atol=1e-5)


def test_colours_are_not_grey(run, tmp_path):
  photos = write_images(tmp_path / 'colours', {'a': 2}, channels=3)
  with pytest.raises(UserError, match='has colour images.*convert the images'):
    data_set.encode_run(run, str(tmp_path / 'out'), data_dir=str(photos))
  assert not (tmp_path / 'out').exists()


def _arrays(tmp_path, **changes):
  """A run on vectors with two groupings, and the path of its data."""
  rng = np.random.default_rng(0)
  path = tmp_path / 'data.npz'
  np.savez(path, x=rng.normal(5, 3, (30, 6)).astype(np.float32),
           person=rng.integers(0, 4, 30),
           place=np.array(['home', '', 'away'])[rng.integers(0, 3, 30)])
  config = runs.config('arrays', **{
      'factors': 'content:3:person,scene:2:place,style:2',
      'likelihood': 'gaussian', 'data_dir': str(path),
      'standardise': True} | changes)
  runs.untrained(tmp_path / 'run', config, (6,))
  return str(tmp_path / 'run'), dict(np.load(path))


@pytest.mark.slow
def test_several_groupings_of_standardised_rows(tmp_path):
  run, data = _arrays(tmp_path)
  scale = Scale(np.full(6, 5, np.float32), np.full(6, 3, np.float32))
  write_scale(run, scale)
  data_set.encode_run(run, str(tmp_path / 'out'))
  images = _read(tmp_path / 'out', 'images')
  assert list(images)[:3] == ['source', 'person', 'place']
  row = images['source'].astype(int)
  assert sorted(row) == list(range(30))
  assert images['person'].astype(int).tolist() == data['person'][row].tolist()
  np.testing.assert_array_equal(images['place'], data['place'][row])
  model, params = load_model(run)
  x = (data['x'] - scale.mean) / scale.std
  np.testing.assert_allclose(
      images['style_mean'], mlvae_jax.infer(model, params, x[row])['style'],
      atol=1e-5)
  scenes = _read(tmp_path / 'out', 'groups_scene')
  assert scenes['name'].tolist() == ['away', 'home']  # Not the unknown ones.
  known = data['place'] != ''
  ids = (data['place'][known] == 'home').astype(np.int32)
  q = mlvae_jax.encode_group(model, params, x[known], ids, 2, factor='scene')
  np.testing.assert_allclose(scenes['mean'], q.mean, atol=1e-5)


@pytest.mark.slow
def test_a_manifest_with_several_groupings(run, photos, tmp_path):
  places = ('in, "side"', '', 'outside')
  lines = ['path,person,place'] + [
      f'"{path.relative_to(photos)}","{path.parent.name}","'
      + places[i % 3].replace('"', '""') + '"'
      for i, path in enumerate(sorted(photos.glob('*/*.png')))]
  (photos / 'manifest.csv').write_text('\n'.join(lines), encoding='utf-8')
  with pytest.raises(
      UserError, match="'group', but .*photos has only the groupings person"):
    data_set.encode_run(run, str(tmp_path / 'out'))
  config = runs.config(
      factors='content:3:person,scene:2:place,style:2', data_dir=str(photos),
      store_dir=str(tmp_path / 'store'))
  runs.untrained(tmp_path / 'run2', config, (8, 8, 1))
  data_set.encode_run(str(tmp_path / 'run2'), str(tmp_path / 'out'))
  images = _read(tmp_path / 'out', 'images')
  assert set(images['place']) == set(places)
  assert _read(tmp_path / 'out', 'groups_content')['name'].tolist() == sorted(
      GROUPS)
  scenes = _read(tmp_path / 'out', 'groups_scene')
  assert scenes['name'].tolist() == [places[0], places[2]]
  assert scenes['count'].tolist() == [5, 5]


def test_rows_of_an_unknown_scale(tmp_path):
  run, _ = _arrays(tmp_path)
  with pytest.raises(UserError, match='no scale.npz'):
    data_set.encode_run(run, str(tmp_path / 'out'))
  run = str(tmp_path / 'run')
  write_scale(run, Scale(np.zeros(6, np.float32), np.full(6, 1e-3, np.float32)))
  with pytest.raises(UserError, match="near row '.*scale"):
    data_set.encode_run(run, str(tmp_path / 'out'))


@pytest.mark.slow
@pytest.mark.parametrize('dataset, changes, shape, split, number', [
    ('mnist5k', {'factors': 'content:3:digit,style:2', 'image_size': 28},
     (28, 28, 1), 'test', 500),
    ('shapes', {'factors': 'content:3:shape,hue:2:colour,style:2',
                'num_images': 300, 'image_size': 16}, (16, 16, 3), 'all', 300),
])
def test_data_sets_without_files(tmp_path, dataset, changes, shape, split,
                                 number):
  run = str(tmp_path / 'run')
  runs.untrained(run, runs.config(dataset, **changes), shape)
  data_set.encode_run(run, str(tmp_path / 'out'), split=split)
  images = _read(tmp_path / 'out', 'images')
  assert len(images['source']) == number == len(set(images['source']))
  assert images['source'][-1].startswith('test/')
  with pytest.raises(UserError, match='reads no files; leave out --data_dir'):
    data_set.encode_run(run, str(tmp_path / 'new'), data_dir=str(tmp_path))


def test_a_split_of_a_folder(run, tmp_path):
  counts = {}
  for split in ('train', 'validation', 'test', 'all'):
    try:
      data_set.encode_run(run, str(tmp_path / split), split=split)
      counts[split] = len(_read(tmp_path / split, 'images')['source'])
    except UserError as error:
      assert 'has no images in the split' in str(error)
      counts[split] = 0
  assert counts.pop('all') == sum(counts.values()) == 15


def test_a_vae_has_no_groups(tmp_path, photos):
  runs.untrained(tmp_path / 'run', runs.config(
      model='vae', data_dir=str(photos), store_dir=str(tmp_path / 'store')),
                 (8, 8, 1))
  paths = data_set.encode_run(str(tmp_path / 'run'), str(tmp_path / 'out'))
  assert [os.path.basename(path) for path in paths] == [
      'about.json', 'images.npz']
  assert set(_read(tmp_path / 'out', 'images')) == {
      'source', 'z_mean', 'z_variance'}


@pytest.mark.parametrize('changes, message', [
    ({'group_posterior': 'adaptive'}, 'Adaptive, is not a function of sums'),
    ({'factors': 'content:3:person,style:2'}, "grouped by 'person'"),
])
def test_runs_that_cannot_encode(tmp_path, photos, changes, message):
  runs.untrained(tmp_path / 'run', runs.config(
      data_dir=str(photos), store_dir=str(tmp_path / 'store'), **changes),
                 (8, 8, 1))
  with pytest.raises(UserError, match=message):
    data_set.encode_run(str(tmp_path / 'run'), str(tmp_path / 'out'))
  assert not (tmp_path / 'out').exists()


def test_svi_has_no_encoder(tmp_path):
  config = runs.config(model='svi', evidence='all')
  with open_workdir(str(tmp_path / 'run'), config, make_model(
      config, (8, 8, 1)), resume=False):
    pass
  with pytest.raises(UserError, match='svi has no encoder.*encode_group'):
    data_set.encode_run(str(tmp_path / 'run'), str(tmp_path / 'out'))


def test_data_that_cannot_be_encoded(run, tmp_path):
  empty, broken = tmp_path / 'empty', tmp_path / 'broken'
  (broken / 'a').mkdir(parents=True)
  (broken / 'a' / 'x.png').write_bytes(b'not an image')
  empty.mkdir()
  for folder, message in (
      (empty, 'expected one folder per group'), (broken, 'no usable image'),
      (tmp_path / 'none', 'no folder .*check --data_dir')):
    with pytest.raises(UserError, match=message):
      data_set.encode_run(run, str(tmp_path / 'out'), data_dir=str(folder))
  (broken / 'a' / 'y.png').write_bytes(
      (tmp_path / 'photos' / 's10' / '0.png').read_bytes())
  data_set.encode_run(run, str(tmp_path / 'out'), data_dir=str(broken))
  assert _read(tmp_path / 'out', 'images')['source'].tolist() == ['a/y.png']


def test_arrays_of_another_shape(tmp_path):
  run, _ = _arrays(tmp_path, standardise=False)
  np.savez(tmp_path / 'other.npz', x=np.ones((4, 7), np.float32),
           person=np.arange(4), place=np.arange(4))
  with pytest.raises(
      UserError, match=r'observations of shape \[7\].*takes \[6\]'):
    data_set.encode_run(
        run, str(tmp_path / 'out'), data_dir=str(tmp_path / 'other.npz'))


def test_codes_that_are_all_the_same_are_reported(run, tmp_path, monkeypatch,
                                                  capsys):
  """Also where they were encoded by an earlier try."""
  real, write = data_set.encode_rows, data_set._write

  def encode_rows(model, params, x):
    tiny = 1e-4 * np.arange(len(x))[:, None]
    return {name: Normal(0 * q.mean + tiny, q.logvar)
            for name, q in real(model, params, x).items()}

  monkeypatch.setattr(data_set, '_SHARD_ROWS', 4)
  data_set.encode_run(run, str(tmp_path / 'good'))
  assert 'nearly the same' not in capsys.readouterr().out
  monkeypatch.setattr(data_set, 'encode_rows', encode_rows)
  monkeypatch.setattr(data_set, '_write', lambda *_: 1 / 0)
  said = ('warning: all images have nearly the same codes: the encoder ignores '
          'its input')
  with pytest.raises(ZeroDivisionError):
    data_set.encode_run(run, str(tmp_path / 'same'))
  assert said in capsys.readouterr().out
  monkeypatch.setattr(data_set, '_write', write)
  data_set.encode_run(run, str(tmp_path / 'same'))
  assert said in capsys.readouterr().out


def test_what_is_there_is_left_alone(run, tmp_path):
  with pytest.raises(UserError, match='should be a folder.*--format'):
    data_set.encode_run(run, str(tmp_path / 'codes.parquet'))
  (tmp_path / 'out').mkdir()
  (tmp_path / 'out' / 'mine').touch()
  with pytest.raises(UserError, match='out exists already.*--output'):
    data_set.encode_run(run, str(tmp_path / 'out'))
  (tmp_path / 'new.partial').mkdir()
  (tmp_path / 'new.partial' / 'mine').touch()
  with pytest.raises(UserError, match='new.partial holds files that'):
    data_set.encode_run(run, str(tmp_path / 'new'))
  assert os.listdir(tmp_path / 'out') == ['mine']
  assert 'mine' in os.listdir(tmp_path / 'new.partial')


def test_an_interrupted_try_goes_on(run, tmp_path, monkeypatch, capsys):
  data_set.encode_run(run, str(tmp_path / 'whole'))
  monkeypatch.setattr(data_set, '_SHARD_ROWS', 4)
  calls = []

  def encode_rows(model, params, x, real=data_set.encode_rows):
    calls.append(len(x))
    if len(calls) == 3:
      raise KeyboardInterrupt
    return real(model, params, x)

  monkeypatch.setattr(data_set, 'encode_rows', encode_rows)
  with pytest.raises(KeyboardInterrupt):
    data_set.encode_run(run, str(tmp_path / 'out'))
  assert not (tmp_path / 'out').exists()
  data_set.encode_run(run, str(tmp_path / 'out'))
  assert calls == [4, 4, 4, 4, 3]
  assert 'resuming with 8 images' in capsys.readouterr().out
  assert not (tmp_path / 'out.partial').exists()
  np.testing.assert_allclose(
      _read(tmp_path / 'out', 'images')['style_mean'],
      _read(tmp_path / 'whole', 'images')['style_mean'], atol=1e-6)


def test_a_try_of_other_data_is_not_resumed(run, photos, tmp_path, monkeypatch,
                                            capsys):
  monkeypatch.setattr(data_set, '_SHARD_ROWS', 4)
  monkeypatch.setattr(data_set, '_write', lambda *_: 1 / 0)
  with pytest.raises(ZeroDivisionError):
    data_set.encode_run(run, str(tmp_path / 'out'))
  monkeypatch.undo()
  (photos / 's10' / '1.png').unlink()
  data_set.encode_run(run, str(tmp_path / 'out'))
  assert 'starting over' in capsys.readouterr().out
  assert len(_read(tmp_path / 'out', 'images')['source']) == 14


def test_one_process_at_a_time(run, tmp_path, monkeypatch):
  def write(*args, real=data_set._write):
    with pytest.raises(UserError, match='in use by process .*--output'):
      data_set.encode_run(run, str(tmp_path / 'out'))
    real(*args)

  monkeypatch.setattr(data_set, '_write', write)
  data_set.encode_run(run, f'{tmp_path}/out/')


def test_a_full_disk_keeps_what_was_done(run, tmp_path, monkeypatch, capsys):
  def write(*_):
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(files, 'write_table', write)
  with pytest.raises(UserError, match='no space left for .*out.*to resume'):
    data_set.encode_run(run, str(tmp_path / 'out'))
  monkeypatch.undo()
  data_set.encode_run(run, str(tmp_path / 'out'))
  assert 'resuming with 15 images' in capsys.readouterr().out


def test_parquet_needs_its_package(run, tmp_path, monkeypatch):
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  with pytest.raises(UserError, match=r'pip install .mlvae_jax\[parquet\]'):
    data_set.encode_run(run, str(tmp_path / 'out'), file_format='parquet')


def test_an_unfinished_run_is_encoded_with_a_warning(run, tmp_path, capsys):
  data_set.encode_run(run, str(tmp_path / 'out'))
  assert 'warning: this run is at step 0 of' in capsys.readouterr().out


def _same(found, expected):
  """Two folders hold the same codes."""
  assert sorted(os.listdir(found)) == sorted(os.listdir(expected))
  for name in ('images', 'groups_content', 'evidence'):
    one, other = _read(found, name), _read(expected, name)
    assert list(one) == list(other)
    for key in set(one) - {'about'}:
      if one[key].dtype.kind == 'f':
        np.testing.assert_allclose(one[key], other[key], rtol=1e-5, atol=1e-6)
      else:
        np.testing.assert_array_equal(one[key], other[key])


@pytest.mark.parametrize('file_format', ['npz', 'parquet'])
def test_parts_are_put_together_and_taken_away(run, tmp_path, file_format):
  pytest.importorskip('pyarrow')
  paths = {name: str(tmp_path / name) for name in (
      'whole', 'a', 'b', 'c', 'merged', 'ab', 'left', 'none')}
  data_set.encode_run(run, paths['whole'], file_format=file_format)
  for i, name in enumerate('abc'):
    data_set.encode_run(run, paths[name], share=(i, 3), file_format=file_format)
  abc = [paths[name] for name in 'abc']
  merging.merge(abc, (), paths['merged'])
  merging.merge(abc[:2], (), paths['ab'])
  merging.merge([paths['merged']], abc[2:], paths['left'])
  merging.merge([paths['left']], abc[:2], paths['none'])
  if file_format == 'npz':
    _same(paths['merged'], paths['whole'])
    _same(paths['left'], paths['ab'])
    for values in _read(paths['none'], 'images').values():
      assert len(values) == 0
  else:
    from pyarrow import parquet
    for found, expected in (('merged', 'whole'), ('left', 'ab')):
      one, other = (parquet.read_table(f'{paths[name]}/images.parquet')
                    for name in (found, expected))
      assert one.schema == other.schema
      assert one['source'] == other['source'] and one['group'] == other['group']
  whole, merged = (
      files.read_evidence(f'{paths[name]}/evidence.npz')[0]['content']
      for name in ('whole', 'merged'))
  assert whole.names == merged.names == tuple(sorted(GROUPS))
  about = json.loads((tmp_path / 'left' / 'about.json').read_text())
  assert about['num_images'] == 10 and len(about['removed']) == 1


def test_nothing_counts_twice(run, tmp_path):
  a, b, whole = (str(tmp_path / name) for name in ('a', 'b', 'whole'))
  data_set.encode_run(run, a, share=(0, 2))
  data_set.encode_run(run, b, share=(1, 2))
  data_set.encode_run(run, whole)
  for folders in ([a, a], [a, whole], [a, b, a]):
    with pytest.raises(UserError, match='would count twice'):
      merging.merge(folders, (), str(tmp_path / 'out'))
  with pytest.raises(UserError, match='cannot remove evidence about'):
    merging.merge([a], [b], str(tmp_path / 'out'))
  assert not (tmp_path / 'out').exists()


def test_codes_that_cannot_be_put_together(run, tmp_path):
  a, other = str(tmp_path / 'a'), str(tmp_path / 'other')
  data_set.encode_run(run, a)
  runs.untrained(tmp_path / 'run2', runs.config(
      data_dir=str(tmp_path / 'photos'), store_dir=str(tmp_path / 'store'),
      seed=1), (8, 8, 1))
  data_set.encode_run(str(tmp_path / 'run2'), other)
  with pytest.raises(UserError, match='differ in their model'):
    merging.merge([a, other], (), str(tmp_path / 'out'))
  with pytest.raises(UserError, match='photos has no about.json'):
    merging.merge([a, str(tmp_path / 'photos')], (), str(tmp_path / 'out'))
  for name in ('evidence', 'images'):
    path = tmp_path / 'other' / f'{name}.npz'
    content = path.read_bytes()
    path.write_bytes(content[:len(content) // 2])
    with pytest.raises(UserError, match=f'other/{name}.npz is .*damaged'):
      merging.merge([other], (), str(tmp_path / 'out'))
    path.write_bytes(content)


def test_parts_of_few_images(run, tmp_path):
  with pytest.raises(UserError, match='photos has too few images for 40 parts'):
    data_set.encode_run(run, str(tmp_path / 'out'), share=(0, 40))
  for text in ('1', '2/2', '-1/2', '1/0', 'a/b', '1/2/3'):
    with pytest.raises(ValueError, match='expected --part=I/N'):
      encode.parse_part(text)
  assert encode.parse_part('1/2') == (1, 2)
