"""The file that an evaluation leaves in its workdir."""

from __future__ import annotations

import json
import os
from typing import Any

from experiments.cli import UserError


def evaluation_file(split: str = 'test') -> str:
  """The file of an evaluation that is scored on a split."""
  return 'evaluation.json' if split == 'test' else f'evaluation_{split}.json'


def read_evaluation(workdir: str) -> dict[str, Any]:
  """The contents of evaluation.json; {} where there is none.

  Args:
    workdir: folder of the run.

  Returns:
    The JSON object.

  Raises:
    UserError: when the file is not what `experiments.evaluate` writes.
  """
  path = os.path.join(workdir, evaluation_file())
  if not os.path.exists(path):
    return {}
  with open(path, encoding='utf-8') as file:
    try:
      result = json.load(file)
    except ValueError as error:
      raise UserError(
          f'{path} is not JSON: {error}; evaluate the run again') from error
  if not isinstance(result, dict):
    raise UserError(f'{path} is not an evaluation; evaluate the run again')
  return result
