"""Trains on TPU VMs or a SLURM cluster: what to run where.

  python -m experiments.launch --on=tpu --name=faces --zone=us-central2-b \\
      --accelerator_type=v4-16 --do=create,install,run,logs -- \\
      --dataset=celeb --data_dir=/mnt/data/faces --workdir=/mnt/data/runs/faces
  python -m experiments.launch --on=slurm --name=faces --nodes=2 \\
      --gpus_per_node=8 --do=run,logs -- --dataset=celeb --data_dir=faces

What stands after -- are flags of `experiments.train`. --do lists the steps, in
this order:

  create   TPU: create the node, with --queued by a queued resource
  install  TPU: copy this checkout to all workers, install it, run --setup
  run      start training on all workers; SLURM: submit the job
  logs     follow the log, until Ctrl-C, which does not end training
  watch    TPU: wait for the end; after a preemption create, install and run
           again
  stop     ask training to save and end
  delete   TPU: delete the node and its disks; SLURM: cancel the job

--dry_run shows every command and runs none.
"""

from __future__ import annotations

import re

from absl import flags

from experiments import cli
from experiments.cluster.shell import Shell
from experiments.cluster.slurm import Slurm
from experiments.cluster.tpu import Tpu

_STEPS = {
    'tpu': ('create', 'install', 'run', 'logs', 'watch', 'stop', 'delete'),
    'slurm': ('run', 'logs', 'stop', 'delete')}
_WITH_ARGUMENTS = ('run', 'watch')


def main(arguments: list[str]) -> None:
  """Reads the flags and does the steps; `arguments` are those of training."""
  values = flags.FLAGS.flag_values_dict()
  steps = values['do']
  known = _STEPS[values['on']]
  wrong = [step for step in steps if step not in known]
  if wrong or not steps:
    cli.bad_flag(f'expected --do of {",".join(known)} for '
                 f'--on={values["on"]}, got {",".join(steps) or "nothing"}')
  if not re.fullmatch('[a-z]([-a-z0-9]{0,60}[a-z0-9])?', values['name'] or ''):
    cli.bad_flag('expected --name of lower-case letters, digits and hyphens, '
                 f'got {values["name"] or "nothing"!r}')
  strange = [a for a in arguments if not a.startswith('-')]
  if strange:
    cli.bad_flag(f'expected flags of experiments.train after --, as '
                 f'--dataset=celeb, got {strange[0]!r}')
  machine = _machine(values)
  for step in sorted(steps, key=known.index):
    do = getattr(machine, step)
    do(arguments) if step in _WITH_ARGUMENTS else do()


def define_flags() -> None:
  """Defines the flags of this entry point."""
  flags.DEFINE_enum('on', None, list(_STEPS), 'Where to launch.', required=True)
  flags.DEFINE_list('do', None, 'Steps, as above.', required=True)
  flags.DEFINE_string(
      'name', None, 'Name of the TPU node, or of the job.', required=True)
  flags.DEFINE_bool('dry_run', False, 'Show commands, and run none.')
  flags.DEFINE_string(
      'setup', '', 'Shell command on the machines before training: mounts, '
      'modules.')
  flags.DEFINE_string('zone', None, 'TPU: zone.')
  flags.DEFINE_string('project', None, 'TPU: project; gcloud\'s by default.')
  flags.DEFINE_string('accelerator_type', None, 'TPU: as v4-8.')
  flags.DEFINE_string(
      'runtime_version', 'tpu-ubuntu2204-base', 'TPU: image of the workers.')
  flags.DEFINE_bool('spot', False, 'TPU: cheaper, and may be preempted.')
  flags.DEFINE_bool('queued', False, 'TPU: ask for a queued resource.')
  flags.DEFINE_float(
      'poll_seconds', 30.0, 'TPU: seconds between looks at what is waited for.',
      lower_bound=0.0)
  flags.DEFINE_string('partition', None, 'SLURM: partition.')
  flags.DEFINE_string('account', None, 'SLURM: account.')
  flags.DEFINE_integer('nodes', 1, 'SLURM: nodes.', lower_bound=1)
  flags.DEFINE_integer(
      'gpus_per_node', 1, 'SLURM: GPUs of a node, each with its process; 0 '
      'for CPUs.', lower_bound=0)
  flags.DEFINE_string('time_limit', None, 'SLURM: as 8:00:00.')
  cli.define_path('log', None, 'SLURM: file of the output; NAME.log by '
                  'default.')


def _machine(values: dict) -> Tpu | Slurm:
  shell = Shell(values['dry_run'])
  if values['on'] == 'slurm':
    return Slurm(
        shell, values['name'], values['partition'], values['account'],
        values['nodes'], values['gpus_per_node'], values['time_limit'],
        values['setup'], values['log'] or f'{values["name"]}.log')
  needed = ['zone']
  if {'create', 'watch'} & set(values['do']):
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
