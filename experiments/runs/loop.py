"""The training loop of a run: the library's, with signals and processes."""

from __future__ import annotations

import signal

import jax

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
from mlvae_jax.model.model import Model
from mlvae_jax.training import checkpoint
from mlvae_jax.training.loop import DivergedError
from mlvae_jax.training.progress import Progress
from mlvae_jax.training.run import Schedule, Validate, make_validate, run
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
  feed = make_feed(model, data.train, config)
  validate = None
  if len(data.validation):
    validate = make_validate(
        model, make_feed(model, data.validation, config, shuffle=False),
        budget_of(model).validation_images)
  with Record(workdir, config.steps, max_to_keep) as record:
    first = record.resume(init_state(
        model, library.make_train_config(config, model), feed.table_sizes))
    try:
      _run(record, config, model, first, feed, validate)
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


def _run(record: Record, config: Config, model: Model, first: TrainState,
         feed: Feed, validate: Validate | None) -> None:
  """Runs the library's loop, with a bar, until its end or a signal."""
  signum = 0

  def stops() -> bool:
    # All processes have to agree, or one would stop while others wait for it
    # in the next step.
    nonlocal signum
    signum = processes.any_process(interrupts.signum)
    return bool(signum)

  bar = Progress(config.steps, int(first.step), is_shown=processes.is_first())
  record.callbacks.append(bar)
  with bar, Interrupts('finishing and saving this chunk') as interrupts:
    last = run(
        model, library.make_train_config(config, model), first, feed,
        Schedule(config.steps, config.chunk_steps, config.eval_every,
                 config.checkpoint_every),
        record, validate=validate, stops=stops)
  if signum:
    raise StoppedError(
        f'stopped by {signal.Signals(signum).name} at step {int(last.step)} '
        f'of {config.steps}, which is saved; the same command resumes', signum)
