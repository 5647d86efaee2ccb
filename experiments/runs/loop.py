"""The training loop of a run: chunks, the log, checkpoints, signals."""

from __future__ import annotations

from collections.abc import Callable
import signal
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
from experiments.runs.record import Record
from mlvae_jax.data.feed import Feed
from mlvae_jax.data.grouped import GroupedData
from mlvae_jax.model.model import Model, Params
from mlvae_jax.training import checkpoint, evaluation
from mlvae_jax.training.loop import DivergedError, make_chunk
from mlvae_jax.training.loop import train as train_in_chunks
from mlvae_jax.training.step import TrainState, init_state


def train(workdir: str, config: Config, model: Model, data: Splits,
          *, max_to_keep: int = 2) -> None:
  """Trains until `config.steps`, from the newest checkpoint if there is one.

  On SIGINT or SIGTERM, in whichever process, the chunk is finished and saved.

  Args:
    workdir: folder that holds config.json; only the first process touches it.
    config: configuration of the run.
    model: model of the run.
    data: splits to train and validate on.
    max_to_keep: number of newest checkpoints to keep.

  Raises:
    UserError: when training diverges, a checkpoint cannot be written, or
      another process is lost; the last checkpoint is kept.
    StoppedError: after a signal.
  """
  settings = library.make_train_config(config, model)
  feed = make_feed(model, data.train, config)
  validate = _validator(model, data.validation, config)
  with Record(workdir, config, max_to_keep, feed) as record:
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
      # Collectives fail with errors of many kinds once a process is gone.
      raise UserError(
          f'lost another process, which may say why: {error}. Start all of '
          f'them again to resume. {record.kept()}') from error


def _run(record: Record, config: Config, first: TrainState,
         feed: Feed, validate: Callable[[Params], dict[str, Any]] | None,
         chunk: Callable[..., Any]) -> None:
  """Runs the chunks, and between them logs, validates, saves and stops."""
  step = int(first.step)
  bar = tqdm.tqdm(
      total=config.steps, initial=step, unit='step', desc='training',
      dynamic_ncols=True, disable=not processes.is_first())
  with bar, Interrupts('finishing and saving this chunk') as interrupts:
    # A run that a signal stopped was saved without validating: make up for it,
    # so that the log equals that of an uninterrupted run.
    previous = (step - 1) // config.chunk_steps * config.chunk_steps
    if (validate and _is_due(previous, step, config)
        and not processes.any_process(record.has_validation)):
      record.log(step, 'validation', validate(first.params))
    # The state is donated to the next chunk: whatever needs it, validation
    # or a checkpoint, has to take it before the loop continues.
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
      # All processes have to agree, or one would stop while others wait for it
      # in the next step.
      signum, elbo = processes.any_process(interrupts.signum), None
      # After a signal there may be only seconds left: save without validating.
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
      start = time.perf_counter()  # Validation does not count as training.


def _validator(model: Model, images: GroupedData, config: Config
               ) -> Callable[[Params], dict[str, Any]] | None:
  """A function from params to the validation record; None without images."""
  if not len(images):
    return None
  feed = make_feed(model, images, config, shuffle=False)
  evaluate = evaluation.make_evaluate(model, feed.num_groups)
  limit = budget_of(model).validation_images
  return lambda params: evaluation.evaluate_elbo(
      model, params, feed, evaluate=evaluate, max_images=limit)


def _is_due(previous: int, step: int, config: Config) -> bool:
  """Whether to validate; every checkpoint is validated, to find the best."""
  return any(_passes(previous, step, every, config)
             for every in (config.eval_every, config.checkpoint_every))


def _passes(previous: int, step: int, every: int, config: Config
            ) -> bool:
  """Whether a multiple of `every`, or the end, lies in (previous, step]."""
  if step <= 0:
    return False
  return step // every > previous // every or step == config.steps
