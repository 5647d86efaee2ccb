"""The task for SkyPilot: what it runs, on stand-ins for a cloud's machines."""

import pytest
import yaml

from tests.helpers import ROOT, commands

_TASK = yaml.safe_load(
    (ROOT / 'examples' / 'skypilot.yaml').read_text(encoding='utf-8'))


def _ran(folder, script, programs, **env):
  return commands.run(
      folder, script, programs=programs, **_TASK['envs'] | env)


def _trained(folder, programs, **env):
  """Words of the command of training, up to its module, and its flags."""
  words, = _ran(folder, _TASK['run'], programs, **env)
  return words[:4], words[4:]


@pytest.mark.parametrize('programs, jax', [
    (('nvidia-smi',), 'jax[cuda12]'), ((), 'jax[tpu]')])
def test_the_commands_are_installed_with_the_jax_of_the_machine(
    tmp_path, programs, jax):
  *_, installed = _ran(tmp_path, _TASK['setup'], programs)
  assert installed[-3:] == ['--editable', '.[experiments]', jax]


@pytest.mark.parametrize('programs, nodes, several', [
    (('nvidia-smi',), '1', []),
    (('nvidia-smi',), '2', [
        '--distributed=explicit', '--coordinator_address=10.0.0.1:9000',
        '--num_processes=2', '--process_id=1']),
    ((), '2', [])])
def test_training_has_its_arguments(tmp_path, programs, nodes, several):
  (program, *options, module), arguments = _trained(
      tmp_path, programs, RUN='faces',
      ARGUMENTS='--dataset=celeb --data_dir=/data', SKYPILOT_NUM_NODES=nodes,
      SKYPILOT_NODE_IPS='10.0.0.1\n10.0.0.2', SKYPILOT_NODE_RANK='1')
  assert (program, options) == ('python', ['-u', '-m'])
  assert arguments == ['--dataset=celeb', '--data_dir=/data',
                       '--workdir=/runs/faces', *several]
  commands.check([[module, *arguments]])


def test_the_defaults_train_on_either_kind_of_machine(tmp_path):
  (*_, module), arguments = _trained(tmp_path, (), SKYPILOT_NUM_NODES='1')
  commands.check([[module, *arguments]])
  kinds = [kind['accelerators'] for kind in _TASK['resources']['any_of']]
  assert any(kind.startswith('tpu') for kind in kinds)
  assert not all(kind.startswith('tpu') for kind in kinds)
  assert _TASK['file_mounts']['/runs']['mode'] == 'MOUNT_CACHED'
