"""The same run on other layouts: virtual devices, and real processes.

The processes talk over the loopback, as hosts would over a network.
"""

import os
import signal
import time

import numpy as np
import pytest

from mlvae_jax.training import loading
from tests.helpers import processes


def _command(workdir, data, **flags):
  """Ten chunks, unless flags say otherwise."""
  return processes.command(
      workdir, data, **{'steps': 100, 'chunk_steps': 10} | flags)


_PENALTIES = 'contrast/all:100,mean_leakage/all:100,adversary/all:8'


def _alone(images, root, **flags):
  processes.run(_command(root / 'run', images, **flags), root / 'logs')
  return root / 'run'


@pytest.fixture(scope='module')
def alone(images, tmp_path_factory):
  """The run on one device of one process."""
  return _alone(images, tmp_path_factory.mktemp('alone'))


@pytest.fixture(scope='module')
def penalised(images, tmp_path_factory):
  """The same with penalties, which compare rows across devices."""
  return _alone(
      images, tmp_path_factory.mktemp('penalised'), penalties=_PENALTIES)


def _assert_same(found, expected):
  for split in ('train', 'validation'):
    a, b = (processes.curve(run, split) for run in (found, expected))
    np.testing.assert_allclose(a, b, rtol=1e-3)


@pytest.mark.slow
# 15 rows a batch: no number of devices here divides them.
@pytest.mark.parametrize('number, devices', [
    (1, 2), (1, 4), (1, 8), (2, 1), (4, 1)])  # And (2, 2) below.
def test_curves_agree_on_all_layouts(
    images, penalised, tmp_path, number, devices):
  assert len(processes.curve(penalised)) == 10
  output = processes.run(
      _command(tmp_path / 'run', images, penalties=_PENALTIES),
      tmp_path / 'logs', number=number, devices=devices)
  _assert_same(tmp_path / 'run', penalised)
  if number > 1:
    assert f'{number} processes, {number * devices} devices' in output
    assert output.count('packed store: ') == 1  # One of them speaks.


@pytest.mark.slow
def test_a_checkpoint_goes_on_on_another_layout(images, alone, tmp_path):
  run, logs = tmp_path / 'run', tmp_path / 'logs'
  for steps, layout in ((30, {'number': 2}), (60, {'devices': 4}),
                        (100, {'number': 2, 'devices': 2})):
    output = processes.run(
        _command(run, images, steps=steps), logs, **layout)
  assert 'at step 60 of 100' in output
  np.testing.assert_allclose(
      processes.curve(run), processes.curve(alone), rtol=1e-3)
  a, b = (loading.load(workdir)[1] for workdir in (run, alone))
  np.testing.assert_allclose(
      a['encoder']['heads']['kernel'], b['encoder']['heads']['kernel'],
      atol=1e-3)


@pytest.mark.slow
def test_the_first_process_evaluates_and_reports(images, tmp_path):
  output = processes.run(
      _command(tmp_path / 'run', images, steps=4, eval=True),
      tmp_path / 'logs', number=2)
  assert output.count('report: ') == 1
  assert (tmp_path / 'run' / 'report.html').exists()


_CLUSTERS = {
    'SLURM': lambda number: {
        'SLURM_JOB_ID': '7', 'SLURM_STEP_NODELIST': 'localhost',
        'SLURM_NTASKS': '2', 'SLURM_PROCID': str(number),
        'SLURM_LOCALID': str(number)},
    'Open MPI': lambda number: {
        'OMPI_MCA_orte_hnp_uri': '1531576320.0;tcp://127.0.0.1:34911',
        'OMPI_COMM_WORLD_SIZE': '2', 'OMPI_COMM_WORLD_RANK': str(number),
        'OMPI_COMM_WORLD_LOCAL_RANK': str(number)},
}


@pytest.mark.slow
@pytest.mark.parametrize('cluster', list(_CLUSTERS))
def test_a_cluster_is_found_by_itself(images, tmp_path, cluster):
  port = str(processes.free_port())
  output = processes.run(
      _command(tmp_path / 'run', images, steps=4), tmp_path / 'logs',
      number=2, env=lambda number: {
          'JAX_COORDINATOR_PORT': port, **_CLUSTERS[cluster](number)})
  assert '2 processes, 2 devices' in output


@pytest.mark.slow
def test_the_environment_stands_for_flags(images, tmp_path):
  port = processes.free_port()
  output = processes.run(
      _command(tmp_path / 'run', images, steps=4), tmp_path / 'logs',
      number=2, env=lambda number: {
          'JAX_COORDINATOR_ADDRESS': f'127.0.0.1:{port}',
          'JAX_NUM_PROCESSES': '2', 'JAX_PROCESS_ID': str(number)})
  assert '2 processes, 2 devices' in output


