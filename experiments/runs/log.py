"""TensorBoard events of a run."""

from __future__ import annotations

import functools
import os
import time
from typing import TYPE_CHECKING, Any

from mlvae_jax.files import named_errors
from mlvae_jax.training.history import flatten

if TYPE_CHECKING:
  # Slow to import: only where a record is written.
  from tensorboardX.event_file_writer import EventsWriter


class Events:
  """A callback that writes the records of a run as TensorBoard events.

  The file is written by the caller's thread: the thread of tensorboardX's
  SummaryWriter ends on a full disk, and the program would wait for it forever.
  """

  def __init__(self, workdir: str, step: int):
    """Opens nothing yet.

    Args:
      workdir: folder of the run.
      step: step that the run resumes at; later events are hidden.
    """
    self._path, self._first = workdir, step

  @functools.cached_property
  def _file(self) -> EventsWriter:
    """The file, opened where the first record is written."""
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    file = EventsWriter(os.path.join(self._path, 'events'))
    if self._first:
      file.write_event(Event(
          wall_time=time.time(), step=self._first + 1,
          session_log=SessionLog(status=SessionLog.START)))
    return file

  def __call__(self, step: int, record: dict[str, Any]) -> None:
    """Writes one record."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.summary import scalar

    with named_errors(self._path):
      for name, value in flatten(record).items():
        self._file.write_event(Event(
            wall_time=time.time(), step=step, summary=scalar(name, value)))

  def flush(self) -> None:
    """Hands everything written so far to the operating system."""
    if '_file' in vars(self):
      with named_errors(self._path):
        self._file.flush()

  def close(self) -> None:
    """Flushes and closes the file."""
    if '_file' in vars(self):
      with named_errors(self._path):
        self._file.close()
