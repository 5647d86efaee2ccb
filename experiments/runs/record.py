"""The record that a run leaves in its workdir: the log, and checkpoints."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any

import tqdm

from experiments.cli import UserError
from experiments.config.settings import Config
from experiments.runs import processes
from experiments.runs.log import MetricsLog, read_metrics
from mlvae_jax.data.feed import Feed
from mlvae_jax.training import checkpoint, run_files
from mlvae_jax.training.checkpoint import Checkpoints
from mlvae_jax.training.step import TrainState


class Record:
  """The log and the checkpoints of a run.

  Only the first process writes; the other processes only wait.

  Attributes:
    has_validation: whether the log has a validation of the step at which the
      run resumes.
  """

  def __init__(self, workdir: str, config: Config, max_to_keep: int,
               feed: Feed):
    self._workdir, self._config = workdir, config
    self._max_to_keep = max_to_keep
    self._steps_per_epoch = feed.stream.steps_per_epoch
    # These stay None in all processes but the first.
    self._log, self._checkpoints = None, None
    self._has_failed = False
    self.has_validation = False

  def __enter__(self) -> Record:
    return self

  def __exit__(self, kind: type | None, *_) -> None:
    if self._log is not None:
      self._log.close()
    if kind is None:
      # Closing waits for the last checkpoint; if that fails, all processes end.
      processes.on_first(lambda: self._checkpoints.close())
    elif self._checkpoints is not None:
      with contextlib.suppress(Exception):  # Of two errors, show the first.
        self._checkpoints.close()

  def resume(self, fresh: TrainState) -> TrainState:
    """The state of the newest checkpoint, or `fresh` if there is none."""
    state = processes.on_first(lambda: self._open(fresh)) or fresh
    # Only the first process knows whether there is anything to send.
    if not processes.any_process(int(state.step)):
      return fresh
    return processes.from_first(state)

  def log(self, step: int, split: str, values: dict[str, Any]) -> None:
    """Adds a record to metrics.jsonl."""
    if self._log is not None:
      self._log.write(step, split, values)

  def save(self, state: TrainState, elbo: float | None, *, last: bool
           ) -> None:
    """Flushes the log, and starts to save a checkpoint.

    After a failure it is tried once more: Orbax gives up when the clock jumps.

    Args:
      state: state to save.
      elbo: ELBO of the validation images, if it was measured.
      last: whether to wait until the checkpoint is on disk.
    """
    # First the log: a resumed run keeps the records up to its checkpoint.
    if self._log is not None:
      self._log.flush()
    processes.on_first(lambda: self._save(state, elbo, last))

  def _save(self, state: TrainState, elbo: float | None, last: bool) -> None:
    try:
      self._checkpoints.save(state, elbo)
      if last:
        self._checkpoints.wait()
      self._has_failed = False
    except checkpoint.SaveError as error:
      # Checkpoints are written in the background, so the one before this may
      # have failed. Two failures in a row are an error.
      if self._has_failed:
        raise
      tqdm.tqdm.write(f'{error}; trying once more', file=sys.stderr)
      self._has_failed = True
      self._checkpoints.save(state, elbo)
      if last:
        self._checkpoints.wait()

  def kept(self) -> str:
    """A sentence that says from which checkpoint the run can resume."""
    if self._checkpoints is None:
      return 'The checkpoints saved by process 0 are kept.'
    step = self._checkpoints.latest_step
    if step is None:
      return 'There was no checkpoint yet.'
    return f'The checkpoint of step {step} is kept.'

  def _open(self, fresh: TrainState) -> TrainState:
    self._checkpoints = Checkpoints(
        self._workdir, max_to_keep=self._max_to_keep)
    state = fresh
    if self._checkpoints.latest_step is not None:
      try:
        state = self._checkpoints.restore(fresh)
      except ValueError as error:
        raise UserError(
            f'{error}; choose another --workdir, or the settings of the run'
        ) from error
    step = int(state.step)
    for damaged, why in self._checkpoints.damaged.items():
      print(f'the checkpoint of step {damaged} is damaged ({why}); it is set '
            f'aside in {os.path.join(self._workdir, run_files.DAMAGED_DIR)}')
    if step > self._config.steps:
      print(f'{self._workdir} has {step} steps already; nothing to train')
    elif step:
      print(f'resuming {self._workdir} at step {step} of '
            f'{self._config.steps}')
    self._log = MetricsLog(self._workdir, step, self._steps_per_epoch)
    self.has_validation = any(
        line['step'] == step and line['split'] == 'validation'
        for line in read_metrics(self._workdir))
    return state
