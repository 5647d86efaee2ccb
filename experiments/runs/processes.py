"""Several processes that train together, by JAX's own runtime.

One process per host (or per GPU); each reads its own rows of the data, the
first (number 0) alone writes to the workdir and prints. A problem that one of
them finds is broadcast to all, so that none waits for it.
"""

from __future__ import annotations

from collections.abc import Callable
import os
import sys
from typing import Any, TypeVar

import jax
from jax.experimental import multihost_utils
import numpy as np

from experiments import cli
from experiments.cli import UserError
from experiments.config.flags import Setting, define

T = TypeVar('T')

# JAX itself reads only the coordinator's, and those of a cluster.
_ENVIRONMENT = {
    'coordinator_address': 'JAX_COORDINATOR_ADDRESS',
    'num_processes': 'JAX_NUM_PROCESSES', 'process_id': 'JAX_PROCESS_ID'}
_MAX_MESSAGE = 500  # Bytes of an error that are sent to the other processes.


_SUBJECT = 'Processes'
_FLAGS = {
    'distributed': Setting(
        'Way to train as one of several processes: auto follows the other '
        'flags here or the environment (TPU pod, SLURM, Open MPI, GKE), '
        'explicit the flags alone, off trains alone.', _SUBJECT, default='auto',
        choices=('auto', 'off', 'explicit')),
    'coordinator_address': Setting(
        'Address of process 0, HOST:PORT; by default '
        '$JAX_COORDINATOR_ADDRESS.', _SUBJECT),
    'num_processes': Setting(
        'Number of processes; by default $JAX_NUM_PROCESSES.', _SUBJECT, int,
        lower=1),
    'process_id': Setting(
        'Number of this process, from 0; by default $JAX_PROCESS_ID.',
        _SUBJECT, int, lower=0),
    'heartbeat_seconds': Setting(
        'Seconds of silence after which a process is considered dead.',
        _SUBJECT, int, 10, lower=1),
}


def define_flags() -> None:
  """Defines the flags of entry points that may run as several processes."""
  for name, option in _FLAGS.items():
    define(name, option)


def start(values: dict[str, Any]) -> None:
  """Joins the other processes, where the flags or the environment name any.

  Args:
    values: values of the flags.

  Raises:
    UserError: when the others cannot be reached.
  """
  if values['distributed'] == 'off':
    return
  given = _settings(values)
  missing = [f'--{name} (or ${_ENVIRONMENT[name]})'
             for name, value in given.items() if value is None]
  if values['distributed'] == 'explicit' and missing:
    cli.bad_flag(f'--distributed=explicit needs {", ".join(missing)}')
  if not missing and given['process_id'] >= given['num_processes']:
    cli.bad_flag(f'--process_id={given["process_id"]} is not below '
                 f'--num_processes={given["num_processes"]}')
  # Its handler of SIGTERM would replace ours.
  jax.config.update('jax_enable_preemption_service', False)
  try:
    jax.distributed.initialize(
        **given, heartbeat_timeout_seconds=values['heartbeat_seconds'],
        cluster_detection_method=None if missing else 'deactivate')
  except ValueError as error:
    if len(missing) < len(given):
      cli.bad_flag(f'{error} Give {", ".join(missing)}, or --distributed=off')
    return  # Nothing names other processes, and no cluster was found.
  except RuntimeError as error:
    raise UserError(
        f'cannot reach the other processes: {error}; check '
        '--coordinator_address, or give --distributed=off') from error
  if not is_first():
    _mute()
  elif jax.process_count() > 1:
    print(f'{jax.process_count()} processes, {jax.device_count()} devices')


def is_first() -> bool:
  """Whether this is the process that writes and prints."""
  return jax.process_index() == 0


def on_first(work: Callable[[], T]) -> T | None:
  """Does something in the first process, while the others wait.

  Args:
    work: what to do.

  Returns:
    What `work` returned; None in the other processes.

  Raises:
    UserError: in the others, when it failed.
  """
  return together(work if is_first() else lambda: None)


def together(work: Callable[[], T]) -> T:
  """Does something in every process; if it fails in one, it does in all.

  Args:
    work: what to do, without collective operations.

  Returns:
    What `work` returned.

  Raises:
    UserError: when it failed in another process.
  """
  if jax.process_count() == 1:
    return work()
  problem, result = None, None
  try:
    result = work()
  except BaseException as error:  # Sent to the others, then raised again.
    problem = error
  said = '' if problem is None else 'see its output'
  if isinstance(problem, Exception):
    said = ' '.join(str(problem).split()) or type(problem).__name__
  message = np.frombuffer(
      said.encode()[:_MAX_MESSAGE].ljust(_MAX_MESSAGE), np.uint8)
  everyone = multihost_utils.process_allgather(message)
  if problem is not None:
    raise problem
  for process, other in enumerate(everyone):
    text = other.tobytes().decode(errors='replace').strip()
    if text:
      raise UserError(f'process {process} stopped: {text}')
  return result


def from_first(tree: T) -> T:
  """The first process's arrays, in all processes."""
  if jax.process_count() == 1:
    return tree
  return multihost_utils.broadcast_one_to_all(tree)


def any_process(value: int) -> int:
  """The largest of the processes' values."""
  if jax.process_count() == 1:
    return value
  return int(np.max(multihost_utils.process_allgather(np.int32(value))))


def part() -> None:
  """Ends what the processes do together; each may continue or exit alone."""
  if jax.process_count() > 1:
    jax.distributed.shutdown()


def _mute() -> None:
  """Prints nothing more: the first process does; errors are still shown."""
  nowhere = os.open(os.devnull, os.O_WRONLY)
  os.dup2(nowhere, sys.stdout.fileno())
  os.close(nowhere)


def _settings(values: dict[str, Any]) -> dict[str, Any]:
  """Values of the flags, or else of the environment."""
  settings = {}
  for name, variable in _ENVIRONMENT.items():
    value = values[name]
    if value is None and (text := os.environ.get(variable)):
      if name == 'coordinator_address':
        value = text
      elif text.isdigit():
        value = int(text)
      else:
        cli.bad_flag(f'expected ${variable} as an integer, got {text!r}')
    settings[name] = value
  return settings