def _await_checkpoint(process, workdir, step):
  """Waits until there is a checkpoint of that step, or a later one."""
  while not any(
      path.name.isdigit() and int(path.name) >= step
      for path in workdir.glob('checkpoints/*')):
    assert process.popen.poll() is None, process.output
    time.sleep(0.05)


@pytest.mark.slow
def test_a_dead_peer_ends_the_run_and_the_run_goes_on(
    images, alone, tmp_path):
  run, logs = tmp_path / 'run', tmp_path / 'logs'
  endless = _command(run, images, steps=1_000_000, checkpoint_every=20)
  with processes.started(endless, logs, number=2) as both:
    _await_checkpoint(both[0], run, 20)
    both[1].popen.kill()
    assert both[0].wait(15) == 1, both[0].output
    message = both[0].output.splitlines()[-1]
  assert message.startswith('error: lost another process')
  assert 'Start all of them again' in message and 'is kept' in message
  kept = int(message.split('The checkpoint of step ')[1].split()[0])
  output = processes.run(
      _command(run, images, steps=kept + 20), logs, number=2)
  assert f'at step {kept} of {kept + 20}' in output
  found, expected = processes.curve(run), processes.curve(alone)
  length = min(len(found), len(expected))
  assert length >= 2
  np.testing.assert_allclose(found[:length], expected[:length], rtol=1e-3)


@pytest.mark.slow
def test_a_frozen_peer_ends_the_run_too(images, tmp_path):
  """Nothing says that it is gone, but it is not heard of any more."""
  run = tmp_path / 'run'
  endless = _command(run, images, steps=1_000_000, checkpoint_every=20)
  with processes.started(endless, tmp_path / 'logs', number=2) as both:
    _await_checkpoint(both[0], run, 20)
    os.kill(both[1].popen.pid, signal.SIGSTOP)
    start = time.monotonic()
    assert both[0].wait(60) == -signal.SIGABRT
    assert time.monotonic() - start < 15
    assert 'another task died' in both[0].output
  loading.load(run)  # What was saved is whole.


@pytest.mark.slow
@pytest.mark.parametrize('which', [0, 1])
def test_a_signal_to_one_process_stops_all_at_the_same_step(
    images, tmp_path, which):
  endless = _command(tmp_path / 'run', images, steps=1_000_000)
  with processes.started(endless, tmp_path / 'logs', number=2) as both:
    _await_checkpoint(both[0], tmp_path / 'run', 100)
    os.kill(both[which].popen.pid, signal.SIGTERM)
    assert [p.wait(60) for p in both] == [143, 143], both[0].output
    lines = [p.output.splitlines()[-1] for p in both]
  assert lines[0] == lines[1] and 'stopped by SIGTERM at step' in lines[0]
  step = int(lines[0].split('at step ')[1].split()[0])
  assert (tmp_path / 'run' / 'checkpoints' / str(step)).exists()


@pytest.mark.slow
def test_what_one_process_finds_wrong_ends_all(images, tmp_path):
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / 'config.json').write_text('{"mod')
  with processes.started(
      _command(tmp_path / 'run', images), tmp_path / 'logs',
      number=2) as both:
    assert [p.wait(60) for p in both] == [1, 1], both[1].output
    assert 'not JSON' in both[0].output
    assert 'error: process 0 stopped: ' in both[1].output
    assert 'not JSON' in both[1].output


@pytest.mark.slow
@pytest.mark.parametrize('flags, message', [
    ({'distributed': 'explicit'},
     '--distributed=explicit needs --coordinator_address (or $JAX_COORDINATOR'),
    ({'distributed': 'explicit', 'coordinator_address': 'localhost:1',
      'num_processes': 2, 'process_id': 2}, '--process_id=2 is not below --nu'),
    ({'num_processes': 2}, 'or --distributed=off'),
])
def test_bad_flags_are_one_line(images, tmp_path, flags, message):
  with processes.started(
      _command(tmp_path / 'run', images, **flags),
      tmp_path / 'logs') as (process,):
    assert process.wait() == 2
    assert message in process.output
    assert process.output.count('\n') == 1


@pytest.mark.slow
def test_off_trains_alone_whatever_the_environment_says(images, tmp_path):
  processes.run(
      _command(tmp_path / 'run', images, steps=2, distributed='off'),
      tmp_path / 'logs', env=lambda _: {'JAX_PROCESS_ID': '1'})
