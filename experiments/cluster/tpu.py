"""Training on Cloud TPU VMs, by gcloud: from creating them to deleting them.

Every worker of a slice runs the same command, and JAX finds the other workers
by itself. The command runs in a session of its own, so that it outlives the
connection, and leaves its exit code in a file.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import pathlib
import shlex
import tempfile
import time

from experiments.cli import UserError
from experiments.cluster.shell import Shell

_ROOT = pathlib.Path(__file__).parents[2]
_SOURCES = ('setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE',
            'mlvae_jax', 'experiments')
_FOLDER = 'mlvae_jax_run'  # In the home folder of every worker.
_GONE = ('PREEMPTED', 'TERMINATED', 'STOPPED', 'NOT_FOUND')  # Create again.


@dataclasses.dataclass(frozen=True)
class Tpu:
  """A TPU VM, or a slice of several.

  Attributes are the flags of `experiments.launch` of the same names; `name` is
  also that of the queued resource.
  """

  shell: Shell
  name: str
  zone: str
  project: str | None
  accelerator_type: str
  runtime_version: str
  spot: bool
  queued: bool
  setup: str
  poll_seconds: float

  def create(self) -> None:
    """Creates the node, as a queued resource if `queued`."""
    kind = (f'--accelerator-type={self.accelerator_type}',
            *['--spot'] * self.spot)
    if not self.queued:
      self._gcloud('tpu-vm', 'create', self.name,
                   f'--version={self.runtime_version}', *kind)
      return
    self._gcloud(
        'queued-resources', 'create', self.name, f'--node-id={self.name}',
        f'--runtime-version={self.runtime_version}', *kind)
    # '' is a failure of gcloud, which may be temporary.
    while (state := self._gcloud(
        'queued-resources', 'describe', self.name,
        '--format=value(state.state)', dry_answer='ACTIVE')) != 'ACTIVE':
      if state in ('FAILED', 'SUSPENDED'):
        raise UserError(
            f'the queued resource {self.name} is {state}; delete it and try '
            'another --zone or --accelerator_type')
      print(f'{self.name} is {state}', flush=True)
      time.sleep(self.poll_seconds)

  def install(self) -> None:
    """Copies this checkout to every worker, and installs it there."""
    archive = f'{tempfile.gettempdir()}/mlvae_jax-{self.name}.tar.gz'
    self.shell.run([
        'tar', '--create', '--gzip', f'--file={archive}', '--exclude=*.pyc',
        f'--directory={_ROOT}', *_SOURCES])
    self._gcloud('tpu-vm', 'scp', archive, f'{self.name}:mlvae_jax.tar.gz',
                 '--worker=all')
    # The workers' own Python may be too old; uv installs another one.
    self._on_workers(
        f'mkdir -p {_FOLDER}/source', f'cd {_FOLDER}',
        'tar --extract --gzip --file=../mlvae_jax.tar.gz --directory=source',
        'python3 -m pip install --user --quiet uv',
        'python3 -m uv venv --quiet --clear --python=3.12 env',
        'python3 -m uv pip install --quiet --python=env '
        '--editable "./source[experiments]" "jax[tpu]"')
    if self.setup:
      self._on_workers(self.setup)

  def run(self, arguments: Sequence[str]) -> None:
    """Starts training on every worker; it outlives a lost connection."""
    train = shlex.join([
        'env/bin/python', '-u', '-m', 'experiments.train', *arguments])
    job = f'{train} > train.log 2>&1; echo $? > train.exit'
    # The old exit code goes first, or `watch` would take it for the new one.
    # Without setsid and the redirections ssh would wait, or take the job down.
    self._on_workers(
        f'cd {_FOLDER}', 'rm -f train.exit',
        f'setsid nohup sh -c {shlex.quote(job)} < /dev/null > /dev/null 2>&1 &'
        ' echo started')

  def logs(self) -> None:
    """Follows the log of the first worker, until Ctrl-C."""
    self._on_workers(f'tail -n +1 -F {_FOLDER}/train.log', worker='0')

  def watch(self, arguments: Sequence[str]) -> None:
    """Waits for the end of training, starting it again after preemptions."""
    while True:
      state = self._gcloud('tpu-vm', 'describe', self.name,
                           '--format=value(state)', dry_answer='READY')
      if state in _GONE:
        print(f'{self.name} is {state}; creating it again', flush=True)
        # A preempted node keeps its name, a queued resource outlives its node.
        if state != 'NOT_FOUND' or self.queued:
          self.delete()
        self.create()
        self.install()
        self.run(arguments)
      elif state == 'READY':
        code = self._on_workers(f'cat {_FOLDER}/train.exit 2>/dev/null',
                                worker='0', dry_answer='0')
        if code == '0':
          print('training has ended', flush=True)
          return
        if code.isdigit():  # '' while training runs.
          raise UserError(f'training ended with {code}; see --do=logs, then '
                          'resume with --do=run')
      time.sleep(0 if self.shell.dry_run else self.poll_seconds)

  def stop(self) -> None:
    """Asks training to save and end."""
    self._on_workers('pkill -TERM -f experiments.train')

  def delete(self) -> None:
    """Deletes the node, with everything on its disks."""
    kind, *force = (
        ['queued-resources', '--force'] if self.queued else ['tpu-vm'])
    self._gcloud(kind, 'delete', self.name, *force, '--quiet')

  def _on_workers(self, *lines: str, worker: str = 'all',
                  dry_answer: str | None = None) -> str | None:
    return self._gcloud(
        'tpu-vm', 'ssh', self.name, f'--worker={worker}',
        f'--command={" && ".join(lines)}', dry_answer=dry_answer)

  def _gcloud(self, *arguments: str, dry_answer: str | None = None
              ) -> str | None:
    """Runs a command of gcloud; asks for its output where it has an answer."""
    command = ['gcloud', 'compute', 'tpus', *arguments, f'--zone={self.zone}',
               *([f'--project={self.project}'] if self.project else [])]
    if dry_answer is None:
      return self.shell.run(command)
    return self.shell.ask(command, dry_answer)
