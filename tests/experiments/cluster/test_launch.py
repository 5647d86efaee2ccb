"""Launching: what gcloud and sbatch are asked, by stand-ins on PATH.

The stand-ins record their arguments, and answer from files. What they are
asked to run on workers is run here, to see that quoting survives.
"""

import json
import os
import shutil
import stat
import subprocess
import sys
import time

import pytest

from tests.helpers import ROOT

_STAND_IN = f'''#!{sys.executable}
import json, os, pathlib, sys
folder = pathlib.Path(__file__).parent
name = pathlib.Path(sys.argv[0]).name
asked = sys.argv[1:]
if name == 'sbatch':
  asked.append(sys.stdin.read())
with open(folder / 'asked.jsonl', 'a') as file:
  file.write(json.dumps([name, *asked]) + chr(10))
for answers in sorted(folder.glob('answer-*')):
  word = answers.name.removeprefix('answer-')
  if word in ' '.join(asked):
    first, *rest = answers.read_text().split(chr(10))
    if rest:
      answers.write_text(chr(10).join(rest))
    if first.startswith('fail'):
      sys.exit(first.removeprefix('fail: '))
    print(first)
'''
_TRICKY = ["--data_dir=a b'c\"$HOME;`id`\\*", '--dataset=celeb']


@pytest.fixture
def cloud(tmp_path):
  """A folder with the stand-ins, and where they write."""
  folder = tmp_path / 'bin'
  folder.mkdir()
  for name in ('gcloud', 'sbatch', 'scancel'):
    path = folder / name
    path.write_text(_STAND_IN)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
  return folder


def _launch(cloud, *flags, arguments=()):
  path = f'{cloud}:{os.environ["PATH"]}' if cloud else os.environ['PATH']
  return subprocess.run(
      [sys.executable, '-W', 'error', '-m', 'experiments.launch', *flags, '--',
       *arguments], cwd=ROOT, text=True, capture_output=True, timeout=120,
      check=False, env=os.environ | {'PATH': path})


def _tpu(cloud, do, *flags, arguments=()):
  return _launch(
      cloud, '--on=tpu', '--name=faces', '--zone=us-central2-b',
      '--accelerator_type=v4-16', '--poll_seconds=0', f'--do={do}', *flags,
      arguments=arguments)


def _asked(cloud):
  path = cloud / 'asked.jsonl'
  if not path.exists():
    return []
  return [json.loads(line) for line in path.read_text().splitlines()]


def _remote(asked):
  """The shell commands that workers were asked to run."""
  return [word.removeprefix('--command=') for command in asked
          for word in command if word.startswith('--command=')]


def test_a_node_is_created_filled_started_and_deleted(cloud):
  done = _tpu(cloud, 'delete,run,install,create', '--spot', '--project=lab',
              '--setup=mount "the bucket"', arguments=_TRICKY)
  assert done.returncode == 0, done.stderr
  asked = _asked(cloud)
  where = ['--zone=us-central2-b', '--project=lab']
  assert [command[2:5] for command in asked] == [
      ['tpus', 'tpu-vm', 'create'], ['tpus', 'tpu-vm', 'scp'],
      ['tpus', 'tpu-vm', 'ssh'], ['tpus', 'tpu-vm', 'ssh'],
      ['tpus', 'tpu-vm', 'ssh'], ['tpus', 'tpu-vm', 'delete']]
  assert all(command[-2:] == where for command in asked)
  assert {'faces', '--spot', '--accelerator-type=v4-16'} <= set(asked[0])
  assert all('--worker=all' in command for command in asked[1:5])
  assert _remote(asked)[1] == 'mount "the bucket"'
  assert '"jax[tpu]"' in _remote(asked)[0]
  assert '--quiet' in asked[-1]


def test_the_archive_holds_what_an_installation_needs(cloud, tmp_path):
  assert _tpu(cloud, 'install').returncode == 0
  archive = _asked(cloud)[0][5]
  names = subprocess.run(
      ['tar', '--list', f'--file={archive}'], text=True, check=True,
      capture_output=True).stdout.split()
  assert {'setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE',
          'mlvae_jax/__init__.py', 'experiments/train.py'} <= set(names)
  assert not [n for n in names if '.git' in n or n.endswith('.pyc')]


