"""Files in the workdir of a run: their names, and config.json."""

from __future__ import annotations

import json
import operator
import os
from typing import Any

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
  if not os.path.isfile(path):
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


def expand_path(path: str | os.PathLike) -> str:
  """Expands ~ and $VARIABLES in a path."""
  return os.path.expandvars(os.path.expanduser(os.fspath(path)))


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


