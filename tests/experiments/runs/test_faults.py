"""What happens to disks, clocks, workdirs and numbers while a run trains."""

import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

import mlvae_jax
from mlvae_jax.training import loading
from tests.helpers import processes


def _args(workdir, images, **flags):
  return processes.command(workdir, images, **{
      'steps': 40, 'chunk_steps': 10, 'eval_every': 40,
      'checkpoint_every': 10} | flags)


def _run(args, prefix=()):
  return subprocess.run(
      [*prefix, *args], cwd=processes.ROOT, env=processes.environment(),
      text=True, capture_output=True, timeout=240, check=False)


def _error(done):
  """The one line of an error, the last that was printed."""
  assert done.returncode == 1, done.stderr
  assert 'Traceback' not in done.stderr
  line = done.stderr.splitlines()[-1]
  assert line.startswith('error: ')
  return line


def _limit_files(size):
  """What a full disk does, for a command alone: writes come to fail."""
  return ['prlimit', f'--fsize={size}']


needs_prlimit = pytest.mark.skipif(
    shutil.which('prlimit') is None, reason='part of util-linux')


@pytest.mark.slow
@needs_prlimit
def test_a_full_disk_while_saving_keeps_the_last_checkpoint(images, tmp_path):
  run = tmp_path / 'run'
  # With a critic, a checkpoint is larger than the limit.
  penalties = 'adversary/style:1'
  assert _run(_args(
      run, images, steps=20, penalties=penalties)).returncode == 0
  _, before = loading.load(run)
  args = _args(run, images, steps=60, penalties=penalties)
  line = _error(_run(args, _limit_files(10_000)))
  assert 'cannot write a checkpoint' in line and 'free space in' in line
  assert 'The checkpoint of step 20 is kept.' in line
  _, after = loading.load(run)
  np.testing.assert_array_equal(
      before['encoder']['heads']['kernel'], after['encoder']['heads']['kernel'])
  assert 'at step 20 of 60' in _run(args).stdout  # It goes on from there.


@pytest.mark.slow
@needs_prlimit
def test_a_full_disk_while_the_history_is_written_is_one_line(
    images, tmp_path, monkeypatch):
  # Of compiled programs that cannot be kept, JAX only warns.
  monkeypatch.setenv('JAX_ENABLE_COMPILATION_CACHE', 'false')
  run = tmp_path / 'run'
  # Prepares the images, whose store is larger than the limit.
  assert _run(_args(tmp_path / 'other', images, steps=10)).returncode == 0
  args = _args(run, images, steps=60, chunk_steps=1, eval_every=60,
               checkpoint_every=60, objective='paper')
  done = _run(args, _limit_files(2500))
  assert done.returncode == 1 and 'Traceback' not in done.stderr
  assert f'\nerror: cannot use {run}' in done.stderr
  assert _run(args).returncode == 0


