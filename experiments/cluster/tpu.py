"""Training on Cloud TPU VMs, by gcloud: from creating them to deleting them.

Every worker of a slice runs the same command, and JAX finds the other workers
by itself. The command runs in a session of its own, so that it outlives the
connection, and leaves its exit code in a file.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import os
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
# States after which a node has to be created again.
_GONE = ('PREEMPTED', 'TERMINATED', 'STOPPED', 'NOT_FOUND')


@dataclasses.dataclass(frozen=True)
class Tpu:
  """A TPU VM, or a slice of several.

  Attributes:
    shell: shell that runs gcloud.
    name: name of the node, and with `queued` also of its queued resource.
    zone: zone of the node.
    project: project of the node; None for gcloud's default.
    accelerator_type: type and size of the node, such as v4-8, v5litepod-16.
    runtime_version: disk image of its workers.
    spot: whether the node is a cheaper one that may be preempted at any time.
    queued: whether to request a queued resource, and wait for it.
    setup: shell command to run on every worker after the installation, which
      mounts disks or fetches data.
    poll_seconds: number of seconds between status checks while waiting.
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
    kind = [f'--accelerator-type={self.accelerator_type}']
    if self.spot:
      kind.append('--spot')
    if not self.queued:
      self.shell.run(self._gcloud(
          'tpu-vm', 'create', self.name, f'--version={self.runtime_version}',
          *kind))
      return
    self.shell.run(self._gcloud(
        'queued-resources', 'create', self.name, f'--node-id={self.name}',
        f'--runtime-version={self.runtime_version}', *kind))
    # '' is a failure of gcloud that may be temporary, and so no reason to stop.
    while (state := self.shell.ask(
        self._gcloud('queued-resources', 'describe', self.name,
                     '--format=value(state.state)'), 'ACTIVE')) != 'ACTIVE':
      if state in ('FAILED', 'SUSPENDED'):
        raise UserError(
            f'the queued resource {self.name} is {state}; delete it and try '
            'another --zone or --accelerator_type')
      print(f'{self.name} is {state}', flush=True)
      time.sleep(self.poll_seconds)

  def install(self) -> None:
    """Copies this checkout to every worker, and installs it there."""
    missing = [name for name in _SOURCES if not (_ROOT / name).exists()]
    if missing:
      raise UserError(
          f'{_ROOT} is not a checkout of the project: {missing[0]} is missing; '
          'launch from one')
    archive = os.path.join(
        tempfile.gettempdir(), f'mlvae_jax-{self.name}.tar.gz')
    self.shell.run([
        'tar', '--create', '--gzip', f'--file={archive}', '--exclude=*.pyc',
        f'--directory={_ROOT}', *_SOURCES])
    self.shell.run(self._gcloud(
        'tpu-vm', 'scp', archive, f'{self.name}:mlvae_jax.tar.gz',
        '--worker=all'))
    # The workers' own Python may be too old; uv installs another one.
    self._on_workers(
        f'mkdir -p {_FOLDER}/source',
        f'tar --extract --gzip --file=mlvae_jax.tar.gz '
        f'--directory={_FOLDER}/source',
        'python3 -m pip install --user --quiet uv',
        f'python3 -m uv venv --quiet --clear --python=3.12 {_FOLDER}/env',
        f'python3 -m uv pip install --quiet --python={_FOLDER}/env '
        f'--editable "{_FOLDER}/source[experiments]" "jax[tpu]"')
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
    self._on_workers(
        f'tail --lines=+1 --retry --follow=name {_FOLDER}/train.log',
        worker='0')

  def watch(self, arguments: Sequence[str]) -> None:
    """Waits for the end of training; starts it again after a preemption.

    The workdir has to outlive the node, in a bucket or on a file server.

    Args:
      arguments: flags of training.

    Raises:
      UserError: when training failed.
    """
    while True:
      state = self.shell.ask(self._gcloud(
          'tpu-vm', 'describe', self.name, '--format=value(state)'), 'READY')
      if state in _GONE:
        print(f'{self.name} is {state}; creating it again', flush=True)
        # A preempted node still has its name, and so has a queued resource
        # whose node is gone.
        if state != 'NOT_FOUND' or self.queued:
          self.delete()
        self.create()
        self.install()
        self.run(arguments)
      elif state == 'READY':
        code = self.shell.ask(self._ssh(
            f'cat {_FOLDER}/train.exit 2>/dev/null', worker='0'), '0')
        if code == '0':
          print('training has ended', flush=True)
          return
        if code.isdigit():  # '' while training runs.
          raise UserError(
              f'training ended with {code}; see --do=logs, then resume with '
              '--do=run')
      time.sleep(0 if self.shell.dry_run else self.poll_seconds)

  def stop(self) -> None:
    """Asks training to save and end."""
    self._on_workers('pkill -TERM -f experiments.train')

  def delete(self) -> None:
    """Deletes the node, with everything on its disks."""
    if self.queued:
      self.shell.run(self._gcloud(
          'queued-resources', 'delete', self.name, '--force', '--quiet'))
    else:
      self.shell.run(self._gcloud('tpu-vm', 'delete', self.name, '--quiet'))

  def _on_workers(self, *lines: str, worker: str = 'all') -> None:
    self.shell.run(self._ssh(*lines, worker=worker))

  def _ssh(self, *lines: str, worker: str) -> list[str]:
    return self._gcloud(
        'tpu-vm', 'ssh', self.name, f'--worker={worker}',
        f'--command={" && ".join(lines)}')

  def _gcloud(self, *arguments: str) -> list[str]:
    where = [f'--zone={self.zone}']
    if self.project:
      where.append(f'--project={self.project}')
    return ['gcloud', 'compute', 'tpus', *arguments, *where]
