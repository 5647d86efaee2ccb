"""Code in the docs does what the text says."""

import contextlib
import csv
import dataclasses
import pathlib
import re
import sys
import types

import jax
import numpy as np
from PIL import Image
import pytest

from experiments import datasets, export
from experiments.config.presets import PRESETS
from experiments.runs.build import make_model
from experiments.studies import plan, reading
import mlvae_jax
from mlvae_jax.objective.penalties.registry import PENALTIES
from tests.helpers import ROOT, commands, runs

_DOCS = ROOT / 'docs'
_PAGES = {
    path.relative_to(_DOCS).as_posix(): path.read_text(encoding='utf-8')
    for path in sorted(_DOCS.rglob('*.md'))}
_PAGES |= {name: (ROOT / name).read_text(encoding='utf-8')
           for name in ('README.md', 'WORKSPACE.md')}
# Where Python is executed: in whole pages, and under these headings of others.
_WHOLE = ('README.md', 'coming_from.md', 'concepts.md', 'how_to.md',
          'questions.md')
_SECTIONS = {
    'data.md': ('Arrays', 'Omniglot, and nested groups'),
    'models.md': ('From other code', 'Likelihoods', 'Networks',
                  'Training on arrays', 'With scikit-learn')}


def _python(text):
  return re.findall(r'^```python\n(.*?)^```$', text, re.M | re.S)


def _section(page, heading):
  return _PAGES[page].partition(f'## {heading}\n')[2].partition('\n## ')[0]


def _run(page, heading, **given):
  """Names that the Python under a heading defines, given others."""
  assert heading in _SECTIONS[page]
  found = given
  exec('\n'.join(_python(_section(page, heading))), found)
  return found


def test_all_python_is_executed():
  for page, text in _PAGES.items():
    if page not in _WHOLE:
      assert len(_python(text)) == sum(
          len(_python(_section(page, heading)))
          for heading in _SECTIONS.get(page, ())), page
    # Everything else that is fenced is built, or no code.
    kinds = set(re.findall(r'^```(.+)$', text, re.M))
    assert all(kind in ('python', 'text', 'toml') or kind[0] == '{'
               for kind in kinds), (page, kinds)


def _write_run(folder):
  """Writes the untrained run of a small model of digits."""
  return runs.untrained(
      folder, runs.config('mnist5k', factors='content:3:digit,style:2'),
      (28, 28, 1))


@pytest.fixture
def exported(tmp_path):
  """What the page of answers takes as given: files of commands."""
  _write_run(tmp_path / 'run')
  export.export_run(str(tmp_path / 'run'), str(tmp_path / 'exported'))
  (tmp_path / 'codes').mkdir()
  np.savez(tmp_path / 'codes' / 'groups_content.npz', name=['a', 'b'],
           mean=np.zeros((2, 3)))
  Image.new('RGB', (90, 70), 'teal').save(tmp_path / 'photo.jpg')
  return {'images': np.zeros((2, 28, 28, 1), np.uint8)}


@pytest.mark.slow
@pytest.mark.parametrize(
    'page', [page for page in _WHOLE if page != 'README.md'])
def test_python_of_a_page_runs(page, tmp_path, monkeypatch, request):
  found = {'__name__': page}
  if page == 'how_to.md':
    found |= request.getfixturevalue('exported')
    # The part of ONNX Runtime that the page uses.
    values = {'content.mean': np.zeros((2, 3)), 'style.mean': np.zeros((2, 2)),
              'content.variance': np.ones((2, 3)), 'x.mean': found['images']}
    session = types.SimpleNamespace(
        run=lambda names, given: [values[name] for name in names])
    monkeypatch.setitem(sys.modules, 'onnxruntime', types.SimpleNamespace(
        InferenceSession=lambda path: session))
  monkeypatch.chdir(tmp_path)
  monkeypatch.setitem(PENALTIES, 'sparse', None)  # Restores what was there.
  exec('\n'.join(_python(_PAGES[page])), found)
  assert found['config'] != mlvae_jax.TrainConfig()
  if page == 'how_to.md':
    assert (tmp_path / 'groups.npz').exists()
    assert found['mean'].shape == (2, 3)
    assert found['decoded'].shape == (2, 28, 28, 1)
    assert found['image'].shape == (1, 64, 64, 3)


@pytest.mark.slow
def test_counts_of_cells():
  found = _run('models.md', 'Likelihoods')
  for name in ('expected', 'observed', 'shown'):
    assert found[name].shape == (20, 50)
    np.testing.assert_allclose(found[name].sum(1), 10_000, rtol=1e-4)


