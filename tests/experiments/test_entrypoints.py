"""Every entry point in its own process, as a user runs it."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

from tests.helpers import ROOT


def _python(*args, cwd=ROOT):
  return subprocess.run(
      [sys.executable, '-W', 'error', *map(str, args)], cwd=cwd, text=True,
      capture_output=True, timeout=300, check=False,
      env=os.environ | {'JAX_PLATFORMS': 'cpu'})


def _fails(result, code, message):
  """One line on stderr, no traceback."""
  assert result.returncode == code, result.stderr
  assert message in result.stderr
  assert result.stderr.startswith('error: ')
  assert result.stderr.count('\n') == 1


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
  """A trained, evaluated, drawn and reported run on a tiny folder."""
  root = tmp_path_factory.mktemp('tiny')
  rng = np.random.default_rng(0)
  for group in range(3):
    (root / 'data' / f'g{group}').mkdir(parents=True)
    for i in range(20):
      pixels = rng.integers(0, 100, (10, 10), np.uint8) + 50 * group
      Image.fromarray(pixels.astype(np.uint8)).save(
          root / 'data' / f'g{group}' / f'{i}.png')
  result = _python(
      '-m', 'experiments.train', '--dataset=folder',
      f'--data_dir={root / "data"}', f'--workdir={root / "run"}',
      '--image_size=8', '--steps=4', '--hidden_sizes=8',
      '--factors=content:3:group,style:2', '--groups_per_batch=2',
      '--max_group_size=4')
  assert result.returncode == 0, result.stderr
  return root, result


def test_train_leaves_a_whole_workdir(tiny):
  root, result = tiny
  run = root / 'run'
  for name in ('config.json', 'metrics.jsonl', 'checkpoints',
               'evaluation.json', 'figures', 'report.html'):
    assert (run / name).exists(), name
  assert list((run / 'figures').glob('*.png'))
  assert not list(run.rglob('*.partial'))
  assert 'content' in result.stdout
  assert str(run / 'report.html') in result.stdout
  assert 'Warning' not in result.stderr


def test_evaluation_has_the_plain_form(tiny):
  rows = json.loads((tiny[0] / 'run' / 'evaluation.json').read_text())
  assert set(rows['elbo']) == {'train', 'validation', 'test'}
  codes = {row['code'] for row in rows['probes']}
  assert {'content', 'style', 'untrained_content', 'pixels'} <= codes
  assert set(rows['probes'][0]) == {
      'code', 'label', 'strategy', 'source', 'k', 'accuracy',
      'conditional_entropy', 'chance', 'examples', 'labels'}


@pytest.mark.slow
def test_same_command_again_resumes(tiny):
  root, _ = tiny
  result = _python(
      '-m', 'experiments.train', '--dataset=folder',
      f'--data_dir={root / "data"}', f'--workdir={root / "run"}',
      '--image_size=8', '--steps=4', '--hidden_sizes=8',
      '--factors=content:3:group,style:2', '--groups_per_batch=2',
      '--max_group_size=4', '--eval=false', '--figures=false')
  assert result.returncode == 0, result.stderr
  assert 'resuming' in result.stdout and 'step 4 of 4' in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize('module', ['figures', 'report'])
def test_entry_points_run_alone_on_a_workdir(tiny, module):
  result = _python(
      '-m', f'experiments.{module}', f'--workdir={tiny[0] / "run"}')
  assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_evaluate_compares_with_a_vae(tiny):
  root, _ = tiny
  vae = root / 'vae'
  result = _python(
      '-m', 'experiments.train', '--dataset=folder', '--model=vae',
      f'--data_dir={root / "data"}', f'--workdir={vae}', '--image_size=8',
      '--steps=2', '--hidden_sizes=8', '--factors=content:3:group,style:2',
      '--batch_size=8', '--eval=false', '--figures=false')
  assert result.returncode == 0, result.stderr
  result = _python(
      '-m', 'experiments.evaluate', f'--workdir={root / "run"}',
      f'--vae_workdir={vae}', '--ks=1,2', '--probe_steps=20',
      '--probe_hidden_sizes=16,8')
  assert result.returncode == 0, result.stderr
  found = json.loads((root / 'run' / 'evaluation.json').read_text())
  assert 'vae' in {row['code'] for row in found['probes']}
  assert found['protocol']['probe_hidden_sizes'] == [16, 8]
  assert found['protocol']['probe_steps'] == 20


@pytest.mark.slow
def test_library_is_called_from_a_script_elsewhere(tiny, tmp_path):
  script = tmp_path / 'script.py'
  script.write_text(f'''
import jax, mlvae_jax, numpy as np
model, params = mlvae_jax.load({str(tiny[0] / "run")!r})
images = np.random.default_rng(0).random((6, *model.observation_shape))
images = images.astype(np.float32)
ids = np.array([1, 0, 1, 2, 0, 1])
def encode(images, ids):
  return mlvae_jax.encode_group(model, params, images, ids, num_groups=3)
alone = encode(images, ids)
compiled = jax.jit(encode)(images, ids)
sets = jax.vmap(encode)(images[None], ids[None])
np.testing.assert_allclose(alone.mean, compiled.mean, rtol=1e-4, atol=1e-6)
np.testing.assert_allclose(alone.mean, sets.mean[0], rtol=1e-4, atol=1e-6)
slope = jax.grad(lambda images: encode(images, ids).mean.sum())(images)
assert np.isfinite(slope).all() and np.abs(slope).sum() > 0
''')
  result = _python(script, cwd=tmp_path)
  assert result.returncode == 0, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    'module', ['train', 'evaluate', 'figures', 'report', 'export', 'encode'])
def test_help_reads(module):
  result = _python('-m', f'experiments.{module}', '--help')
  assert result.returncode == 0
  assert f'python -m experiments.{module}' in result.stdout
  assert '\n  --workdir: ' in result.stdout
  if module not in ('report', 'export'):  # Whichever module defines it.
    assert '\n  --data_dir: ' in result.stdout


@pytest.mark.slow
def test_help_of_a_comparison_names_its_own_flags_only():
  result = _python('-m', 'experiments.svi_comparison', '--help')
  text = ' '.join(result.stdout.split())
  assert 'data that have changed since the run recorded them: refuse' in text
  assert '--svi_workdir' in text and '--workdir' not in text


@pytest.mark.slow
@pytest.mark.parametrize('args, code, message', [
    (['train', '--dataset=mnits'], 2, 'mnist5k|mnist'),
    (['train', '--stepz=3'], 2, "'stepz'"),
    (['train', 'extra'], 2, "'extra'"),
    (['train', '--dataset=folder', '--data_dir=/no/such'], 1, '--data_dir'),
    (['evaluate'], 2, '--workdir'),
    (['evaluate', '--workdir=x', '--ks=0'], 2, '--ks'),
    (['evaluate', '--workdir=x', '--probe_hidden_sizes=8,x'], 2,
     'integers >= 1, got 8,x'),
    (['evaluate', '--workdir=/no/such'], 1, 'workdir of a run'),
    (['figures'], 2, '--workdir'),
    (['report'], 2, '--workdir'),
    (['export', '--workdir=x'], 2, '--output is required'),
    (['export', '--workdir=/no/such', '--output=y'], 1, 'workdir of a run'),
    (['encode', '--workdir=x'], 2, '--output is required'),
    (['encode', '--workdir=/no/such', '--output=y'], 1, 'workdir of a run'),
    (['encode', '--workdir=x', '--output=y', '--part=2/2'], 2, '--part=I/N'),
    (['encode', '--workdir=x', '--merge=a', '--output=y'], 2, '--workdir'),
    (['encode', '--workdir=x', '--remove=a', '--output=y'], 2, '--merge'),
    (['encode', '--merge=/no/such', '--output=y'], 1, 'about.json'),
])
def test_mistakes_get_one_line(args, code, message):
  _fails(_python('-m', f'experiments.{args[0]}', *args[1:]), code, message)


@pytest.mark.slow
def test_output_that_is_read_no_more_ends_a_program_quietly(tiny, tmp_path):
  run = tmp_path / 'run'
  shutil.copytree(tiny[0] / 'run', run)
  read, write = os.pipe()
  os.close(read)
  done = subprocess.run(
      [sys.executable, '-W', 'error', '-m', 'experiments.report',
       f'--workdir={run}'], cwd=ROOT, stdout=write, stderr=subprocess.PIPE,
      text=True, timeout=300, check=False)
  os.close(write)
  assert done.returncode == 128 + 13
  assert not done.stderr


@pytest.mark.slow
def test_a_checkpoint_may_be_chosen(tiny, tmp_path):
  run = tmp_path / 'run'
  shutil.copytree(tiny[0] / 'run', run)
  for step in ('4', 'best'):
    result = _python('-m', 'experiments.evaluate', f'--workdir={run}',
                     f'--step={step}', '--ks=1', '--probe_steps=1')
    assert result.returncode == 0, result.stderr
    evaluation = json.loads((run / 'evaluation.json').read_text())
    assert evaluation['protocol']['step'] == 4
  for step, code, message in (
      ('3', 1, 'no checkpoint of step 3; steps with a checkpoint: 4'),
      ('last', 2, 'expected --step=latest, best or a number')):
    for module in ('evaluate', 'figures'):
      _fails(_python('-m', f'experiments.{module}', f'--workdir={run}',
                     f'--step={step}'), code, message)


@pytest.mark.parametrize(
    'module',
    ['train', 'prepare', 'evaluate', 'report', 'export', 'encode', 'launch'])
def test_help_does_not_wait_for_packages_that_it_does_not_need(module):
  result = _python('-c', (
      f'import sys; from experiments import {module} as m; m.define_flags(); '
      'print(*sorted({name.partition(".")[0] for name in sys.modules}))'))
  assert result.returncode == 0, result.stderr
  slow = {'tensorflow', 'tensorflow_datasets', 'matplotlib', 'sklearn',
          'tensorboard', 'tensorboardX', 'pandas', 'mlxtend', 'torch',
          'pyarrow'}
  assert not slow & set(result.stdout.split())
