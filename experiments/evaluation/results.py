"""The file of an evaluation in the workdir of its run."""

from __future__ import annotations

import json
import os
from typing import Any

from experiments.cli import UserError


def evaluation_file(split: str = 'test') -> str:
  """The name of the file of an evaluation that scores on a split."""
  # One per split: tuning must not overwrite the numbers that are reported.
  return 'evaluation.json' if split == 'test' else f'evaluation_{split}.json'


def read_evaluation(workdir: str, split: str = 'test') -> dict[str, Any]:
  """The content of evaluation.json; {} if there is no such file.

  Args:
    workdir: folder of the run.
    split: split that the evaluation scored on.

  Returns:
    The JSON object.

  Raises:
    UserError: when the file is not one that `experiments.evaluate` wrote.
  """
  path = os.path.join(workdir, evaluation_file(split))
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
