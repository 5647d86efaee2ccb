"""The log of a run: metrics.jsonl and TensorBoard events."""

from __future__ import annotations

import json
import os
from typing import Any

from experiments import cli


class MetricsLog:
  """The files metrics.jsonl and TensorBoard events of a workdir.

  A resumed run drops the records after its checkpoint, so that the log equals
  that of an uninterrupted run.
  """

  def __init__(self, workdir: str, step: int, steps_per_epoch: int):
    import tensorboardX  # Slow to import.

    self._path = os.path.join(workdir, 'metrics.jsonl')
    kept = [line for line in read_metrics(workdir) if line['step'] <= step]
    # Rewriting also removes a torn last line, to which more would be appended.
    cli.write_atomically(
        self._path, ''.join(json.dumps(line) + '\n' for line in kept))
    self._file = open(self._path, 'a', encoding='utf-8')
    self._events = tensorboardX.SummaryWriter(
        workdir, purge_step=step + 1 if step else None)
    self._steps_per_epoch = steps_per_epoch

  def write(self, step: int, split: str, record: dict[str, Any]) -> None:
    """Writes one record."""
    line = {'step': step, 'epoch': step / self._steps_per_epoch,
            'split': split} | record
    self._file.write(json.dumps(line) + '\n')
    for name, value in record.items():
      if isinstance(value, dict):
        for key, part in value.items():
          self._events.add_scalar(f'{split}/{name}/{key}', part, step)
      else:
        self._events.add_scalar(f'{split}/{name}', value, step)

  def flush(self) -> None:
    """Hands everything written so far to the operating system."""
    self._file.flush()
    self._events.flush()

  def close(self) -> None:
    """Flushes and closes both."""
    self._file.close()
    self._events.close()


def read_metrics(workdir: str) -> list[dict[str, Any]]:
  """The records of metrics.jsonl, without lines that are torn or damaged."""
  records = []
  path = os.path.join(workdir, 'metrics.jsonl')
  if os.path.exists(path):
    with open(path, 'rb') as file:
      for line in file:
        try:
          record = json.loads(line)
        except ValueError:  # The run was killed while it wrote; or not UTF-8.
          continue
        if isinstance(record, dict) and isinstance(record.get('step'), int):
          records.append(record)
  return records
