"""A whole run: chunks of steps, and between them validation and checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import math
import time
from typing import Any

from mlvae_jax.data.feed import Feed
from mlvae_jax.grouping.checks import check_count
from mlvae_jax.model.model import Model, Params
from mlvae_jax.training import evaluation, loop
from mlvae_jax.training.record import Record
from mlvae_jax.training.step import TrainConfig, TrainState

Validate = Callable[[Params], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Schedule:
  """When a run validates, saves and ends. All are checked after a chunk.

  Attributes:
    num_steps: step at which the run ends.
    chunk_steps: number of steps per dispatch.
    eval_every: number of steps between validations.
    checkpoint_every: number of steps between checkpoints, which are validated
      too, so that the best of them is known.
    patience: number of validations in a row without a new highest ELBO after
      which the run ends early; None for never.
  """

  num_steps: int
  chunk_steps: int
  eval_every: int
  checkpoint_every: int
  patience: int | None = None

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if field.name != 'patience' or value is not None:
        check_count(
            value, 'steps' if field.name == 'num_steps' else field.name)

  def validates(self, previous: int, step: int) -> bool:
    """Whether to validate after a chunk of the steps (previous, step]."""
    return any(self._passes(previous, step, every)
               for every in (self.eval_every, self.checkpoint_every))

  def saves(self, previous: int, step: int) -> bool:
    """Whether to save a checkpoint after a chunk of (previous, step]."""
    return self._passes(previous, step, self.checkpoint_every)

  def ends_early(self, history: Sequence[dict[str, Any]]) -> bool:
    """Whether the validations of a history exhaust the patience."""
    if self.patience is None:
      return False
    elbos = [_finite(record['elbo']) for record in history
             if record['split'] == 'validation']
    if not elbos:
      return False
    return len(elbos) - 1 - elbos.index(max(elbos)) >= self.patience

  def _passes(self, previous: int, step: int, every: int) -> bool:
    """Whether a multiple of `every`, or the end, lies in (previous, step]."""
    if step <= 0:
      return False
    return step // every > previous // every or step == self.num_steps


def make_validate(model: Model, feed: Feed, max_images: int | None = None
                  ) -> Validate:
  """Makes a function from parameters to the averages of a validation.

  Args:
    model: the model; static.
    feed: feed of the validation data, which does not shuffle.
    max_images: number of rows after which to stop, approximately; None for
      all.

  Returns:
    The function.
  """
  return lambda params: evaluation.evaluate_elbo(
      model, params, feed, max_images=max_images)


def run(model: Model, config: TrainConfig, state: TrainState, feed: Feed,
        schedule: Schedule, record: Record, *,
        validate: Validate | None = None,
        stops: Callable[[], bool] = lambda: False) -> TrainState:
  """Trains until the schedule's last step; logs, validates and saves.

  Args:
    model: the model; static.
    config: settings of the optimisation; static.
    state: state to start from, as `record.resume` gives it.
    feed: feed of training data.
    schedule: when to validate, save and end.
    record: where the records and checkpoints go.
    validate: function that `make_validate` built, if there are data for it.
    stops: function that is called once per chunk, whether to save and stop.

  Returns:
    The last state.

  Raises:
    DivergedError: where a step's ELBO or gradient is not finite.
    SaveError: where a checkpoint cannot be written.
  """
  step = int(state.step)

  def log(split: str, values: dict[str, Any]) -> dict[str, Any]:
    record.log({'step': step, 'epoch': step / feed.stream.steps_per_epoch,
                'split': split} | values)
    return values

  # A run that was stopped is saved without validating: make up for it, so that
  # the history equals that of an uninterrupted run.
  previous = (step - 1) // schedule.chunk_steps * schedule.chunk_steps
  if (validate and schedule.validates(previous, step)
      and not record.has_validation(step)):
    log('validation', validate(state.params))
  if schedule.ends_early(record.history):
    return state
  # The state is donated to the next chunk: whatever needs it, validation or a
  # checkpoint, has to take it before the loop continues.
  chunks = loop.train(
      state, feed,
      loop.make_chunk(model, config, feed.num_groups, feed.devices),
      num_steps=schedule.num_steps, chunk_steps=schedule.chunk_steps)
  start = time.perf_counter()
  with contextlib.closing(chunks):
    for state, metrics in chunks:
      seconds = time.perf_counter() - start
      previous, step = step, int(state.step)
      log('train', evaluation.summarize(metrics.sums) | {
          'grad_norm': float(metrics.grad_norm.mean()),
          'images_per_second': float(metrics.num_images.sum()) / seconds})
      ends, elbo = stops(), None
      # Who stops it may leave only seconds: save without validating.
      if validate and schedule.validates(previous, step) and not ends:
        elbo = log('validation', validate(state.params))['elbo']
        ends = schedule.ends_early(record.history)
      if ends or schedule.saves(previous, step):
        is_finite = elbo is not None and math.isfinite(elbo)
        record.save(state, elbo if is_finite else None,
                    last=ends or step == schedule.num_steps)
      if ends:
        break
      start = time.perf_counter()  # Validation does not count as training.
  return state


def _finite(elbo: float) -> float:
  """An ELBO, -inf if it is not finite: it is not the best in any case."""
  return elbo if math.isfinite(elbo) else -math.inf
