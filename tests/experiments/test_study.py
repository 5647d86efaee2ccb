"""A whole study in processes, as a user runs it, and mistakes on the way."""

import os
import signal
import subprocess
import sys
import time

import pytest

from experiments import study
from experiments.studies import runner
from tests.helpers import ROOT, processes, studies

_WRONG = """
[settings.wrong]
factors = 'content:3:nobody,style:2'
"""


def _command(*arguments):
  return [sys.executable, '-W', 'error', '-m', 'experiments.study',
          *map(str, arguments)]


def _run(*arguments, **variables):
  return subprocess.run(
      _command(*arguments), cwd=ROOT, text=True, capture_output=True,
      timeout=300, check=False, env=processes.environment(**variables))


def _fails(result, code, message):
  assert result.returncode == code, result.stderr
  assert message in result.stderr.splitlines()[-1], result.stderr
  assert result.stderr.splitlines()[-1].startswith('error: ')


def _await(path, text):
  end = time.monotonic() + 120
  while not path.exists() or text not in path.read_text(errors='replace'):
    assert time.monotonic() < end
    time.sleep(0.02)


@pytest.mark.slow
def test_a_study_is_stopped_resumed_and_skipped(tmp_path):
  data, folder = processes.make_images(tmp_path / 'data'), tmp_path / 'out'
  text = studies.TEXT.replace('seeds = [0, 1]', 'seeds = [0]').replace(
      'steps = 4', 'steps = 3000\nchunk_steps = 10').partition(
          '[settings.leakage]')
  path = studies.write(
      tmp_path, text[0] + _WRONG + text[2].partition("10'\n")[2])
  arguments = path, f'--output={folder}', f'--define=DATA={data}'
  log = folder / 'plain-0' / 'study.log'
  with processes.started(
      _command(*arguments, '--only=plain'), tmp_path / 'logs') as (process,):
    _await(log, 'ELBO')
    os.kill(process.popen.pid, signal.SIGTERM)
    assert process.wait(60) == 143, process.output
    assert process.output.endswith(
        '0 of 1 runs are done; run the same command to resume\n')
  # Training, its log says, has stopped as well, and saved.
  assert 'SIGTERM at step ' in log.read_text()

  done = _run(*arguments)
  _fails(done, 1, '1 of 2 runs failed: wrong, seed 0; run the same command')
  assert 'failed: wrong, seed 0, with exit code ' in done.stderr
  assert '  | error: ' in done.stderr and 'nobody' in done.stderr
  assert f'page: {folder / "index.html"}\n' in done.stdout
  assert 'resuming ' in log.read_text()
  table = (folder / 'table.md').read_text().splitlines()
  assert table[3] == '| wrong | – | – | – |'
  assert '–' not in table[2] and table[2].startswith('| plain $1 \\| 2 | ')
  assert (folder / 'frontier.png').exists()
  page = (folder / 'index.html').read_text()
  assert '1 of 2 runs are complete' in page
  assert f'--data_dir={data}' in page

  before = log.read_text()
  done = _run(*arguments, '--only=plain')
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith('Two penalties: 1 of 1 runs are complete\n')
  assert log.read_text() == before


@pytest.mark.slow
def test_a_dry_run_shows_what_is_left_and_writes_nothing(tmp_path):
  _, runs = studies.make_runs(tmp_path)
  runner.perform([runs[2]], commands=studies.fake_commands)
  before = sorted(tmp_path.iterdir())
  arguments = (tmp_path / 'small.toml', '--dry_run', f'--output={tmp_path}',
               '--seeds=1')
  done = _run(*arguments, DATA='/x y')
  assert done.returncode == 0, done.stderr
  said, train, evaluate = done.stdout.splitlines()
  assert said == 'Two penalties: 1 of 2 runs are complete'
  assert train.startswith(
      "python -m experiments.train --dataset=folder '--data_dir=/x y' ")
  assert evaluate == ('python -m experiments.evaluate --ks=1 --probe_steps=5 '
                      f'--workdir={tmp_path / "leakage-1"}')
  done = _run(*arguments, '--evaluate_again', DATA='/x y')
  assert done.stdout.splitlines()[3:] == [train, evaluate]
  assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize('arguments, code, message', [
    ([], 2, 'expected the name of one study'),
    (['separation'], 1, '[flags]: $DATA has no value'),
    (['separation', '--define=DATA=/x', '--only=y'], 2, '--only: '),
    (['separation', '--jobs=0'], 2, '--jobs'),
])
def test_mistakes_get_one_line(arguments, code, message):
  done = _run(*arguments)
  _fails(done, code, message)
  assert done.stderr.count('\n') == 1


def test_flags_that_are_lists(monkeypatch):
  monkeypatch.setenv('HOME', '/users/me')
  assert study._variables(['A=~/x', 'B=/a=b']) == {
      'A': '/users/me/x', 'B': '/a=b'}
  assert study._seeds(['1', '20']) == [1, 20]
  with pytest.raises(ValueError, match='expected --define=NAME=VALUE,...'):
    study._variables(['A=1', 'B'])
  with pytest.raises(ValueError, match='expected --seeds as comma-separated'):
    study._seeds(['1', 'x'])


@pytest.mark.slow
def test_help_is_quick_and_checks_leave_the_devices_to_the_runs():
  done = subprocess.run([sys.executable, '-c', """
import sys
from experiments import study
study.define_flags()
assert not {'jax', 'matplotlib', 'sklearn'} & set(sys.modules)
from experiments.studies import plan, reading
plan.make_runs(
    reading.read('separation'), 'x', variables={'DATA': '/x'})
assert not {'matplotlib', 'sklearn', 'tensorflow'} & set(sys.modules)
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized()
"""], cwd=ROOT, text=True, capture_output=True, timeout=120, check=False)
  assert done.returncode == 0, done.stderr
  done = _run('--help')
  assert done.returncode == 0
  assert 'python -m experiments.study' in done.stdout
  assert '\n  --output: ' in done.stdout