@pytest.mark.slow
@needs_prlimit
def test_a_full_disk_while_preparing_leaves_no_store(
    images, tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  args = _args(tmp_path / 'run', images)
  line = _error(_run(args, _limit_files(2000)))
  assert 'too large' in line or 'No space' in line
  stores = tmp_path / 'cache' / 'mlvae_jax'
  assert not [p for p in stores.iterdir()
              if p.is_dir() and p.suffix != '.partial']
  assert not (tmp_path / 'run').exists()
  assert _run(args).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(
    os.getuid() == 0 and shutil.which('setpriv') is None,
    reason='root may write anywhere')
def test_a_read_only_workdir_is_one_line(images, tmp_path):
  run = tmp_path / 'run'
  run.mkdir()
  run.chmod(0o555)
  prefix = ['setpriv', '--bounding-set', '-dac_override', '--inh-caps',
            '-dac_override'] if os.getuid() == 0 else []
  line = _error(_run(_args(run, images), prefix))
  assert 'Permission denied' in line and str(run) in line
  for module in ('evaluate', 'figures', 'report'):  # At their start.
    line = _error(_run([sys.executable, '-m', f'experiments.{module}',
                        f'--workdir={run}'], prefix))
    assert line.startswith(f'error: cannot write to {run}: Permission denied;')
  assert not list(run.iterdir())


@pytest.mark.parametrize('place', [
    '', 'inside', 'lock/', 'metrics.jsonl/', 'config.json/', 'checkpoints'])
def test_what_is_in_the_way_of_a_workdir_is_one_line(
    images, tmp_path, place):
  run, way = tmp_path / 'run', tmp_path / 'run' / place.rstrip('/')
  if place.endswith('/'):
    way.mkdir(parents=True)
  else:
    way = run if place == 'inside' else way
    way.parent.mkdir(exist_ok=True)
    way.write_text('mine')
  line = _error(_run(_args(run / ('inside' * (place == 'inside')), images)))
  if place.endswith('/'):
    assert f'cannot use {way}: Is a directory; a file is needed' in line
    assert 'move the folder away' in line
  else:
    assert f'cannot use {way}: ' in line and 'a folder is needed' in line
    assert 'move the file away or name another folder' in line
    assert way.read_text() == 'mine'


@pytest.mark.slow
def test_a_second_run_in_a_workdir_is_refused(images, tmp_path):
  run = tmp_path / 'run'
  endless = _args(run, images, steps=10_000_000)
  with processes.started(endless, tmp_path / 'logs') as (process,):
    process.await_output('ELBO')
    line = _error(_run(endless))
    assert f'is in use by process {process.popen.pid} on ' in line
    assert 'choose another --workdir' in line
    assert process.popen.poll() is None  # The first is none the worse.
    process.popen.kill()
    process.wait()
  # A lock dies with its process.
  steps = max(int(p.name) for p in (run / 'checkpoints').iterdir()
              if p.name.isdigit())
  assert _run(_args(run, images, steps=steps)).returncode == 0


# By seconds: Orbax, which waits by this clock, can wait for as long as it
# jumps, or gives up a checkpoint after a jump of ten minutes.
_CLOCK = '''
import sys, time
real, calls = time.time, [0]
def jumping():
  calls[0] += 1
  return real() + {0: 0.0, 1: -20.0, 2: 20.0}[calls[0] // 150 % 3]
time.time = jumping
from experiments import cli, train
train.define_flags()
cli.run(train.main)
'''


@pytest.mark.slow
def test_a_clock_that_jumps_changes_nothing(images, tmp_path):
  for name, command in (('jumps', ['-c', _CLOCK]),
                        ('runs', ['-m', 'experiments.train'])):
    for steps in (20, 40):
      args = _args(tmp_path / name, images, steps=steps)
      flags = args[args.index('experiments.train') + 1:]
      done = _run([sys.executable, *command, *flags])
      assert done.returncode == 0, done.stderr
    assert 'at step 20 of 40' in done.stdout
    records = processes.curve(tmp_path / name, value='images_per_second')
    assert np.all(records > 0)
  a, b = (loading.load(tmp_path / name)[1] for name in ('jumps', 'runs'))
  np.testing.assert_array_equal(
      a['encoder']['heads']['kernel'], b['encoder']['heads']['kernel'])


@pytest.mark.slow
def test_nan_in_the_parameters_ends_the_run_with_its_checkpoint(
    images, tmp_path):
  line = _error(_run(_args(
      tmp_path / 'run', images, learning_rate=1e20, steps=100)))
  assert 'not finite at step' in line and 'smaller --learning_rate' in line


@pytest.mark.slow
def test_nan_in_images_is_refused_by_the_library():
  model = mlvae_jax.Model(
      mlvae_jax.ml_vae(2, 2), (4, 4, 1), network=mlvae_jax.MLP((4,)))
  params = model.init(jax.random.key(0))
  bad = np.full((3, 4, 4, 1), np.nan, np.float32)
  with pytest.raises(ValueError, match='got NaN'):
    mlvae_jax.encode_group(model, params, bad, np.zeros(3, int), 1)


def _edit(run, change):
  path = run / 'config.json'
  values = json.loads(path.read_text())
  change(values)
  path.write_text(json.dumps(values))


@pytest.mark.slow
def test_a_workdir_of_an_older_version_goes_on(images, tmp_path):
  run = tmp_path / 'run'
  assert _run(_args(run, images, steps=20)).returncode == 0

  def older(values):
    for name in ('dtype', 'group_posterior', 'subsampling'):
      del values['config'][name]
    for name in ('dtype', 'group_posterior'):
      del values['model'][name]

  _edit(run, older)
  done = _run(_args(run, images, steps=40))
  assert done.returncode == 0 and 'at step 20 of 40' in done.stdout
  # What that version did not know, it did as the defaults say.
  _edit(run, older)
  line = _error(_run(_args(run, images, steps=60, dtype='bfloat16')))
  assert 'a run with dtype=float32, not bfloat16' in line
