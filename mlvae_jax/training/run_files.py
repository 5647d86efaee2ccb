"""What lies in the workdir of a run: the names of its files, config.json."""

from __future__ import annotations

import json
import operator
import os
from typing import Any

CONFIG_FILE = 'config.json'
CHECKPOINT_DIR = 'checkpoints'
DAMAGED_DIR = 'damaged'  # Where damaged checkpoints are set aside.


def read_config(workdir: str | os.PathLike) -> dict[str, Any]:
  """Reads the configuration that a run left in its workdir.

  Args:
    workdir: of the run.

  Returns:
    The JSON object.

  Raises:
    FileNotFoundError: when there is none.
    ValueError: when it is not a run's JSON.
  """
  workdir = expand_path(workdir)
  path = os.path.join(workdir, CONFIG_FILE)
  if not os.path.isfile(path):
    raise FileNotFoundError(
        f'no {CONFIG_FILE} in {workdir}; name the workdir of a run')
  with open(path, encoding='utf-8') as file:
    try:
      config = json.load(file)
    except ValueError as error:  # Neither JSON nor UTF-8.
      raise ValueError(f'{path} is not JSON: {error}') from error
  if not isinstance(config, dict) or 'model' not in config:
    raise ValueError(f'{path} is not the configuration of a run')
  return config


def expand_path(path: str | os.PathLike) -> str:
  """A path whose ~ and $VARIABLES are filled in."""
  return os.path.expandvars(os.path.expanduser(os.fspath(path)))


def as_step(step: int | str) -> int | str:
  """A step with its number as an int; 'latest' and 'best' stay.

  Args:
    step: 'latest', 'best', or a number, which may be a string of digits.

  Returns:
    The step.

  Raises:
    ValueError: on anything else.
  """
  if step in ('latest', 'best'):
    return step
  try:
    return int(step) if isinstance(step, str) else operator.index(step)
  except (TypeError, ValueError):
    raise ValueError(
        f"expected a step of 'latest', 'best' or a number, got {step!r}"
    ) from None