def test_training_gets_its_arguments_as_they_are_and_leaves_its_code(
    cloud, tmp_path):
  assert _tpu(cloud, 'run', arguments=_TRICKY).returncode == 0
  home = tmp_path / 'home'
  python = home / 'mlvae_jax_run' / 'env' / 'bin' / 'python'
  python.parent.mkdir(parents=True)
  python.write_text(
      f'#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n'
      'sys.exit(3)\n')
  python.chmod(0o755)
  run = home / 'mlvae_jax_run'
  command, = _remote(_asked(cloud))
  subprocess.run(['bash', '-c', command], cwd=home, check=True)
  end = time.monotonic() + 30
  while not (run / 'train.exit').exists() and time.monotonic() < end:
    time.sleep(0.02)
  assert (run / 'train.exit').read_text() == '3\n'
  assert json.loads((run / 'train.log').read_text()) == [
      '-u', '-m', 'experiments.train', *_TRICKY]


def test_a_queued_resource_is_waited_for(cloud):
  (cloud / 'answer-describe').write_text('WAITING\nPROVISIONING\nACTIVE')
  done = _tpu(cloud, 'create,delete', '--queued', '--spot')
  assert done.returncode == 0, done.stderr
  asked = [command[3:5] for command in _asked(cloud)]
  assert asked == [
      ['queued-resources', 'create'], *[['queued-resources', 'describe']] * 3,
      ['queued-resources', 'delete']]
  assert 'faces is WAITING\n' in done.stdout


def test_a_queued_resource_that_fails_is_one_error(cloud):
  (cloud / 'answer-describe').write_text('FAILED')
  done = _tpu(cloud, 'create,install', '--queued')
  assert done.returncode == 1 and 'is FAILED; delete it' in done.stderr
  assert len(_asked(cloud)) == 2  # Nothing is installed.


def test_watching_begins_again_after_a_preemption(cloud):
  (cloud / 'answer-describe').write_text('READY\nPREEMPTED\nREADY')
  (cloud / 'answer-train.exit 2').write_text('\n0')
  done = _tpu(cloud, 'watch', '--spot', arguments=_TRICKY)
  assert done.returncode == 0, done.stderr
  asked = [command[4] for command in _asked(cloud)]
  assert asked == ['describe', 'ssh', 'describe', 'delete', 'create', 'scp',
                   'ssh', 'ssh', 'describe', 'ssh']
  assert 'faces is PREEMPTED; creating it again' in done.stdout
  assert done.stdout.endswith('training has ended\n')


def test_watching_outlives_a_network_that_fails_and_a_node_that_is_gone(
    cloud):
  (cloud / 'answer-describe').write_text(
      'fail: no route to host\nfail: NOT_FOUND: no node faces\nREADY\nREADY')
  (cloud / 'answer-train.exit 2').write_text('fail: ssh\n0')
  done = _tpu(cloud, 'watch')
  assert done.returncode == 0, done.stderr
  asked = [command[4] for command in _asked(cloud)]
  assert asked == ['describe', 'describe', 'create', 'scp', 'ssh', 'ssh',
                   'describe', 'ssh', 'describe', 'ssh']


def test_watching_tells_that_training_failed(cloud):
  (cloud / 'answer-describe').write_text('READY')
  (cloud / 'answer-train.exit 2').write_text('1')
  done = _tpu(cloud, 'watch')
  assert done.returncode == 1
  assert 'training ended with 1; see --do=logs' in done.stderr


def test_a_step_that_fails_ends_the_launch(cloud):
  (cloud / 'answer-tpu-vm create').write_text('fail: quota exceeded')
  done = _tpu(cloud, 'create,install,run')
  assert done.returncode == 1
  assert done.stderr.endswith(
      'error: gcloud compute tpus tpu-vm create ... failed with 1\n')
  assert len(_asked(cloud)) == 1


