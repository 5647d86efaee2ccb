"""Trains a model on arrays, from Python."""

from __future__ import annotations

from collections.abc import Sequence
import contextlib
import dataclasses
import os
from typing import Any

import jax

from mlvae_jax.data.batches import make_feed
from mlvae_jax.data.content import check_fit
from mlvae_jax.data.feed import Feed, all_devices
from mlvae_jax.data.grouped import GroupedData
from mlvae_jax.data.plan import Settings
from mlvae_jax.devices import Device
from mlvae_jax.files import expand_path
from mlvae_jax.grouping.checks import check_count
from mlvae_jax.model.model import Model, Params
from mlvae_jax.objective.penalties.registry import misfit
from mlvae_jax.training.loop import DivergedError
from mlvae_jax.training.progress import Progress
from mlvae_jax.training.record import Callback, Record
from mlvae_jax.training.run import Schedule, make_validate, run
from mlvae_jax.training.step import TrainConfig, TrainState, init_state
from mlvae_jax.training.workdir import open_workdir


def fit(
    model: Model,
    data: GroupedData,
    *,
    steps: int = 2000,
    validation: GroupedData | None = None,
    config: TrainConfig | None = None,
    groups_per_batch: int = 32,
    max_group_size: int | None = 32,
    min_group_size: int = 1,
    visit: str = 'images',
    subsampling: str = 'paper',
    evidence: str = 'all',
    chunk_steps: int = 50,
    eval_every: int = 200,
    patience: int | None = None,
    workdir: str | os.PathLike | None = None,
    resume: bool = True,
    callbacks: Sequence[Callback] = (),
    progress: bool = False,
    devices: Sequence[Device] | None = None,
) -> tuple[Params, list[dict[str, Any]]]:
  """Trains a model by the group ELBO (paper eq. 5), on all devices.

  With a workdir, a run that was interrupted, or that is now given more steps,
  resumes from its newest checkpoint, and ends with the same parameters as one
  that was not. (With `config.decay_fraction` the learning rate depends on
  `steps`, so this holds only if the number of steps stays the same.) After
  Ctrl-C nothing before the last checkpoint is lost.
  `mlvae_jax.load(workdir, 'best')` or `load(workdir)` reads the parameters.

  Args:
    model: the model. One without grouped factors (a VAE) takes each row as a
      group of its own.
    data: observations to train on. Their values are checked first.
    steps: number of steps at which training ends, including those that the
      workdir has already.
    validation: observations whose ELBO is computed every `eval_every` steps.
    config: learning rate, seed, penalties and other settings of the
      optimisation; `num_steps` is set to `steps`.
    groups_per_batch: largest number of groups (of a VAE, rows) per batch.
    max_group_size: number of rows above which a group is cut into pieces.
    min_group_size: number of rows below which a group is not trained on.
    visit: unit that an epoch visits once, 'images' (rows) or 'groups'.
    subsampling: estimate for groups that are cut, 'paper' or 'unbiased'.
    evidence: rows from which a group's posterior is computed: 'all' of its
      rows in the batch, or a 'random' number of them.
    chunk_steps: number of steps per dispatch and per record. Validation and
      checkpoints come after the chunk that they are due in.
    eval_every: number of steps between validations, and between checkpoints.
    patience: number of validations in a row without a new highest ELBO after
      which training ends; None for never.
    workdir: folder for config.json, checkpoints and metrics.jsonl; None keeps
      everything in memory.
    resume: whether to resume a run that the workdir holds; with False, such a
      workdir is an error.
    callbacks: functions of (step, record), called for every new record of the
      history.
    progress: whether to show a progress bar, which needs tqdm.
    devices: devices to train on; None for all.

  Returns:
    The parameters: with validation data those with the highest validation
    ELBO, otherwise the last ones. And the history, a list of records as in
    `training.history`: 'step', 'epoch', 'split', averages in nats ('elbo',
    'elbo_per_image', 'log_lik', 'kl' by factor, 'penalties'), 'grad_norm',
    'images_per_second'.

  Raises:
    ValueError: on data or settings that do not fit the model, or a workdir
      that is in use or holds another run.
    DivergedError: where the ELBO or its gradient is not finite.
    SaveError: where a checkpoint cannot be written.
    ImportError: where tqdm, which the progress bar needs, is missing.
  """
  for name, given in (('data', data), ('validation', validation)):
    if given is not None and not isinstance(given, GroupedData):
      raise ValueError(
          f'expected {name} to be a GroupedData, as GroupedData.from_labels(x, '
          f'labels) makes it, got {type(given).__name__}')
  config = dataclasses.replace(
      config or TrainConfig(), num_steps=check_count(steps, 'steps'))
  schedule = Schedule(steps, chunk_steps, eval_every, eval_every, patience)
  batches = Settings(groups_per_batch, max_group_size, min_group_size, visit,
                     subsampling, evidence, seed=config.seed)
  named = {'data': data} | (
      {} if validation is None else {'validation': validation})
  _check(model, config, schedule, named)
  devices = devices or all_devices()
  feed = make_feed(model, data, batches, devices=devices)
  validate = None if validation is None else make_validate(
      model, make_feed(model, validation, batches, shuffle=False,
                       devices=devices))
  if workdir is not None:
    workdir = expand_path(workdir)
  with contextlib.ExitStack() as stack:
    if workdir is not None:
      stack.enter_context(open_workdir(
          workdir, model, named, config, batches, resume=resume))
    record = stack.enter_context(Record(workdir, callbacks=callbacks))
    state = _resume(record, model, config, feed)
    if progress:
      record.callbacks.append(
          stack.enter_context(Progress(steps, int(state.step))))
    try:
      state = run(model, config, state, feed, schedule, record,
                  validate=validate)
    except DivergedError as error:
      raise DivergedError(
          f'{error}; try a smaller learning_rate'
          + (f'. {record.kept()}' if workdir is not None else '')) from error
    params = None if validate is None else record.best_params(state.params)
    if params is None:
      params = jax.device_get(state.params)
  return jax.tree.map(jax.numpy.asarray, params), record.history


def _resume(record: Record, model: Model, config: TrainConfig, feed: Feed
            ) -> TrainState:
  """The state to start from."""
  return record.resume(init_state(model, config, feed.table_sizes))


def _check(model: Model, config: TrainConfig, schedule: Schedule,
           data: dict[str, GroupedData]) -> None:
  """Raises a ValueError where data or settings do not fit the model."""
  if jax.process_count() > 1:
    raise ValueError(
        'fit trains in a single process; to train in several, use '
        'python -m experiments.train')
  if schedule.patience is not None and 'validation' not in data:
    raise ValueError('patience needs validation data')
  for name, _ in config.kl_weights:
    model.factor(name)
  for penalty in config.penalties:
    if problem := misfit(
        penalty.kind, model, model.factor(penalty.factor)):
      raise ValueError(problem)
  config.augment.check(model.observation_shape)
  for name, part in data.items():
    check_fit(model, part, name)