@pytest.mark.slow
def test_networks_of_ones_own(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  found = _run('models.md', 'Networks')
  kernel = found['params']['encoder']['own']['Dense_0']['kernel']
  assert kernel.shape == (20, 16)
  assert np.isfinite(found['history'][-1]['elbo'])


@pytest.mark.slow
def test_training_on_arrays(tmp_path, monkeypatch):
  logged = {'wandb': [], 'mlflow': []}

  def log(tracker):
    return lambda numbers, step: logged[tracker].append((step, numbers))

  # The parts of the two trackers that the page uses.
  run = types.SimpleNamespace(log=log('wandb'))
  monkeypatch.setitem(sys.modules, 'wandb', types.SimpleNamespace(
      init=lambda project: contextlib.nullcontext(run)))
  monkeypatch.setitem(sys.modules, 'mlflow', types.SimpleNamespace(
      start_run=contextlib.nullcontext, log_metrics=log('mlflow')))
  monkeypatch.chdir(tmp_path)
  found = _run('models.md', 'Training on arrays')
  assert found['q'].mean.shape == (4, 4)
  elbos = [record['elbo_per_image'] for record in found['history']]
  assert elbos[-1] > elbos[0]
  assert mlvae_jax.load('runs/vectors', 'best')[0] == found['model']
  for records in logged.values():
    assert [step for step, _ in records] == [50, 100, 100]
    assert {'train/elbo', 'train/kl/content'} <= set(records[0][1])
    assert {'validation/elbo', 'validation/kl/style'} <= set(records[2][1])
    assert all(isinstance(value, float) for _, numbers in records
               for value in numbers.values())


@pytest.mark.slow
def test_with_scikit_learn():
  pytest.importorskip('sklearn')
  found = _run('models.md', 'With scikit-learn')
  assert found['codes'].shape == found['shared'].shape == (120, 2)
  assert found['expected'].shape == (120, 6)
  assert found['q'].mean.shape == (12, 2) and list(found['names']) == list(
      range(12))
  assert np.all(np.isfinite(found['elbos']))


def test_wine_is_data_for_training(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  _run('data.md', 'Arrays')
  config = dataclasses.replace(PRESETS['arrays'], data_dir='wine.npz')
  data = datasets.load(config)
  assert data.grouping == 'label'
  assert sum(map(len, data.parts)) == 178
  assert make_model(config, data).observation_shape == (13,)


@pytest.mark.slow
def test_from_other_code(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  model = _write_run('runs/mnist5k-mlvae')
  images = np.zeros((6, 28, 28, 1), np.uint8)
  group_ids, q = np.array([0, 1, 2, 0, 1, 2]), mlvae_jax.Normal(
      np.zeros((6, 3), np.float32), np.zeros((6, 3), np.float32))
  found = _run(
      'models.md', 'From other code', images=images, group_ids=group_ids, G=3,
      image_sets=images[None], id_sets=group_ids[None], ids=group_ids,
      q_rows=q, earlier=mlvae_jax.evidence(q, group_ids, 3))
  assert found['model'] == model
  assert found['q_sets'].mean.shape == (1, 3, 3)
  assert found['slope'].shape == images.shape
  assert found['grid'].shape == (6, 6, 28, 28, 1)
  np.testing.assert_array_equal(found['e'].count, [4, 4, 4])
  assert found['log_p'].shape == (3,) and jax.numpy.isfinite(
      found['log_p']).all()


def test_a_manifest_of_characters_and_their_alphabets(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  pathlib.Path('alphabets.csv').write_text(
      'character,alphabet\nalpha,Greek\nbet,Hebrew\n')
  for name in ('alpha/1.png', 'alpha/2.png', 'bet/1.png'):
    path = tmp_path / 'omniglot' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
  _run('data.md', 'Omniglot, and nested groups')
  with open('omniglot/manifest.csv', newline='') as file:
    assert list(csv.reader(file)) == [
        ['path', 'character', 'alphabet'], ['alpha/1.png', 'alpha', 'Greek'],
        ['alpha/2.png', 'alpha', 'Greek'], ['bet/1.png', 'bet', 'Hebrew']]


def test_the_study_can_be_run(tmp_path):
  text, = re.findall(r'^```toml\n(.*?)^```$', _PAGES['running.md'], re.M | re.S)
  (tmp_path / 'my_study.toml').write_text(text)
  study = reading.read(str(tmp_path / 'my_study.toml'))
  found = plan.make_runs(study, str(tmp_path), variables={})
  assert len(found) == 6 and len(study.columns) == 2 and study.figures


def _shell(text):
  """The indented blocks of a page, one after the other, which are commands."""
  text = re.sub(r'^```.*?^```$', '', text, flags=re.M | re.S)
  return '\n'.join(re.findall(r'(?:^ {4}.*\n)+', text, re.M))


# What pages say that $NAMES are.
_FOLDERS = {
    name: f'/data/{name}' for name in ('DATA', 'LFW', 'OMNIGLOT', 'ORL')}


@pytest.mark.slow
def test_commands_have_flags_that_exist(tmp_path):
  found = []
  for i, (page, text) in enumerate(_PAGES.items()):
    spans = re.findall(r'`(python -m experiments\.[^`]+)`', re.sub(
        r'^(?:```.*?^```| {4}.*?)$', '', text, flags=re.M | re.S))
    folder = tmp_path / str(i)
    (folder / 'docs').mkdir(parents=True)  # Where a command writes.
    script = '\n'.join([
        _shell(text), *(' '.join(span.split()) for span in spans)])
    asked = commands.run(folder, script, programs=('sky',), **_FOLDERS)
    for program, *words in asked:
      if words[0] == '-m' and re.fullmatch(r'experiments\.\w+', words[1]):
        found.append(words[1:])
      elif program.startswith('python') and words[0] not in ('-m', '-c'):
        assert (ROOT / words[0]).exists(), (page, words)
  modules = {module for module, *_ in found}
  assert len(found) > 80 and len(modules) >= 10, (len(found), modules)
  for name in (words[1] for words in found if words[0] == 'experiments.study'):
    assert name == 'my_study.toml' or reading.read(name).columns
  commands.check(found)


@pytest.mark.slow
def test_the_readme():
  code, = _python(_PAGES['README.md'])
  code = '\n'.join(line for line in code.splitlines() if 'load(' not in line)
  labels = np.repeat(['a', 'b', 'c'], 8)
  x = np.random.default_rng(0).normal(size=(24, 5))
  found = {'x': x, 'labels': labels}
  exec(code.replace('steps=2000', 'steps=2'), found)
  assert found['q'].mean.shape == (3, 10)
  assert found['grid'].shape == (8, 8, 5)
