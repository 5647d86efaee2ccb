"""Files in the workdir of a run: their names, and config.json."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import fcntl
import json
import operator
import os
import socket
from typing import Any

from mlvae_jax.files import expand_path

CONFIG_FILE = 'config.json'
CHECKPOINT_DIR = 'checkpoints'
DAMAGED_DIR = 'damaged'  # Folder that damaged checkpoints are moved to.


def read_config(workdir: str | os.PathLike) -> dict[str, Any]:
  """Reads the configuration that a run left in its workdir.

  Args:
    workdir: folder of the run; ~ and $VARIABLES are expanded.

  Returns:
    The JSON object.

  Raises:
    FileNotFoundError: where there is no config.json.
    ValueError: where it is not the JSON of a run.
  """
  workdir = expand_path(workdir)
  path = os.path.join(workdir, CONFIG_FILE)
  if not os.path.exists(path):
    raise FileNotFoundError(
        f'no {CONFIG_FILE} in {workdir}; give the workdir of a run')
  with open(path, encoding='utf-8') as file:
    try:
      config = json.load(file)
    except ValueError as error:  # Neither JSON nor UTF-8.
      raise ValueError(f'{path} is not JSON: {error}') from error
  if not isinstance(config, dict) or 'model' not in config:
    raise ValueError(f'{path} is not the configuration of a run')
  return config


@contextlib.contextmanager
def locked(workdir: str) -> Iterator[None]:
  """Holds the lock of a workdir, so that no other run writes there.

  The system releases it when the process ends in any way.

  Args:
    workdir: existing folder of the run.

  Yields:
    Nothing.

  Raises:
    ValueError: where another run holds it.
  """
  # 'a+', because 'w' would erase the name of the process that has the lock.
  with open(os.path.join(workdir, 'lock'), 'a+', encoding='utf-8') as file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      file.seek(0)
      raise ValueError(
          f'{workdir} is in use by {file.read().strip() or "another run"}; '
          'wait until it ends, or choose another') from None
    except OSError:
      pass  # Some network file systems have no locks.
    file.truncate(0)
    file.write(f'process {os.getpid()} on {socket.gethostname()}\n')
    file.flush()
    yield


def as_step(step: int | str) -> int | str:
  """Converts a step in digits to an int; 'latest' and 'best' are kept.

  Args:
    step: 'latest', 'best', or the number of a step, as an int or in digits.

  Returns:
    The step.

  Raises:
    ValueError: on anything else.
  """
  if step in ('latest', 'best'):
    return step
  # `index` accepts NumPy's integers, and rejects floats, which `int` would cut.
  try:
    return int(step) if isinstance(step, str) else operator.index(step)
  except (TypeError, ValueError):
    raise ValueError(
        f"expected a step of 'latest', 'best' or a number, got {step!r}"
    ) from None


