"""Training on a SLURM cluster, by sbatch: one process per GPU.

JAX finds the other processes through SLURM's variables. Before the time limit
SLURM sends SIGTERM: training saves and ends with 143, and the job is queued
again, as it is after the loss of a node.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import os
import shlex
import sys

from experiments.cluster.shell import Shell

_SAVED = 128 + 15  # Exit code of training that SIGTERM ended after a save.


@dataclasses.dataclass(frozen=True)
class Slurm:
  """A job on some nodes, each with GPUs.

  Attributes:
    shell: shell that runs sbatch.
    name: name of the job.
    partition: partition of the job; None for the cluster's default.
    account: account of the job; None for the user's default.
    nodes: number of nodes.
    gpus_per_node: number of GPUs per node, with one process each; 0 runs one
      process per node on its CPUs.
    time_limit: time limit as SLURM takes it, such as '8:00:00'; None for that
      of the partition.
    setup: shell command to run before training, which loads modules or an
      environment.
    log: path of the file for the output.
  """

  shell: Shell
  name: str
  partition: str | None
  account: str | None
  nodes: int
  gpus_per_node: int
  time_limit: str | None
  setup: str
  log: str

  def run(self, arguments: Sequence[str]) -> None:
    """Submits the job."""
    # A job that is queued again appends to the log of its first part. The
    # signal comes 120 seconds ahead, which is time to finish a chunk and save.
    options = [
        f'--job-name={self.name}', f'--nodes={self.nodes}',
        f'--ntasks-per-node={max(1, self.gpus_per_node)}',
        f'--output={os.path.abspath(self.log)}', '--open-mode=append',
        '--requeue', '--signal=TERM@120', f'--chdir={os.getcwd()}']
    if self.gpus_per_node:
      options.append(f'--gpus-per-node={self.gpus_per_node}')
    for name, value in (('partition', self.partition),
                        ('account', self.account), ('time', self.time_limit)):
      if value:
        options.append(f'--{name}={value}')
    self.shell.run(['sbatch', *options], stdin=self.script(arguments))

  def script(self, arguments: Sequence[str]) -> str:
    """The batch script."""
    train = shlex.join([
        sys.executable, '-u', '-m', 'experiments.train', *arguments])
    # --kill-on-bad-exit=0: the first process to end with 143 must not take
    # those down that are still saving.
    return '\n'.join([
        '#!/bin/bash', *filter(None, [self.setup]),
        f'srun --kill-on-bad-exit=0 {train}', 'code=$?',
        '# Saved before the time limit: the same job resumes.',
        f'if [ $code -eq {_SAVED} ]; then',
        '  scontrol requeue "$SLURM_JOB_ID"', 'fi', 'exit $code', ''])

  def logs(self) -> None:
    """Follows the output, until Ctrl-C."""
    self.shell.run(['tail', '--lines=+1', '--retry', '--follow=name',
                    os.path.abspath(self.log)])

  def stop(self) -> None:
    """Asks training to save and end."""
    # Only to the steps, the processes of training, not to the batch script.
    self.shell.run(['scancel', '--signal=TERM', f'--jobname={self.name}'])

  def delete(self) -> None:
    """Ends the job at once."""
    self.shell.run(['scancel', f'--jobname={self.name}'])
