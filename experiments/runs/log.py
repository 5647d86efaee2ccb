"""TensorBoard events of a run."""

from __future__ import annotations

import os
import time
from typing import Any

from mlvae_jax.files import named_errors
from mlvae_jax.training.history import flatten


class Events:
  """A callback that writes the records of a run as TensorBoard events.

  The file is written by the caller's thread: the thread of tensorboardX's
  SummaryWriter ends on a full disk, and the program would wait for it forever.
  """

  def __init__(self, workdir: str, step: int):
    """Opens a file of events.

    Args:
      workdir: folder of the run.
      step: step that the run resumes at; later events are hidden.
    """
    # Slow to import.
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.summary import scalar

    self._event, self._scalar = Event, scalar
    self._path = workdir
    self._file = EventsWriter(os.path.join(workdir, 'events'))
    if step:
      self._write(step + 1, session_log=SessionLog(status=SessionLog.START))

  def __call__(self, step: int, record: dict[str, Any]) -> None:
    """Writes one record."""
    for name, value in flatten(record).items():
      self._write(step, summary=self._scalar(name, value))

  def flush(self) -> None:
    """Hands everything written so far to the operating system."""
    with named_errors(self._path):
      self._file.flush()

  def close(self) -> None:
    """Flushes and closes the file."""
    with named_errors(self._path):
      self._file.close()

  def _write(self, step: int, **content: Any) -> None:
    with named_errors(self._path):
      self._file.write_event(
          self._event(wall_time=time.time(), step=step, **content))
