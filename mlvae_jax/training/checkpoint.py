"""Checkpoints: Orbax behind one small module.

Where a byte of a file has flipped, Orbax restores wrong numbers without an
error. So each checkpoint carries a seal, the SHA-256 and the shapes of its
arrays. One that does not match is damaged, and the newest intact one is
restored. (Checkpoints without a seal are accepted unchecked.) The newest are
kept, and the one of the highest validation ELBO.

Of several processes only one writes and reads, since all have the same state.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import functools
import logging
import os
from typing import TYPE_CHECKING, Any

import jax

from mlvae_jax.files import expand_path
from mlvae_jax.model.model import Params
from mlvae_jax.training import checksums
from mlvae_jax.training.checksums import DamagedError
from mlvae_jax.training.run_files import (
    CHECKPOINT_DIR,
    DAMAGED_DIR,
    as_step,
)
from mlvae_jax.training.step import TrainState

if TYPE_CHECKING:
  # Slow to import: only where a checkpoint is written or read.
  import orbax.checkpoint as ocp

_SEAL = 'seal'
_METRIC = 'elbo'  # The metric that the best checkpoint is chosen by.


class SaveError(OSError):
  """A checkpoint could not be written; earlier ones are unchanged."""


class Checkpoints:
  """The checkpoints of a workdir, written in the background.

  Parameters are an item of their own, so that `load` reads nothing else.

  Attributes:
    damaged: {step: problem} of the checkpoints that a restore passed over.
  """

  def __init__(self, workdir: str | os.PathLike, *, max_to_keep: int = 2,
               read_only: bool = False):
    """Opens the checkpoints of a workdir.

    Args:
      workdir: folder of the run.
      max_to_keep: number of newest checkpoints to keep, besides the best.
      read_only: whether to change nothing, as a run may be writing there.
    """
    self._workdir = os.path.abspath(expand_path(workdir))
    self._path = os.path.join(self._workdir, CHECKPOINT_DIR)
    self.damaged = {}
    self._read_only, self._max_to_keep = read_only, max_to_keep
    if not read_only:
      os.makedirs(self._path, exist_ok=True)

  @functools.cached_property
  def _manager(self) -> ocp.CheckpointManager:
    """Orbax's manager, opened where it is first needed."""
    import orbax.checkpoint as ocp
    from orbax.checkpoint import checkpoint_managers

    # For Orbax each process is on its own: it need not wait for the others.
    process = jax.process_index()
    policies = [
        checkpoint_managers.LatestN(self._max_to_keep),
        checkpoint_managers.BestN(
            get_metric_fn=_metric, n=1, keep_checkpoints_without_metrics=False)]
    return ocp.CheckpointManager(
        self._path, options=ocp.CheckpointManagerOptions(
            preservation_policy=(
                checkpoint_managers.LatestN(None) if self._read_only
                else checkpoint_managers.AnyPreservationPolicy(policies)),
            best_fn=_metric, create=False,
            cleanup_tmp_directories=not self._read_only,
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=process, active_processes={process},
                barrier_sync_key_prefix=f'process{process}')))

  @property
  def latest_step(self) -> int | None:
    """Step of the newest checkpoint; None where there is none."""
    if '_manager' not in vars(self) and not self._has_any():
      return None
    return self._manager.latest_step()

  @property
  def best_step(self) -> int | None:
    """Step of the checkpoint of the highest validation ELBO, or None."""
    metrics = {step: self._manager.metrics(step)
               for step in self._manager.all_steps()}
    # Of equal ones the later.
    ranks = {(_metric(found), step): step
             for step, found in metrics.items() if found is not None}
    return ranks[max(ranks)] if ranks else None

  def save(self, state: TrainState, elbo: float | None = None) -> None:
    """Starts to save a state; returns once the state may change.

    Args:
      state: state to save.
      elbo: ELBO of the validation images, if it was measured.

    Raises:
      SaveError: where this checkpoint, or the one before, cannot be written.
    """
    import orbax.checkpoint as ocp

    # Copied to the host: the next step is donated the devices' buffers.
    items = _items(jax.device_get(state))
    with _writing(), _without_note_on_metrics():
      self._manager.save(int(state.step), args=ocp.args.Composite(
          **{name: ocp.args.StandardSave(item)
             for name, item in items.items()},
          **{_SEAL: ocp.args.JsonSave(checksums.make(items))}),
                         metrics=None if elbo is None else {_METRIC: elbo})

  def wait(self) -> None:
    """Waits until all that was saved is on disk; raises as `save` does."""
    if '_manager' in vars(self):
      with _writing():
        self._manager.wait_until_finished()

  def restore(self, like: TrainState) -> TrainState:
    """Restores the newest intact checkpoint into the form of `like`.

    Newer ones that are damaged are listed in `damaged` and moved aside, since
    training will save their steps again.

    Args:
      like: a state of the same model, whose values do not matter.

    Returns:
      The state, as NumPy arrays.

    Raises:
      ValueError: where the checkpoint is another model's, or (a DamagedError)
        where none is intact.
    """
    like = jax.device_get(like)
    step, restored = self._restore(_items(like))
    if self.damaged and not self._read_only:
      for damaged in self.damaged:
        self._set_aside(damaged)
      self._manager.reload()
    return like._replace(step=like.step.dtype.type(step), **restored)

  def restore_params(self, like: Params, step: int | str = 'latest'
                     ) -> Params:
    """As `restore`, but for the parameters alone; nothing is moved aside.

    Args:
      like: parameters of the same model, whose values do not matter.
      step: 'latest' for the newest that are intact, 'best' for those of the
        highest validation ELBO, or a number of a step, as an int or in digits.

    Returns:
      The parameters, as NumPy arrays.

    Raises:
      ValueError: as `restore` does, or where that step has no checkpoint.
    """
    like = {'params': jax.device_get(like)}
    if step == 'latest':
      return self._restore(like)[1]['params']
    number = self.best_step if step == 'best' else as_step(step)
    if not isinstance(number, int) or (
        number not in self._manager.all_steps()):
      raise ValueError(
          'no best checkpoint, since none has a validation ELBO'
          if step == 'best' else
          f'no checkpoint of step {step}; steps with a checkpoint: '
          + ', '.join(map(str, sorted(self._manager.all_steps()))))
    try:
      return self._restore_step(number, like)['params']
    except DamagedError as error:
      raise DamagedError(
          f'the checkpoint of step {number} is damaged: {error}') from error

  def close(self) -> None:
    """Waits as `wait` does, and closes the checkpoints."""
    if '_manager' in vars(self):
      with _writing():
        self._manager.close()

  def _has_any(self) -> bool:
    """Whether there may be a checkpoint; a quick look, without Orbax."""
    with contextlib.suppress(FileNotFoundError):
      return any(name.isdecimal() for name in os.listdir(self._path))
    return False

  def _set_aside(self, step: int) -> None:
    folder = os.path.join(self._workdir, DAMAGED_DIR)
    os.makedirs(folder, exist_ok=True)
    name = str(step)
    while os.path.exists(os.path.join(folder, name)):
      name += '-again'
    os.rename(os.path.join(self._path, str(step)), os.path.join(folder, name))

  def _restore(self, like: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Step and items of the newest checkpoint that is intact."""
    for step in sorted(self._manager.all_steps(), reverse=True):
      try:
        return step, self._restore_step(step, like)
      except DamagedError as error:
        self.damaged[step] = str(error)
    if not self.damaged:
      raise ValueError(f'no checkpoint in {self._path}; train first')
    raise DamagedError(
        f'no checkpoint in {self._path} is intact ('
        + '; '.join(f'step {step}: {why}'
                    for step, why in self.damaged.items())
        + '); restore that folder from a copy, or delete it to train from the '
        'start')

  def _restore_step(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
    import orbax.checkpoint as ocp

    seal = self._read_seal(step)
    if seal is not None:  # Another model's is the user's mistake, not damage.
      checksums.check_form(step, seal, like)
    try:
      restored = self._manager.restore(step, args=ocp.args.Composite(**{
          name: ocp.args.StandardRestore(item)
          for name, item in like.items()}))
    except MemoryError:  # The checkpoint is not damaged: do not set it aside.
      raise
    except Exception as error:  # Orbax raises whatever its readers raise.
      raise DamagedError(f'{type(error).__name__}: {error}'.split(
          '\n', maxsplit=1)[0]) from error
    restored = {name: restored[name] for name in like}
    if seal is None:
      checksums.check_form(step, checksums.make(restored), like)
    else:
      checksums.check_content(seal, restored)
    return restored

  def _read_seal(self, step: int) -> dict[str, Any] | None:
    import orbax.checkpoint as ocp

    if not os.path.isdir(os.path.join(self._path, str(step), _SEAL)):
      return None
    try:
      return self._manager.restore(step, args=ocp.args.Composite(
          **{_SEAL: ocp.args.JsonRestore()}))[_SEAL]
    except Exception as error:
      raise DamagedError('its checksums cannot be read') from error


@contextlib.contextmanager
def _writing() -> Iterator[None]:
  """Turns whatever Orbax's writers raise into a `SaveError`."""
  try:
    yield
  except MemoryError:
    raise
  except Exception as error:
    raise SaveError(
        f'cannot write a checkpoint: {type(error).__name__}: '
        + str(error).strip().split('\n', maxsplit=1)[0]) from error


@contextlib.contextmanager
def _without_note_on_metrics() -> Iterator[None]:
  """Keeps Orbax from warning of every checkpoint that was not validated."""
  logger = logging.getLogger('absl')

  def keep(record: logging.LogRecord) -> bool:
    return 'did not provide metrics' not in record.getMessage()

  logger.addFilter(keep)
  try:
    yield
  finally:
    logger.removeFilter(keep)


def _metric(metrics: dict[str, float]) -> float:
  return metrics[_METRIC]


def _items(state: TrainState) -> dict[str, Any]:
  """The items of a checkpoint: the parts of a state, except its step."""
  return {name: value for name, value in state._asdict().items()
          if name != 'step' and value is not None}
