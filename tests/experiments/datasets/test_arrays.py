"""Arrays of the user's own: files, splits, bad input, and a whole run."""

import dataclasses
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from experiments import cli, datasets, evaluate, figures, report
from experiments.config.from_flags import make_config
from experiments.config.presets import PRESETS
from experiments.datasets import load
from experiments.datasets.sources import array_files
from experiments.evaluation import meaning
from experiments.pictures import tokens, vectors
from experiments.pictures.registry import draw_pictures
from experiments.pictures.subject import Subject
from experiments.runs import loop
from experiments.runs.build import check_values, make_model
from experiments.runs.reading import load_data
from experiments.runs.workdir import open_workdir, write_scale
from mlvae_jax.data.reordered import Reordered
from tests.helpers import ROOT, pictures

_PRESET = PRESETS['arrays']
_RNG = np.random.default_rng(0)
_LABELS = np.array(['red', 'white', 'rose'])[np.arange(60) % 3]
_X = _RNG.normal(5.0, 3.0, (60, 4)) + np.arange(60)[:, None] % 3
_REGION = np.arange(60) // 30


def _config(path, **changes):
  return dataclasses.replace(_PRESET, data_dir=str(path), **changes)


def _save(path, **changed):
  """An .npz of wine; changes of None leave an array out."""
  found = {'x': _X, 'label': _LABELS, 'region': _REGION} | changed
  np.savez(path, **{k: v for k, v in found.items() if v is not None})
  return path


def _rows(splits):
  return np.concatenate([np.asarray(part.x) for part in splits.parts])


# Files.


def test_npz(tmp_path):
  found = load(_config(_save(tmp_path / 'wine.npz'), standardise=False))
  assert found.grouping == 'label' and found.shares_groups
  assert found.train.groupings == ('label', 'region')
  assert [len(part) for part in found.parts] == [48, 6, 6]
  assert found.train.names == ('red', 'rose', 'white')
  rows = np.concatenate([
      np.asarray(part.x)[part.labels == 1] for part in found.parts])
  np.testing.assert_array_equal(
      np.sort(rows, axis=0), np.sort(_X[_LABELS == 'rose'], axis=0))


def test_npy_stays_on_disk_and_is_the_same_as_npz(tmp_path):
  np.save(tmp_path / 'wine.npy', _X)
  (tmp_path / 'wine.csv').write_text('label,region\n' + ''.join(
      f'{a},{b}\n' for a, b in zip(_LABELS, _REGION)))
  one = load(_config(tmp_path / 'wine.npy', standardise=False))
  other = load(_config(_save(tmp_path / 'wine.npz'), standardise=False))
  assert isinstance(one.train.x, Reordered)
  for a, b in zip(one.parts, other.parts):
    np.testing.assert_array_equal(np.asarray(a.x), b.x)
    np.testing.assert_array_equal(a.labels, b.labels)
  assert one.content == other.content


def test_csv_of_one_column_has_unknown_labels(tmp_path):
  np.save(tmp_path / 'a.npy', _X[:4])
  (tmp_path / 'a.csv').write_text('label\nx\n\ny\nx\n')
  found = array_files.read(str(tmp_path / 'a.npy'))
  assert found.labels['label'].tolist() == ['x', '', 'y', 'x']


