"""The file of an evaluation in the workdir of its run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import contextlib
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


@contextlib.contextmanager
def as_written(workdir: str, evaluation: Mapping[str, Any]) -> Iterator[None]:
  """Reports numbers that cannot be shown as what is wrong with their file.

  An older version may have written it, or somebody have changed it.

  Args:
    workdir: folder of the run.
    evaluation: content of its evaluation.json, which is shown in the context.

  Yields:
    Nothing.

  Raises:
    UserError: where that fails for the kind or the lack of some value.
  """
  try:
    yield
  except (AttributeError, LookupError, TypeError, ValueError) as error:
    if not evaluation:
      raise
    raise UserError(
        f'{os.path.join(workdir, evaluation_file())} is not what '
        f'experiments.evaluate writes ({type(error).__name__}: {error}); '
        'evaluate the run again') from error
