"""The history of a run: a list of records, kept in metrics.jsonl as well.

A record is a dict of plain JSON: 'step', 'epoch', 'split' ('train', for the
steps since the previous record, or 'validation'), and the averages that
`evaluation.summarize` gives; records of training also have 'grad_norm' and
'images_per_second'.
"""

from __future__ import annotations

import json
import os
from typing import Any

from mlvae_jax.files import named_errors, write_atomically

_METRICS_FILE = 'metrics.jsonl'


class History:
  """The records of a run, in memory, and in a workdir if there is one.

  A resumed run drops the records after its checkpoint, so that its history
  equals that of an uninterrupted run.

  Attributes:
    records: all records so far.
  """

  def __init__(self, workdir: str | None = None, step: int = 0):
    """Reads the records of a workdir.

    Args:
      workdir: folder of the run; None keeps records in memory only.
      step: step that the run resumes at.
    """
    self.records, self._file = [], None
    if workdir is None:
      return
    self.records = [record for record in read_metrics(workdir)
                    if record['step'] <= step]
    path = os.path.join(workdir, _METRICS_FILE)
    # Rewriting also removes a torn last line, to which more would be appended.
    write_atomically(path, ''.join(map(_line, self.records)))
    self._file = open(path, 'a', encoding='utf-8')

  def add(self, record: dict[str, Any]) -> None:
    """Adds one record."""
    self.records.append(record)
    if self._file is not None:
      with named_errors(self._file.name):
        self._file.write(_line(record))

  def flush(self) -> None:
    """Hands everything written so far to the operating system."""
    if self._file is not None:
      with named_errors(self._file.name):
        self._file.flush()

  def close(self) -> None:
    """Flushes and closes the file."""
    if self._file is not None:
      with named_errors(self._file.name):
        self._file.close()


def read_metrics(workdir: str) -> list[dict[str, Any]]:
  """The records of metrics.jsonl, without lines that are torn or damaged."""
  records = []
  path = os.path.join(workdir, _METRICS_FILE)
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


def flatten(record: dict[str, Any]) -> dict[str, float]:
  """The numbers of a record under flat names, as trackers want them.

  Args:
    record: a record of a history.

  Returns:
    {'train/elbo': ..., 'train/kl/content': ...}: split, name and, of a dict,
    key. Step and epoch are left out.
  """
  flat = {}
  for name, value in record.items():
    if name in ('step', 'epoch', 'split'):
      continue
    parts = value if isinstance(value, dict) else {'': value}
    for key, part in parts.items():
      flat['/'.join(filter(None, (record['split'], name, key)))] = part
  return flat


def _line(record: dict[str, Any]) -> str:
  return json.dumps(record) + '\n'