@pytest.mark.parametrize('sparse', [False, True])
def test_h5ad(tmp_path, sparse):
  h5py = pytest.importorskip('h5py')
  x = _RNG.poisson(0.5, (60, 4)).astype(np.float32)
  with h5py.File(tmp_path / 'cells.h5ad', 'w') as file:
    obs = file.create_group('obs')
    obs.attrs['_index'] = '_index'
    obs.attrs['column-order'] = ['label', 'num_genes', 'batch']
    obs['_index'] = [f'cell{i}' for i in range(60)]
    obs['num_genes'] = np.arange(60.0)
    obs['batch'] = [f'b{i}' for i in _REGION]
    label = obs.create_group('label')
    label['categories'] = ['B', 'T']
    label['codes'] = np.where(np.arange(60) < 50, np.arange(60) % 2, -1)
    if sparse:
      group = file.create_group('X')
      group.attrs['encoding-type'] = 'csr_matrix'
      group.attrs['shape'] = x.shape
      rows, group['indices'] = np.nonzero(x)
      group['data'] = x[x > 0]
      group['indptr'] = np.searchsorted(rows, range(61))
    else:
      file['X'] = x
  found = array_files.read(str(tmp_path / 'cells.h5ad'))
  np.testing.assert_array_equal(found.x, x)
  assert set(found.labels) == {'label', 'batch'}
  assert found.labels['label'][[0, 1, 55]].tolist() == ['B', 'T', '']
  assert found.row_names[59] == b'cell59'
  splits = load(_config(
      tmp_path / 'cells.h5ad', standardise=False, likelihood='poisson'))
  assert sum(map(len, splits.parts)) == 60


# Splits.