@pytest.mark.parametrize('on', ['tpu', 'slurm'])
def test_a_dry_run_shows_all_and_asks_nobody(cloud, on):
  if on == 'tpu':
    done = _tpu(cloud, 'create,install,run,logs,watch,stop,delete',
                '--queued', '--dry_run', arguments=_TRICKY)
  else:
    done = _launch(cloud, '--on=slurm', '--name=a', '--dry_run',
                   '--do=run,logs,stop,delete', arguments=_TRICKY)
  assert done.returncode == 0, done.stderr
  assert not _asked(cloud)
  assert done.stdout.count('$ ') >= 4 and 'experiments.train' in done.stdout


def test_a_job_is_submitted_with_a_script_that_keeps_its_arguments(
    cloud, tmp_path):
  done = _launch(
      cloud, '--on=slurm', '--name=faces', '--nodes=2', '--gpus_per_node=8',
      '--partition=long', '--time_limit=8:00:00', '--account=vision',
      '--setup=export FROM_SETUP=yes', f'--log={tmp_path}/out.log',
      '--do=run,stop,delete', arguments=_TRICKY)
  assert done.returncode == 0, done.stderr
  (name, *options, script), stop, delete = _asked(cloud)
  assert name == 'sbatch'
  assert {'--nodes=2', '--ntasks-per-node=8', '--gpus-per-node=8',
          '--partition=long', '--time=8:00:00', '--account=vision',
          '--requeue', '--signal=TERM@120', f'--output={tmp_path}/out.log',
          '--job-name=faces'} <= set(options)
  assert stop == ['scancel', '--signal=TERM', '--jobname=faces']
  assert delete == ['scancel', '--jobname=faces']
  # The script itself, with an srun and an scontrol that tell what they get.
  for tool, code in (('srun', 143), ('scontrol', 0)):
    path = cloud / tool
    path.write_text(
        f'#!{sys.executable}\nimport json, os, sys\nprint(json.dumps('
        f'[os.environ.get("FROM_SETUP"), *sys.argv[1:]]))\nsys.exit({code})\n')
    path.chmod(0o755)
  ran = subprocess.run(
      ['bash', '-c', script], text=True, capture_output=True, check=False,
      env=os.environ | {'PATH': f'{cloud}:{os.environ["PATH"]}',
                        'SLURM_JOB_ID': '42'})
  assert ran.returncode == 143
  srun, scontrol = map(json.loads, ran.stdout.splitlines())
  assert srun == ['yes', '--kill-on-bad-exit=0', sys.executable, '-u', '-m',
                  'experiments.train', *_TRICKY]
  assert scontrol == ['yes', 'requeue', '42']


@pytest.mark.parametrize('flags, message', [
    (('--on=slurm', '--name=a', '--do=create'), 'expected --do of run,logs'),
    (('--on=tpu', '--name=a b', '--zone=z', '--do=logs'), "got 'a b'"),
    (('--on=tpu', '--name=a', '--do=logs'), 'needs --zone'),
    (('--on=tpu', '--name=a', '--zone=z', '--do=create'),
     'needs --accelerator_type'),
    (('--name=a', '--do=run'), '--on'),
])
def test_bad_flags_are_one_line(cloud, flags, message):
  done = _launch(cloud, *flags)
  assert done.returncode == 2 and message in done.stderr
  assert done.stderr.count('\n') == 1 and not _asked(cloud)


def test_arguments_of_training_are_flags(cloud):
  done = _launch(cloud, '--on=slurm', '--name=a', '--do=run',
                 arguments=['celeb'])
  assert done.returncode == 2 and "got 'celeb'" in done.stderr


@pytest.mark.skipif(
    shutil.which('gcloud') is not None, reason='gcloud is installed')
def test_without_gcloud_it_is_said():
  done = _tpu(None, 'create')
  assert done.returncode == 1
  assert 'gcloud is not installed here; install it, or see' in done.stderr
