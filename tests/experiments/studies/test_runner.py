"""Performing runs: order, skipping, resuming, failing, signals."""

import dataclasses
import json
import os
import pathlib
import signal
import threading
import time

import pytest

from experiments.cli import StoppedError, UserError
from experiments.studies import output, runner, state
from tests.helpers import studies

# Waits for a signal, at which it ends as training does.
_WAIT = """
import signal, sys, time
def stop(number, _):
  print('saved', flush=True)
  sys.exit(128 + number)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
open(sys.argv[1] + '/ready', 'w').close()
time.sleep(60)
"""
_FAIL = "print('\\n'.join(f'line {i}' for i in range(30))); raise SystemExit(3)"


@pytest.fixture(name='runs')
def _runs(tmp_path, monkeypatch):
  monkeypatch.setattr(runner, '_POLL_SECONDS', 0.01)
  return studies.make_runs(tmp_path)[1]


def test_runs_become_complete(runs, capsys):
  seen = []
  assert not any(map(state.is_complete, runs))
  assert not runner.perform(
      runs, commands=studies.fake_commands,
      after=lambda: seen.append(sum(map(state.is_complete, runs))))
  assert seen == [1, 2, 3, 4]
  said = capsys.readouterr().out
  assert 'run 1 of 4: plain $1 | 2, seed 0; 0:00 so far\n' in said
  assert 'run 4 of 4: leakage, seed 1; ' in said
  assert ' so far, about 0:0' in said
  assert studies.log_of(runs[0]).count('$ ') == 2
  assert state.read_record(runs[0])['versions']['jax']


def test_what_has_changed_is_performed_again(runs, tmp_path):
  runner.perform(runs[:1], commands=studies.fake_commands)
  run, = runs[:1]
  assert state.is_complete(run)
  evaluated = dataclasses.replace(run, evaluate={'ks': '2'})
  assert not state.is_complete(evaluated)  # With other flags.
  config = dataclasses.replace(run.config, steps=8)
  longer = dataclasses.replace(run, config=config)
  assert not state.is_complete(longer) and state.difference(longer) is None
  assert not state.is_complete(dataclasses.replace(run, epochs=3))
  for name, value in (('steps', 2), ('sigma', 0.5)):
    other = dataclasses.replace(
        run, config=dataclasses.replace(run.config, **{name: value}))
    assert not state.is_complete(other)
    with pytest.raises(
        UserError, match=f'holds a run with {name}=.*, not {value}; move it'):
      state.check_workdirs([other])
  (pathlib.Path(run.workdir) / 'evaluation.json').unlink()
  assert not state.is_complete(run)


def test_a_failed_run_is_reported_and_the_others_go_on(runs, capsys):
  def commands(run):
    if run.setting.name == 'leakage' and run.seed == 0:
      return [studies.script(_FAIL), studies.script('')]
    return studies.fake_commands(run)

  failures = runner.perform(runs, commands=commands)
  assert [(f.run, f.code) for f in failures] == [(runs[1], 3)]
  assert [state.is_complete(run) for run in runs] == [True, False, True, True]
  said = capsys.readouterr().err
  assert 'failed: leakage, seed 0, with exit code 3; the end of ' in said
  assert f'{runs[1].workdir}/study.log:\n' in said
  assert '  | line 29\n' in said and 'line 20\n' not in said
  assert studies.log_of(runs[1]).count('$ ') == 1  # Not evaluated.
  # The next call performs it, and the record of an older end does not count.
  assert not runner.perform([runs[1]], commands=studies.fake_commands)
  assert state.is_complete(runs[1])
  runner.perform([runs[1]], commands=commands)
  assert not state.is_complete(runs[1])


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_once_and_nothing_more_starts(
    runs, number):
  def commands(run):
    return [studies.script(_WAIT, run.workdir), studies.script('')]

  def interrupt():
    ready = [os.path.join(run.workdir, 'ready') for run in runs[:2]]
    while not all(map(os.path.exists, ready)):
      time.sleep(0.01)
    os.kill(os.getpid(), number)

  thread = threading.Thread(target=interrupt)
  thread.start()
  with pytest.raises(
      StoppedError, match='0 of 4 runs are done; run the same command to'
  ) as raised:
    runner.perform(runs, jobs=2, commands=commands)
  thread.join()
  assert raised.value.code == 128 + number
  for run in runs[:2]:
    assert studies.log_of(run).endswith('saved\n')
    assert studies.log_of(run).count('saved\n') == 1
  assert not os.path.exists(runs[2].workdir)


def test_an_error_between_runs_stops_what_is_running(runs):
  def commands(run):
    return ([studies.script('')] if run == runs[0]
            else [studies.script(_WAIT, run.workdir)])

  def after():
    while not os.path.exists(os.path.join(runs[1].workdir, 'ready')):
      time.sleep(0.01)
    raise OSError('disk full')

  with pytest.raises(OSError, match='disk full'):
    runner.perform(runs[:2], jobs=2, commands=commands, after=after)
  assert studies.log_of(runs[1]).endswith('saved\n')


def test_jobs_take_gpus_in_turn(runs, monkeypatch):
  monkeypatch.delenv('XLA_PYTHON_CLIENT_PREALLOCATE', raising=False)
  show = ("import os; print([os.environ.get(n) for n in "
          "('CUDA_VISIBLE_DEVICES', 'XLA_PYTHON_CLIENT_PREALLOCATE')])")
  runner.perform(runs[:2], jobs=2, gpus=['4', '7'],
                 commands=lambda run: [studies.script(show)])
  for run, gpu in zip(runs, '47'):
    assert f"['{gpu}', None]" in studies.log_of(run)
  # Of two on one GPU, the first must not take all of its memory.
  runner.perform(runs[:2], jobs=2, gpus=['4'],
                 commands=lambda run: [studies.script(show)])
  assert "['4', 'false']" in studies.log_of(runs[1])


@pytest.mark.parametrize('seconds, text', [
    (0, '0:00'), (61.4, '1:01'), (3599.7, '1:00:00'), (7384, '2:03:04')])
def test_durations(seconds, text):
  assert runner.duration(seconds) == text


def test_last_lines_leave_out_progress_bars(tmp_path):
  path = tmp_path / 'log'
  path.write_bytes(b'one\n 0%\r 50%\rtwo \xff\n\nthree')
  assert runner.last_lines(str(path), 2) == ['two \ufffd', 'three']


def test_what_is_written_of_an_unfinished_study(tmp_path, runs):
  study, _ = studies.make_runs(tmp_path)
  path = output.write(study, runs, str(tmp_path))
  page = pathlib.Path(path).read_text()
  assert '0 of 4 runs are complete' in page and '<img' not in page
  assert not (tmp_path / 'frontier.png').exists()
  runner.perform(runs[:3], commands=studies.fake_commands)
  evaluation = pathlib.Path(runs[2].workdir) / 'evaluation.json'
  evaluation.write_text(json.dumps(studies.evaluation(0.7, -12.0, 1.0)))
  page = pathlib.Path(output.write(study, runs, str(tmp_path))).read_text()
  for text in ('<h1>Two penalties</h1>', 'Which one separates.',
               '3 of 4 runs are complete', '60.0 ± 14.1', '50.0 (n = 1)',
               'plain $1 | 2', '<img', '--penalties=mean_leakage/style:10',
               '<td>Python</td>', str(runs[3].workdir)):
    assert text in page, text
  assert (tmp_path / 'frontier.png').stat().st_size > 5000
  assert (tmp_path / 'table.csv').read_text().count('\n') == 13
