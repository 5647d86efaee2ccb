"""The record that a run leaves: its history, and checkpoints in a workdir."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import contextlib
import copy
import math
from typing import Any
import warnings

import jax

from mlvae_jax.model.model import Params
from mlvae_jax.training.checkpoint import Checkpoints, SaveError
from mlvae_jax.training.history import History
from mlvae_jax.training.step import TrainState

Callback = Callable[[int, dict[str, Any]], Any]


class Record:
  """The history and the checkpoints of a run; a context that closes them.

  Without a workdir both are in memory, and only the best parameters are kept.

  Attributes:
    callbacks: functions of (step, record), called for each new record.
  """

  def __init__(self, workdir: str | None = None, *, max_to_keep: int = 2,
               callbacks: Sequence[Callback] = ()):
    """Opens nothing yet.

    Args:
      workdir: existing folder of the run, or None.
      max_to_keep: number of newest checkpoints to keep, besides the best.
      callbacks: functions of (step, record).
    """
    self.callbacks = list(callbacks)
    self._workdir, self._max_to_keep = workdir, max_to_keep
    self._history, self._checkpoints = History(), None
    self._best = -math.inf, None
    self._has_failed = False

  def __enter__(self) -> Record:
    return self

  def __exit__(self, kind: type | None, *_) -> None:
    self._history.close()
    if kind is None:
      self._close()  # It waits for the last checkpoint.
    elif self._checkpoints is not None:
      with contextlib.suppress(Exception):  # Of two errors, show the first.
        self._checkpoints.close()

  @property
  def history(self) -> list[dict[str, Any]]:
    """All records so far, also those of the run before it was resumed."""
    return self._history.records

  @property
  def damaged(self) -> dict[int, str]:
    """{step: problem} of checkpoints that `resume` found damaged."""
    return {} if self._checkpoints is None else self._checkpoints.damaged

  def resume(self, fresh: TrainState) -> TrainState:
    """Opens the workdir.

    Args:
      fresh: state before the first step.

    Returns:
      The state of the newest intact checkpoint; `fresh` if there is none.

    Raises:
      ValueError: where no checkpoint is intact, or they are another model's.
    """
    state = fresh
    if self._workdir is not None:
      self._checkpoints = Checkpoints(
          self._workdir, max_to_keep=self._max_to_keep)
      if self._checkpoints.latest_step is not None:
        state = self._checkpoints.restore(fresh)
      self._history = History(self._workdir, int(state.step))
    return state

  def has_validation(self, step: int) -> bool:
    """Whether the history has a validation of that step."""
    return any(record['step'] == step and record['split'] == 'validation'
               for record in self.history)

  def log(self, record: dict[str, Any]) -> None:
    """Adds a record to the history, and calls the callbacks with a copy."""
    self._history.add(record)
    for callback in self.callbacks:
      callback(record['step'], copy.deepcopy(record))

  def save(self, state: TrainState, elbo: float | None, *, last: bool
           ) -> None:
    """Flushes the history, and starts to save a checkpoint.

    After a failure it is tried once more: Orbax gives up when the clock jumps.

    Args:
      state: state to save.
      elbo: ELBO of the validation data, if it was measured.
      last: whether to wait until the checkpoint is on disk.

    Raises:
      SaveError: where this checkpoint, or the one before, cannot be written.
    """
    # First the history: a resumed run keeps the records up to its checkpoint.
    self._history.flush()
    if self._checkpoints is None:
      # Of equal ones the later, as `Checkpoints` has it.
      if elbo is not None and elbo >= self._best[0]:
        self._best = elbo, jax.device_get(state.params)
      return
    try:
      _write(self._checkpoints, state, elbo, last)
      self._has_failed = False
    except SaveError as error:
      # Checkpoints are written in the background, so the one before this may
      # have failed. Two failures in a row are an error.
      if self._has_failed:
        raise
      self._warn(f'{error}; trying once more')
      self._has_failed = True
      _write(self._checkpoints, state, elbo, last)

  def best_params(self, like: Params) -> Params | None:
    """The saved parameters of the highest validation ELBO.

    Args:
      like: parameters of the same model, whose values do not matter.

    Returns:
      The parameters, as NumPy arrays; None where none were validated.

    Raises:
      DamagedError: where their checkpoint is damaged.
    """
    if self._checkpoints is None:
      return self._best[1]
    self._checkpoints.wait()
    if self._checkpoints.best_step is None:
      return None
    return self._checkpoints.restore_params(like, 'best')

  def kept(self) -> str:
    """A sentence that says from which checkpoint the run can resume."""
    step = None if self._checkpoints is None else self._checkpoints.latest_step
    if step is None:
      return 'There was no checkpoint yet.'
    return f'The checkpoint of step {step} is kept.'

  def _close(self) -> None:
    if self._checkpoints is not None:
      self._checkpoints.close()

  def _warn(self, message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=2)


def _write(checkpoints: Checkpoints, state: TrainState, elbo: float | None,
           last: bool) -> None:
  """Starts to save a state; waits until it is on disk if it is the last."""
  checkpoints.save(state, elbo)
  if last:
    checkpoints.wait()
