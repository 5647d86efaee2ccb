"""Trains on TPU VMs or on a SLURM cluster.

  python -m experiments.launch --on=tpu --name=faces --zone=us-central2-b \\
      --accelerator_type=v4-16 --do=create,install,run,logs -- \\
      --dataset=celeb --data_dir=/mnt/data/faces --workdir=/mnt/data/runs/faces
  python -m experiments.launch --on=slurm --name=faces --nodes=2 \\
      --gpus_per_node=8 --do=run,logs -- --dataset=celeb --data_dir=faces

Everything after -- is passed to `experiments.train`. --do lists the steps to
perform, which always run in this order:

  create   TPU: create the node, with --queued as a queued resource
  install  TPU: copy this checkout to all workers, install it, run --setup
  run      start training on all workers; SLURM: submit the job
  logs     follow the log until Ctrl-C, which does not end training
  watch    TPU: wait for the end; after a preemption create, install and run
           again
  stop     ask training to save and end
  delete   TPU: delete the node and its disks; SLURM: cancel the job

--dry_run shows all commands without running any.
"""

from __future__ import annotations

import re

from absl import flags

from experiments import cli
from experiments.cluster.shell import Shell
from experiments.cluster.slurm import Slurm
from experiments.cluster.tpu import Tpu
from experiments.config.flags import Path, Setting, define

_STEPS = {
    'tpu': ('create', 'install', 'run', 'logs', 'watch', 'stop', 'delete'),
    'slurm': ('run', 'logs', 'stop', 'delete')}
_WITH_ARGUMENTS = ('run', 'watch')
_LAUNCH, _TPU, _SLURM = 'Launch', 'TPU', 'SLURM'
_FLAGS = {
    'on': Setting(
        'Kind of machines to launch on.', _LAUNCH, choices=tuple(_STEPS),
        required=True),
    'do': Setting('Steps to perform, separated by commas; see above.', _LAUNCH,
                  tuple, required=True),
    'name': Setting('Name of the TPU node, or of the SLURM job.', _LAUNCH,
                    required=True),
    'dry_run': Setting(
        'Whether to show the commands without running them.', _LAUNCH, bool,
        False),
    'setup': Setting(
        'Shell command to run on the machines before training, for example to '
        'mount disks or to load modules.', _LAUNCH, default=''),
    'zone': Setting('Zone of the TPU node.', _TPU),
    'project': Setting(
        'Project of the TPU node; gcloud\'s own by default.', _TPU),
    'accelerator_type': Setting(
        'Type and size of the TPU node, such as v4-8.', _TPU),
    'runtime_version': Setting(
        'Disk image of the TPU workers.', _TPU, default='tpu-ubuntu2204-base'),
    'spot': Setting(
        'Whether to ask for a spot node, which is cheaper and may be '
        'preempted.', _TPU, bool, False),
    'queued': Setting(
        'Whether to request the node as a queued resource.', _TPU, bool, False),
    'poll_seconds': Setting(
        'Number of seconds between status checks while waiting.', _TPU, float,
        30.0, lower=0.0),
    'partition': Setting('Partition of the job.', _SLURM),
    'account': Setting('Account of the job.', _SLURM),
    'nodes': Setting('Number of nodes.', _SLURM, int, 1, lower=1),
    'gpus_per_node': Setting(
        'Number of GPUs per node, with one process each; 0 trains on CPUs.',
        _SLURM, int, 1, lower=0),
    'time_limit': Setting('Time limit of the job, such as 8:00:00.', _SLURM),
    'log': Setting(
        'File for the output of the job; NAME.log by default.', _SLURM, Path),
}


def main(arguments: list[str]) -> None:
  """Reads the flags and performs the steps.

  Args:
    arguments: flags of training.
  """
  values = flags.FLAGS.flag_values_dict()
  steps = values['do']
  known = _STEPS[values['on']]
  wrong = [step for step in steps if step not in known]
  if wrong or not steps:
    cli.bad_flag(f'expected --do of {",".join(known)} for '
                 f'--on={values["on"]}, got {",".join(steps) or "nothing"}')
  # Google Cloud's rule; it also keeps the name harmless in shell commands.
  if not re.fullmatch('[a-z]([-a-z0-9]{0,60}[a-z0-9])?', values['name'] or ''):
    cli.bad_flag('expected --name of lower-case letters, digits and hyphens, '
                 f'got {values["name"] or "nothing"!r}')
  # Found here, not on a machine that takes minutes to create.
  strange = [a for a in arguments if not a.startswith('-')]
  if strange:
    cli.bad_flag(f'expected flags of experiments.train after --, such as '
                 f'--dataset=celeb, got {strange[0]!r}')
  machine = _machine(values)
  for step in sorted(steps, key=known.index):
    do = getattr(machine, step)
    do(arguments) if step in _WITH_ARGUMENTS else do()


def define_flags() -> None:
  """Defines the flags of this entry point."""
  for name, option in _FLAGS.items():
    define(name, option)


def _machine(values: dict) -> Tpu | Slurm:
  shell = Shell(values['dry_run'])
  if values['on'] == 'slurm':
    return Slurm(
        shell, values['name'], values['partition'], values['account'],
        values['nodes'], values['gpus_per_node'], values['time_limit'],
        values['setup'], values['log'] or f'{values["name"]}.log')
  needed = ['zone']
  if {'create', 'watch'} & set(values['do']):  # Watching may create again.
    needed.append('accelerator_type')
  for name in needed:
    if not values[name]:
      cli.bad_flag(f'--on=tpu needs --{name}')
  return Tpu(
      shell, values['name'], values['zone'], values['project'],
      values['accelerator_type'], values['runtime_version'], values['spot'],
      values['queued'], values['setup'], values['poll_seconds'])


if __name__ == '__main__':
  define_flags()
  cli.run_with_arguments(main)
