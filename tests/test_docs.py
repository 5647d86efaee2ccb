"""Code in the docs does what the text says."""

import contextlib
import dataclasses
import json
import re
import shlex
import subprocess
import sys
import types

import numpy as np
import pytest

from experiments import datasets
from experiments.config.presets import PRESETS
from experiments.runs.build import make_model
import mlvae_jax
from tests.helpers import ROOT


def _run(page, heading):
  """Names that the Python under a heading defines."""
  text = (ROOT / 'docs' / page).read_text(encoding='utf-8')
  section = text.partition(f'## {heading}\n')[2].partition('\n## ')[0]
  found = {}
  exec('\n'.join(re.findall(r'```python\n(.*?)```', section, re.S)), found)
  return found


def test_counts_of_cells():
  found = _run('models.md', 'Likelihoods')
  for name in ('expected', 'observed', 'shown'):
    assert found[name].shape == (20, 50)
    np.testing.assert_allclose(found[name].sum(1), 10_000, rtol=1e-4)


def test_networks_of_ones_own(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  found = _run('models.md', 'Networks')
  kernel = found['params']['encoder']['own']['Dense_0']['kernel']
  assert kernel.shape == (20, 16)
  assert np.isfinite(found['history'][-1]['elbo'])


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


_PARSED = """
import json, sys
from absl import flags
from experiments import evaluate, train
name, *commands = json.loads(sys.argv[1])
{'train': train, 'evaluate': evaluate}[name].define_flags()
for command in commands:
  for flag in flags.FLAGS:
    flags.FLAGS[flag].unparse()
  flags.FLAGS(['program', *command])
  if name == 'train':
    train.config_from_flags(flags.FLAGS.flag_values_dict())
"""


@pytest.mark.parametrize('name', ['train', 'evaluate'])
def test_commands_have_flags_that_exist(name):
  commands = []
  for path in (ROOT / 'README.md', *(ROOT / 'docs').glob('*.md')):
    for line in path.read_text(encoding='utf-8').splitlines():
      found = re.match(rf'    python -m experiments\.{name}( --[^|&>;$\\]*)$',
                       line.partition('  #')[0].rstrip())
      if found and '=NAME' not in found[1]:  # That stands for any.
        commands.append(shlex.split(found[1]))
  assert len(commands) > {'train': 15, 'evaluate': 0}[name]
  done = subprocess.run(
      [sys.executable, '-c', _PARSED, json.dumps([name, *commands])], cwd=ROOT,
      text=True, capture_output=True, timeout=240, check=False)
  assert done.returncode == 0, done.stderr[-2000:]


def test_the_readme():
  text = (ROOT / 'README.md').read_text(encoding='utf-8')
  code = re.search(r'```python\n(.*?)```', text, re.S)[1]
  code = '\n'.join(line for line in code.splitlines() if 'load(' not in line)
  labels = np.repeat(['a', 'b', 'c'], 8)
  x = np.random.default_rng(0).normal(size=(24, 5))
  found = {'x': x, 'labels': labels}
  exec(code.replace('steps=2000', 'steps=2'), found)
  assert found['q'].mean.shape == (3, 10)
  assert found['grid'].shape == (8, 8, 5)
