"""Several processes that train together, by JAX's own runtime.

There is one process per host (or per GPU). Each reads its own rows of the
data; only the first (number 0) writes to the workdir and prints. A problem
that one process finds is broadcast to all, so that none waits for it in vain.
"""

from __future__ import annotations

from collections.abc import Callable
import os
import sys
from typing import Any, TypeVar

from absl.flags import FLAGS, FlagValues
import jax
from jax.experimental import multihost_utils
import numpy as np

from experiments import cli
from experiments.cli import UserError
from experiments.config.flags import Setting, define

T = TypeVar('T')

# Of these, JAX itself reads only the first; for the others it knows the
# variables that clusters set.
_ENVIRONMENT = {
    'coordinator_address': 'JAX_COORDINATOR_ADDRESS',
    'num_processes': 'JAX_NUM_PROCESSES', 'process_id': 'JAX_PROCESS_ID'}
# Bytes of an error that are sent to the other processes: all messages of a
# collective operation have the same size.
_MAX_MESSAGE = 500


_SUBJECT = 'Processes'
_FLAGS = {
    'distributed': Setting(
        'Method by which several processes find each other: auto uses the '
        'next three flags or the environment (TPU pod, SLURM, Open MPI, GKE), '
        'explicit uses these flags only, off trains in this process alone.',
        _SUBJECT, default='auto', choices=('auto', 'off', 'explicit')),
    'coordinator_address': Setting(
        'Address of process 0 as HOST:PORT; $JAX_COORDINATOR_ADDRESS by '
        'default.', _SUBJECT),
    'num_processes': Setting(
        'Number of processes; $JAX_NUM_PROCESSES by default.', _SUBJECT, int,
        lower=1),
    'process_id': Setting(
        'Number of this process, starting at 0; $JAX_PROCESS_ID by default.',
        _SUBJECT, int, lower=0),
    'heartbeat_seconds': Setting(
        'Number of seconds of silence after which a process is considered '
        'dead.', _SUBJECT, int, 10, lower=1),
}


def define_flags(flag_values: FlagValues = FLAGS) -> None:
  """Defines the flags of entry points that may run as several processes."""
  for name, option in _FLAGS.items():
    define(name, option, flag_values)


def start(values: dict[str, Any]) -> None:
  """Joins the other processes, if the flags or the environment name any.

  Args:
    values: values of the flags by name.

  Raises:
    UserError: when the other processes cannot be reached.
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
  # The service's handler of SIGTERM would replace ours.
  jax.config.update('jax_enable_preemption_service', False)
  try:
    # With all three values given, a cluster's environment must not override
    # them.
    jax.distributed.initialize(
        **given, heartbeat_timeout_seconds=values['heartbeat_seconds'],
        cluster_detection_method=None if missing else 'deactivate')
  except ValueError as error:
    if len(missing) < len(given):
      cli.bad_flag(f'{error} Give {", ".join(missing)}, or --distributed=off')
    return  # Neither flags nor a cluster name other processes.
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
  """Calls a function in the first process, while the others wait.

  Args:
    work: function to call.

  Returns:
    The result of `work`; None in the other processes.

  Raises:
    UserError: in the other processes, when `work` failed.
  """
  return together(work if is_first() else lambda: None)


def together(work: Callable[[], T]) -> T:
  """Calls a function in every process; a failure in one is raised in all.

  Args:
    work: function to call; contains no collective operations, which would
      mix with the one that exchanges the errors.

  Returns:
    The result of `work`.

  Raises:
    UserError: when `work` failed in another process.
  """
  if jax.process_count() == 1:
    return work()
  problem, result = None, None
  try:
    result = work()
  except BaseException as error:  # Sent to the others, then raised again.
    problem = error
  # An exit has printed its reason already.
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
  """The arrays of the first process, in all processes."""
  if jax.process_count() == 1:
    return tree
  return multihost_utils.broadcast_one_to_all(tree)


def any_process(value: int) -> int:
  """The largest of the processes' values."""
  if jax.process_count() == 1:
    return value
  return int(np.max(multihost_utils.process_allgather(np.int32(value))))


def part() -> None:
  """Ends the common work; each process may continue or exit on its own."""
  if jax.process_count() > 1:
    jax.distributed.shutdown()


def _mute() -> None:
  """Silences the output, which the first process prints, but not errors."""
  # By descriptor, which also silences what libraries in C++ print.
  nowhere = os.open(os.devnull, os.O_WRONLY)
  os.dup2(nowhere, sys.stdout.fileno())
  os.close(nowhere)


def _settings(values: dict[str, Any]) -> dict[str, Any]:
  """The values of the flags, or of the environment where none is given."""
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
