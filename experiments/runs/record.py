"""The record of a run of several processes, with TensorBoard events."""

from __future__ import annotations

import os
import sys
from typing import Any

import tqdm

from experiments.cli import UserError
from experiments.runs import processes
from experiments.runs.log import Events
from mlvae_jax.training import record, run_files
from mlvae_jax.training.checksums import DamagedError
from mlvae_jax.training.step import TrainState


class Record(record.Record):
  """The history and the checkpoints of a run, and its TensorBoard events.

  Only the first process writes; the other processes only wait.
  """

  def __init__(self, workdir: str, num_steps: int, max_to_keep: int):
    super().__init__(workdir, max_to_keep=max_to_keep)
    self._num_steps = num_steps
    self._events = None  # It stays None in all processes but the first.

  def __exit__(self, kind: type | None, *rest) -> None:
    try:
      if self._events is not None:
        self._events.close()
    finally:
      super().__exit__(kind, *rest)

  def resume(self, fresh: TrainState) -> TrainState:
    """The state of the newest checkpoint, or `fresh` if there is none."""
    state = processes.on_first(lambda: self._open(fresh)) or fresh
    # Only the first process knows whether there is anything to send.
    if not processes.any_process(int(state.step)):
      return fresh
    return processes.from_first(state)

  def has_validation(self, step: int) -> bool:
    """Whether the history, which the first process has, has a validation."""
    return bool(processes.any_process(super().has_validation(step)))

  def log(self, record: dict[str, Any]) -> None:
    """Adds a record to metrics.jsonl and the events."""
    if processes.is_first():
      super().log(record)

  def save(self, state: TrainState, elbo: float | None, *, last: bool
           ) -> None:
    """As the library's, in the first process."""
    if self._events is not None:
      self._events.flush()
    save = super().save
    processes.on_first(lambda: save(state, elbo, last=last))

  def kept(self) -> str:
    """A sentence that says from which checkpoint the run can resume."""
    if not processes.is_first():
      return 'The checkpoints saved by process 0 are kept.'
    return super().kept()

  def _open(self, fresh: TrainState) -> TrainState:
    try:
      state = super().resume(fresh)
    except DamagedError as error:
      raise UserError(f'{error}, or choose another --workdir') from error
    except ValueError as error:
      raise UserError(
          f'{error}; choose another --workdir, or the settings of the run'
      ) from error
    step = int(state.step)
    for damaged, why in self.damaged.items():
      print(f'the checkpoint of step {damaged} is damaged ({why}); it is set '
            f'aside in {os.path.join(self._workdir, run_files.DAMAGED_DIR)}')
    if step > self._num_steps:
      print(f'{self._workdir} has {step} steps already; nothing to train')
    elif step:
      print(f'resuming {self._workdir} at step {step} of {self._num_steps}')
    self._events = Events(self._workdir, step)
    self.callbacks.append(self._events)
    return state

  def _close(self) -> None:
    # If the last checkpoint cannot be written, all processes end.
    processes.on_first(super()._close)

  def _warn(self, message: str) -> None:
    tqdm.tqdm.write(message, file=sys.stderr)
