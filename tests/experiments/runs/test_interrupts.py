"""Signals: what they stop, what is saved, and that nothing more is lost."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from experiments.runs import interrupts
from mlvae_jax.training import history, loading
from tests.helpers import processes


@pytest.fixture(scope='module')
def whole(images, tmp_path_factory):
  """A run that nothing interrupts."""
  root = tmp_path_factory.mktemp('whole')
  processes.run(processes.command(
      root / 'run', images, steps=400, chunk_steps=10, eval_every=10,
      checkpoint_every=10), root / 'logs')
  return root / 'run'


def _records(workdir):
  return [{k: v for k, v in record.items() if k != 'images_per_second'}
          for record in history.read_metrics(str(workdir))]


def _assert_same(workdir, expected):
  jax.tree.map(np.testing.assert_array_equal, loading.load(workdir)[1],
               loading.load(expected)[1])
  assert _records(workdir) == _records(expected)


def _endless(workdir, images):
  return processes.command(
      workdir, images, steps=10_000_000, chunk_steps=10,
      eval_every=10_000_000, checkpoint_every=10_000_000)


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_chunk_saves_and_the_run_goes_on(
    images, whole, tmp_path, number):
  run = tmp_path / 'run'
  args = processes.command(
      run, images, steps=400, chunk_steps=10, eval_every=10,
      checkpoint_every=1000)
  with processes.started(args, tmp_path / 'logs') as (process,):
    process.await_output('ELBO')
    os.kill(process.popen.pid, number)
    assert process.wait(60) == 128 + number
    output = process.output
  found = re.search(
      rf'stopped by {number.name} at step (\d+) of 400, which is saved; the '
      'same command resumes\n$', output)
  assert found, output
  assert f'{number.name}: finishing and saving this chunk' in output
  step = int(found[1])
  assert os.listdir(run / 'checkpoints') == [str(step)] and step % 10 == 0
  output = processes.run(args, tmp_path / 'logs')
  assert f'at step {step} of 400' in output
  _assert_same(run, whole)


@pytest.mark.slow
def test_ctrl_c_twice_stops_at_once(images, tmp_path):
  args = _endless(tmp_path / 'run', images) + ['--chunk_steps=500000']
  with processes.started(args, tmp_path / 'logs') as (process,):
    process.await_output('training:')
    time.sleep(5)  # By now it is in the chunk, which takes minutes.
    os.kill(process.popen.pid, signal.SIGINT)
    process.await_output('SIGINT: finishing')
    start = time.monotonic()
    os.kill(process.popen.pid, signal.SIGINT)
    assert process.wait(10) == 130
    assert time.monotonic() - start < 2
    assert process.output.endswith('stopped at once\n')


@pytest.mark.slow
def test_sigterm_twice_still_saves(images, tmp_path):
  args = _endless(tmp_path / 'run', images)
  with processes.started(args, tmp_path / 'logs') as (process,):
    process.await_output('ELBO')
    os.kill(process.popen.pid, signal.SIGTERM)
    os.kill(process.popen.pid, signal.SIGTERM)
    assert process.wait(60) == 143
    assert 'which is saved' in process.output


def test_handlers_are_as_before_afterwards():
  before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
  with interrupts.Interrupts('soon') as noted:
    assert noted.signum == 0
    os.kill(os.getpid(), signal.SIGTERM)
    end = time.monotonic() + 10
    while not noted.signum and time.monotonic() < end:
      time.sleep(0.01)
    assert noted.signum == signal.SIGTERM
  assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)
          ] == before


# Forks a run from a process that has imported everything, and kills it at a
# random moment; does so until it has killed as often as it was told.
_KILLER = '''
import json, os, random, signal, sys, time
from absl import flags
from experiments import cli, train
from experiments import evaluate, figures
import jax, orbax.checkpoint, tensorboardX, sklearn
workdir, kills, args = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
train.define_flags()

def start(path):
  child = os.fork()
  if not child:
    sys.stdout = sys.stderr = open(path + '.log', 'a')
    sys.argv = ['train', *args, '--workdir=' + path]
    cli.run(train.main)
    os._exit(9)
  return child

def saved(path):
  folder = os.path.join(path, 'checkpoints')
  names = os.listdir(folder) if os.path.isdir(folder) else []
  return sum(name.isdigit() for name in names), sum(
      'tmp' in name for name in names)

moments, run, torn, done = random.Random(0), 0, 0, 0
while done < kills:
  path = f'{workdir}/{run}'
  child = start(path)
  before = time.monotonic()
  # From the first checkpoint on: what comes before it can lose nothing.
  while not saved(path)[0] and time.monotonic() < before + 60:
    time.sleep(0.005)
  until = time.monotonic() + moments.uniform(0, 2.5)
  # Every other time while it saves, if it does so by then.
  while time.monotonic() < until and not (done % 2 and saved(path)[1]):
    time.sleep(0.001)
  os.kill(child, signal.SIGKILL)
  _, status = os.waitpid(child, 0)
  if os.WIFSIGNALED(status):
    done += 1
    torn += saved(path)[1]
  else:
    assert os.waitstatus_to_exitcode(status) == 0, status
    run += 1
for number in range(run + 1):
  _, status = os.waitpid(start(f'{workdir}/{number}'), 0)
  assert status == 0, status
print(json.dumps({'runs': run + 1, 'torn': torn}))
'''


@pytest.mark.slow
def test_killed_at_thirty_moments_the_run_ends_as_if_it_were_not(
    images, whole, tmp_path):
  args = processes.command(
      tmp_path, images, steps=400, chunk_steps=10, eval_every=10,
      checkpoint_every=10)
  flags = [a for a in args[args.index('experiments.train') + 1:]
           if not a.startswith('--workdir')]
  done = subprocess.run(
      [sys.executable, '-c', _KILLER, str(tmp_path), '30', *flags],
      cwd=processes.ROOT, env=processes.environment(), text=True,
      capture_output=True, timeout=500, check=False)
  assert done.returncode == 0, done.stderr
  found = json.loads(done.stdout.splitlines()[-1])
  assert found['torn'] > 0  # Some were killed while they saved.
  for number in range(found['runs']):
    _assert_same(tmp_path / str(number), whole)
