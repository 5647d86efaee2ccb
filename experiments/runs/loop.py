"""The training loop of a run: chunks, the log, checkpoints, signals."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import os
import signal
import sys
import time
from typing import Any

import jax
import tqdm

from experiments.cli import StoppedError, UserError
from experiments.config import library
from experiments.config.settings import Config
from experiments.datasets.splits import Splits
from experiments.runs import processes
from experiments.runs.budget import budget_of
from experiments.runs.build import make_feed
from experiments.runs.interrupts import Interrupts
from experiments.runs.log import MetricsLog, read_metrics
from mlvae_jax.data.feed import Feed
from mlvae_jax.data.grouped import GroupedImages
from mlvae_jax.model.model import Model, Params
from mlvae_jax.training import checkpoint, evaluation, run_files
from mlvae_jax.training.checkpoint import Checkpoints
from mlvae_jax.training.loop import DivergedError, make_chunk
from mlvae_jax.training.loop import train as train_in_chunks
from mlvae_jax.training.step import TrainState, init_state


def train(workdir: str, config: Config, model: Model, data: Splits,
          *, max_to_keep: int = 2) -> None:
  """Trains until `config.steps`, from the newest checkpoint if there is one.

  On SIGINT or SIGTERM, in whichever process, the chunk is finished and saved.

  Args:
    workdir: with its config.json; only the first process touches it.
    config: of the run.
    model: of the run.
    data: to train and validate on.
    max_to_keep: how many of the newest checkpoints to keep.

  Raises:
    UserError: when training diverges, a checkpoint cannot be written, or
      another process is lost; the last checkpoint is kept.
    StoppedError: after a signal.
  """
  settings = library.make_train_config(config, model)
  feed = make_feed(model, data.train, config)
  validate = _validator(model, data.validation, config)
  with _Record(workdir, config, max_to_keep, feed) as record:
    first = record.resume(
        init_state(model, settings, feed.table_sizes))
    try:
      _run(record, config, first, feed, validate,
           make_chunk(model, settings, feed.num_groups))
    except DivergedError as error:
      raise UserError(
          f'{error}; try a smaller --learning_rate. {record.kept()}') from error
    except checkpoint.SaveError as error:
      raise UserError(
          f'{error}; free space in {workdir} and run the same command to '
          f'resume. {record.kept()}') from error
    except (ValueError, RuntimeError) as error:
      if jax.process_count() == 1:
        raise
      # JAX's error is unreliable once a peer is gone.
      raise UserError(
          f'lost another process, which may say why: {error}. Start all of '
          f'them again to resume. {record.kept()}') from error


def _run(record: _Record, config: Config, first: TrainState,
         feed: Feed, validate: Callable[[Params], dict[str, Any]] | None,
         chunk: Callable[..., Any]) -> None:
  """The loop itself."""
  step = int(first.step)
  bar = tqdm.tqdm(
      total=config.steps, initial=step, unit='step', desc='training',
      dynamic_ncols=True, disable=not processes.is_first())
  with bar, Interrupts('finishing and saving this chunk') as interrupts:
    previous = (step - 1) // config.chunk_steps * config.chunk_steps
    if (validate and _is_due(previous, step, config)
        and not processes.any_process(record.has_validation)):
      record.log(step, 'validation', validate(first.params))
    start = time.perf_counter()
    for state, metrics in train_in_chunks(
        first, feed, chunk, num_steps=config.steps,
        chunk_steps=config.chunk_steps):
      seconds = time.perf_counter() - start
      previous, step = step, int(state.step)
      values = evaluation.summarize(metrics.sums) | {
          'grad_norm': float(metrics.grad_norm.mean()),
          'images_per_second': float(metrics.num_images.sum()) / seconds}
      record.log(step, 'train', values)
      bar.update(step - previous)
      bar.set_postfix_str(
          f'ELBO {values["elbo"]:.1f}, {values["images_per_second"]:.0f} '
          'images/s', refresh=False)
      signum, elbo = processes.any_process(interrupts.signum), None
      if validate and _is_due(previous, step, config) and not signum:
        validation = validate(state.params)
        record.log(step, 'validation', validation)
        elbo = validation['elbo']
      if signum or _passes(previous, step, config.checkpoint_every, config):
        record.save(
            state, elbo, last=bool(signum) or step == config.steps)
      if signum:
        raise StoppedError(
            f'stopped by {signal.Signals(signum).name} at step {step} of '
            f'{config.steps}, which is saved; the same command resumes',
            signum)
      start = time.perf_counter()


class _Record:
  """What a run leaves in its workdir: the log, and checkpoints.

  Only the first process writes; the other processes only wait.

  Attributes:
    has_validation: whether the step that is resumed was validated.
  """

  def __init__(self, workdir: str, config: Config, max_to_keep: int,
               feed: Feed):
    self._workdir, self._config = workdir, config
    self._max_to_keep = max_to_keep
    self._steps_per_epoch = feed.stream.steps_per_epoch
    self._log, self._checkpoints = None, None
    self._has_failed = False
    self.has_validation = False

  def __enter__(self) -> _Record:
    return self

  def __exit__(self, kind: type | None, *_) -> None:
    if self._log is not None:
      self._log.close()
    if kind is None:
      processes.on_first(lambda: self._checkpoints.close())
    elif self._checkpoints is not None:
      with contextlib.suppress(Exception):  # Of two errors, show the first.
        self._checkpoints.close()

  def resume(self, fresh: TrainState) -> TrainState:
    """The state of the newest checkpoint; `fresh` without any."""
    state = processes.on_first(lambda: self._open(fresh)) or fresh
    if not processes.any_process(int(state.step)):
      return fresh
    return processes.from_first(state)

  def log(self, step: int, split: str, values: dict[str, Any]) -> None:
    """Writes a record of metrics.jsonl."""
    if self._log is not None:
      self._log.write(step, split, values)

  def save(self, state: TrainState, elbo: float | None, *, last: bool
           ) -> None:
    """Puts the log on disk, and starts to save a checkpoint.

    Once it is tried again: a clock that jumps makes Orbax give up.

    Args:
      state: to save.
      elbo: of the validation images, if it was measured.
      last: to wait until it is on disk.
    """
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
      if self._has_failed:  # Perhaps it was the one before that failed.
        raise
      tqdm.tqdm.write(f'{error}; trying once more', file=sys.stderr)
      self._has_failed = True
      self._checkpoints.save(state, elbo)
      if last:
        self._checkpoints.wait()

  def kept(self) -> str:
    """A sentence on what is left to resume from."""
    if self._checkpoints is None:
      return 'What process 0 has saved is kept.'
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


def _validator(model: Model, images: GroupedImages, config: Config
               ) -> Callable[[Params], dict[str, Any]] | None:
  """Function from params to the validation record; None without images."""
  if not len(images):
    return None
  feed = make_feed(model, images, config, shuffle=False)
  evaluate = evaluation.make_evaluate(model, feed.num_groups)
  limit = budget_of(model).validation_images
  return lambda params: evaluation.evaluate_elbo(
      model, params, feed, evaluate=evaluate, max_images=limit)


def _is_due(previous: int, step: int, config: Config) -> bool:
  """Whether to validate; what is saved is validated, to know the best."""
  return any(_passes(previous, step, every, config)
             for every in (config.eval_every, config.checkpoint_every))


def _passes(previous: int, step: int, every: int, config: Config
            ) -> bool:
  """Whether a multiple of `every`, or the end, lies in (previous, step]."""
  if step <= 0:
    return False
  return step // every > previous // every or step == config.steps