def test_groups_are_split(tmp_path):
  path = _save(tmp_path / 'a.npz', label=np.arange(60) // 2)
  found = load(_config(path, split_by='group', standardise=False))
  assert not found.shares_groups
  names = [set(part.names) for part in found.parts]
  assert not names[0] & names[2] and sum(map(len, names)) == 30
  np.testing.assert_array_equal(np.sort(_rows(found), 0), np.sort(_X, 0))


def test_splits_by_name_do_not_change_with_other_rows(tmp_path):
  names = np.array([f'r{i}' for i in range(60)])
  whole = load(_config(
      _save(tmp_path / 'a.npz', row_names=names), standardise=False))
  keep = np.arange(60) % 4 > 0
  part = load(_config(_save(
      tmp_path / 'b.npz', x=_X[keep], label=_LABELS[keep],
      region=_REGION[keep], row_names=names[keep]), standardise=False))
  for a, b in zip(whole.parts, part.parts):
    assert set(b.row_names) <= set(a.row_names)


def test_unknown_labels_are_groups_of_their_own(tmp_path):
  labels = _LABELS.copy()
  labels[[3, 9]] = ''
  found = load(_config(_save(tmp_path / 'a.npz', label=labels)))
  assert found.train.names == ('red', 'rose', 'white', 'row 3', 'row 9')


@pytest.mark.parametrize('change', [
    {'x': _X + 1}, {'label': _LABELS[::-1]}, {'region': _REGION[::-1]},
    {'label': np.char.upper(_LABELS)},
    {'row_names': np.arange(60).astype(str)}])
def test_content_changes_with_the_data(tmp_path, change):
  before = load(_config(_save(tmp_path / 'a.npz'))).content
  assert before == load(_config(_save(tmp_path / 'b.npz'))).content
  after = load(_config(_save(tmp_path / 'a.npz', **change))).content
  assert after != before


# Standardising.


def test_standardised_by_training_rows(tmp_path):
  x = np.concatenate([_X, np.full((60, 1), 0.1)], axis=1)
  raw, found = (
      load(_config(_save(tmp_path / 'a.npz', x=x), standardise=s))
      for s in (False, True))
  np.testing.assert_allclose(found.train.x.mean(0), 0, atol=1e-6)
  np.testing.assert_allclose(found.train.x.std(0), [1] * 4 + [0], atol=1e-6)
  np.testing.assert_allclose(
      found.test.x * found.scale.std + found.scale.mean, raw.test.x, rtol=1e-5)
  assert found.content == raw.content and found.train.x.dtype == np.float32


def test_pixels_are_not_standardised(tmp_path):
  x = _RNG.integers(0, 256, (60, 4, 4, 1), np.uint8)
  found = load(_config(_save(tmp_path / 'a.npz', x=x)))
  assert found.scale is None and found.train.x.dtype == np.uint8


def test_counts_are_not_standardised():
  values = dict.fromkeys(vars(_PRESET)) | {
      'dataset': 'arrays', 'data_dir': 'a.npz', 'likelihood': 'poisson'}
  config = make_config(values)
  assert not config.standardise
  datasets.check(config)
  with pytest.raises(ValueError, match='does not take standardised data'):
    datasets.check(make_config(values | {'standardise': True}))


# Bad input.


@pytest.mark.parametrize('changed, message', [
    ({'x': None}, "no array 'x' .* only label, region"),
    ({'label': None, 'region': None}, 'has no labels; add an array of 60'),
    ({'region': np.arange(59)}, r"60 labels in 'region', .* got \[59\]"),
    ({'region': np.zeros((60, 2), int)}, r"'region', .* got \[60, 2\]"),
    ({'region': np.zeros(60)}, "'region' has the type float64"),
    ({'label': _LABELS.astype(object)}, "'label' is of Python objects"),
    ({'x': _X.astype(object)}, "'x' is of Python objects"),
    ({'x': _X[:, 0]}, r'expected observations of \[N, \.\.\.\] numbers'),
    ({'x': _X.astype(str)}, 'numbers, got <U'),
    ({'x': np.where(np.arange(60)[:, None] == 7, np.nan, _X)},
     'row 7 of x .* NaN'),
    ({'label': None}, "grouped by 'label', but .* region; .*content:8:region"),
])
def test_bad_arrays(tmp_path, changed, message):
  with pytest.raises(cli.UserError, match=message) as error:
    load(_config(_save(tmp_path / 'a.npz', **changed)))
  assert 'a.npz' in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('text, message', [
    (None, r'has no labels; write them to .*a\.csv'),
    ('', 'a different name for each column'),
    (',label\n0,a\n', 'index=False'), ('a,a\n1,2\n', 'a different name'),
    ('label\na\n', r"60 labels in 'label', .* got \[1\]"),
    ('a,b\n1\n', 'line 2: expected 2 cells, got 1'),
    ('"a\n', 'is not CSV'),
])
def test_bad_csv(tmp_path, text, message):
  np.save(tmp_path / 'a.npy', _X)
  if text is not None:
    (tmp_path / 'a.csv').write_text(text)
  with pytest.raises(cli.UserError, match=message):
    load(_config(tmp_path / 'a.npy'))


@pytest.mark.parametrize('name', ['a.npz', 'a.npy', 'a.h5ad'])
def test_files_of_something_else(tmp_path, name):
  (tmp_path / name).write_text('hello')
  (tmp_path / 'a.csv').write_text('label\n')
  with pytest.raises(cli.UserError, match='is not a readable|needs h5py'):
    load(_config(tmp_path / name))


def test_no_file(tmp_path):
  with pytest.raises(cli.UserError, match='is not a file'):
    load(_config(tmp_path))
  (tmp_path / 'a.txt').write_text('hello')
  with pytest.raises(cli.UserError, match='does not end in .npz'):
    load(_config(tmp_path / 'a.txt'))
  with pytest.raises(ValueError, match='needs --data_dir'):
    datasets.check(_PRESET)


def test_values_that_the_likelihood_cannot_have(tmp_path):
  config = _config(_save(tmp_path / 'a.npz', x=1000 * _X), standardise=False)
  data = load(config)
  with pytest.raises(cli.UserError, match='a.npz: .* standardise the data'):
    check_values(config, make_model(config, data), data)
  config = dataclasses.replace(config, standardise=True)
  data = load(config)
  check_values(config, make_model(config, data), data)


# A whole run.


def _run(tmp_path, path, ks=(1,), **changes):
  """Trains two steps, evaluates, draws and reports; gives what is there."""
  config = _config(path, **{
      'steps': 2, 'hidden_sizes': (8,), 'groups_per_batch': 3,
      'max_group_size': 4, 'factors': 'content:2:label,style:2'} | changes)
  data, workdir = load(config), str(tmp_path / 'run')
  model = make_model(config, data)
  check_values(config, model, data)
  with open_workdir(workdir, config, model, data.content, resume=False):
    write_scale(workdir, data.scale)
    loop.train(workdir, config, model, data)
  data = load_data(workdir)  # The same again.
  with pictures.fast():
    evaluation = evaluate.evaluate(
        workdir, data, ks=ks, probe_steps=2, projects=True)
    drawn = pictures.read(figures.draw_all(workdir, data))
  return evaluation, drawn, pathlib.Path(report.write(workdir)).read_text()


@pytest.mark.slow
def test_run_on_vectors(tmp_path):
  evaluation, drawn, page = _run(
      tmp_path, _save(tmp_path / 'a.npz'), ks=(1, 2),
      factors='content:2:label,place:1:region,style:2')
  assert {'content', 'style', 'untrained_content', 'observations'} <= {
      row['code'] for row in evaluation['probes']}
  assert {row['label'] for row in evaluation['factors']} == {
      'label', 'region'}
  assert np.isfinite(evaluation['elbo']['test']['elbo'])
  assert {'profiles', 'map', 'curves'} <= set(drawn) and 'swap' not in drawn
  assert 'label and region' in drawn['map'].text['Description']
  assert 'Vectors of 4 numbers, standardised' in page
  assert 'drawn only for images' in page and 'scale.npz' in page
  config = (tmp_path / 'run' / 'projector_config.pbtxt').read_text()
  assert config.count('embeddings {') == 3 and '"place (test)"' in config


@pytest.mark.slow
def test_run_on_groups_never_seen_in_a_file(tmp_path):
  np.save(tmp_path / 'a.npy', np.repeat(_X, 2, axis=0).reshape(120, 2, 2))
  (tmp_path / 'a.csv').write_text('label\n' + ''.join(
      f'g{i // 6}\n' for i in range(120)))
  evaluation, drawn, page = _run(
      tmp_path, tmp_path / 'a.npy', split_by='group', standardise=False)
  assert {row['code'] for row in evaluation['verification']} >= {
      'content', 'observations'}
  assert 'profiles' in drawn and 'Arrays of 2×2 numbers' in page
  assert 'scale.npz' not in page


@pytest.mark.slow
def test_run_on_counts_and_tokens(tmp_path):
  x = _RNG.integers(0, 5, (60, 6))
  _, drawn, _ = _run(
      tmp_path / 'a', _save(tmp_path / 'a.npz', x=x), standardise=False,
      likelihood='poisson')
  assert 'profiles' in drawn
  evaluation, drawn, page = _run(
      tmp_path / 'b', _save(tmp_path / 'b.npz', x=x), standardise=False,
      likelihood='categorical', num_categories=5,
      factors='content:2:label,style:2|content')
  assert 'profiles' not in drawn and {'map', 'sentences'} <= set(drawn)
  caption = drawn['sentences'].text['Description']
  assert 'Tokens are shown as numbers' in caption
  assert 'style is kept as it was inferred' in caption
  assert 'Sentences of 6 tokens, of 5 kinds' in page
  assert 'ELBO per row: ' in report.summary(evaluation)
  assert not re.search(r'\bimages?\b', _text_of(page))
  assert 'images' not in ' '.join(evaluation['warnings'])


def _text_of(page):
  """What a report says, without its settings and commands."""
  page = page.partition('<h2>Configuration')[0]
  return re.sub(r'<[^>]*>', ' ', page).replace(
      'drawn only for images', '').replace('split by: image;', '')


@pytest.mark.parametrize('vocabulary, shown', [
    (['a', 'b', 'c', ' ', 'ä'], 'bä a'),
    (['who', 'is', 'it', ',', 'ja'], 'is ja , who'),
    (None, '1 4 3 0')])
def test_sentences(vocabulary, shown):
  assert tokens.sentence(np.array([1, 4, 3, 0, -1]), vocabulary) == shown


@pytest.mark.slow
def test_a_vocabulary_names_tokens(tmp_path):
  x = _RNG.integers(0, 3, (60, 5))
  path = _save(tmp_path / 'a.npz', x=x, vocabulary=np.array(['A', 'B', 'C']))
  config = _config(path, standardise=False, likelihood='categorical',
                   num_categories=3)
  data = load(config)
  assert data.vocabulary == ('A', 'B', 'C')
  assert data.train.groupings == ('label', 'region')
  assert data.content == load(_config(
      _save(tmp_path / 'b.npz', x=x), standardise=False)).content
  model = make_model(config, data)
  subject = Subject(model, pictures.init(model), data, 'content')
  for row, text in ((0, tokens._text(subject, data.test.x[0])),
                    (1, tokens._text(subject, data.test.x[1]))):
    assert text == ''.join('ABC'[t] for t in data.test.x[row])
  name, drawing = next(draw_pictures('sentences', subject))
  shown = [text.get_text() for text in drawing.figure.axes[0].texts]
  assert name == 'sentences' and 'Tokens are' not in drawing.caption
  assert 'Test rows and their reconstructions' in shown
  assert 'Codes drawn from the prior' in shown
  assert set(''.join(t for t in shown if t.isupper())) <= set('ABC')


@pytest.mark.parametrize('vocabulary, message', [
    (np.array(['A', 'B']), 'names 2 tokens, so x should be integers below 2'),
    (np.arange(3), "expected 'vocabulary' as a list of strings, got int64"),
])
def test_a_vocabulary_that_does_not_fit(tmp_path, vocabulary, message):
  path = _save(tmp_path / 'a.npz', x=np.tile([0, 1, 2], (60, 2)),
               vocabulary=vocabulary)
  with pytest.raises(cli.UserError, match=message):
    load(_config(path))


@pytest.mark.slow
def test_run_on_images(tmp_path):
  x = _RNG.integers(0, 256, (60, 6, 6, 1), np.uint8)
  evaluation, drawn, page = _run(tmp_path, _save(tmp_path / 'a.npz', x=x))
  assert 'pixels' in {row['code'] for row in evaluation['probes']}
  assert {'swap', 'reconstruction'} <= set(drawn) and 'map' not in drawn
  assert '6×6 grey images' in page


def test_one_group_and_a_single_member(tmp_path):
  config = _config(_save(tmp_path / 'a.npz', label=np.zeros(60, int)))
  data = load(config)
  found = meaning.find_warnings(config, make_model(config, data), data)
  assert any("only one group by 'label'" in line for line in found)


@pytest.mark.parametrize('dim', [1, 2, 5])
def test_pca_keeps_most_of_the_variance(dim):
  codes = _RNG.normal(size=(50, dim)) * np.arange(dim, 0, -1) + 3
  found = vectors.pca(codes)
  assert found.shape == (50, 2)
  values = np.linalg.eigvalsh(np.cov(codes, rowvar=False).reshape(dim, dim))
  expected = np.pad(values[::-1], (0, 2))[:2]
  np.testing.assert_allclose(found.var(0, ddof=1), expected, rtol=1e-10)


@pytest.mark.parametrize('flags, message', [
    ((), 'needs --data_dir'),
    (('--data_dir=a.npz', '--likelihood=poisson', '--standardise'),
     'does not take standardised data'),
    (('--dataset=mnist5k', '--standardise'), 'is for --dataset=arrays'),
])
def test_bad_flags(flags, message):
  result = subprocess.run(
      [sys.executable, '-m', 'experiments.train', '--dataset=arrays', *flags],
      cwd=ROOT, text=True, capture_output=True, check=False)
  assert result.returncode == 2 and message in result.stderr
