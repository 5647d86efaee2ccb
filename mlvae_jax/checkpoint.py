"""Checkpoints: Orbax behind one small module."""

from __future__ import annotations

import json
import os
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from mlvae_jax.model import Model, Params
from mlvae_jax.training import TrainState

CONFIG_FILE = 'config.json'
CHECKPOINT_DIR = 'checkpoints'


class Checkpoints:
  """The checkpoints of a workdir, written in the background.

  The parameters and the rest of the state are separate items, so that
  `load` reads no optimiser moments.
  """

  def __init__(self, workdir: str | os.PathLike, *, max_to_keep: int = 2,
               read_only: bool = False):
    """Opens `workdir`/checkpoints; makes it unless `read_only`."""
    path = os.path.abspath(os.path.join(workdir, CHECKPOINT_DIR))
    # A reader leaves alone what a run is just writing.
    self._manager = ocp.CheckpointManager(
        path, options=ocp.CheckpointManagerOptions(
            max_to_keep=None if read_only else max_to_keep,
            create=not read_only, cleanup_tmp_directories=not read_only))

  @property
  def latest_step(self) -> int | None:
    """Step of the newest checkpoint, None without any."""
    return self._manager.latest_step()

  def save(self, state: TrainState) -> None:
    """Starts to save a state; returns once the state may change."""
    state = jax.device_get(state)
    self._manager.save(int(state.step), args=ocp.args.Composite(**{
        name: ocp.args.StandardSave(item)
        for name, item in _items(state).items()}))

  def restore(self, like: TrainState) -> TrainState:
    """Restores the newest checkpoint into the form of `like`.

    Args:
      like: a state of the same model, whose values do not matter.

    Returns:
      The state, as NumPy arrays.

    Raises:
      ValueError: when the checkpoint holds another model's arrays.
    """
    like = jax.device_get(like)
    step = self.latest_step
    restored = self._restore(**_items(like))
    return like._replace(step=like.step.dtype.type(step), **restored)

  def restore_params(self, like: Params) -> Params:
    """As `restore`, but the parameters alone."""
    return self._restore(params=jax.device_get(like))['params']

  def close(self) -> None:
    """Waits until what was saved is on disk."""
    self._manager.wait_until_finished()
    self._manager.close()

  def _restore(self, **like: Any) -> dict[str, Any]:
    restored = self._manager.restore(self.latest_step, args=ocp.args.Composite(
        **{name: ocp.args.StandardRestore(item)
           for name, item in like.items()}))
    # Orbax compares the names of the arrays, but not their shapes.
    for name, item in like.items():
      expected, found = (
          [np.shape(leaf) for leaf in jax.tree.leaves(tree)]
          for tree in (item, restored[name]))
      if expected != found:
        raise ValueError(
            f'the checkpoint of step {self.latest_step} is of another model: '
            f'{name} have shapes {found}, expected {expected}')
    return restored


def _items(state: TrainState) -> dict[str, Any]:
  """What a checkpoint holds of a state, apart from its step."""
  return {name: value for name, value in state._asdict().items()
          if name != 'step' and value is not None}


def load(workdir: str | os.PathLike) -> tuple[Model, Params]:
  """Loads the trained model of a workdir.

  Args:
    workdir: as `python -m experiments.train` leaves it: config.json and
      checkpoints.

  Returns:
    The model, and its newest parameters.

  Raises:
    FileNotFoundError: when there is no run, or no checkpoint yet.
    ValueError: when its configuration cannot be read, or is not that of the
      checkpoint.
  """
  config = read_config(workdir)
  try:
    model = Model.from_dict(config['model'])
  except (KeyError, TypeError, ValueError) as error:
    raise ValueError(
        f'{os.path.join(workdir, CONFIG_FILE)} describes no model: {error!r}'
    ) from error
  folder = os.path.join(workdir, CHECKPOINT_DIR)
  opened = (
      Checkpoints(workdir, read_only=True) if os.path.isdir(folder) else None)
  if opened is None or opened.latest_step is None:
    raise FileNotFoundError(
        f'no checkpoint in {folder}; train first, or wait for one')
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  params = opened.restore_params(
      jax.tree.map(lambda s: jax.numpy.zeros(s.shape, s.dtype), shapes))
  opened.close()
  return model, jax.tree.map(jax.numpy.asarray, params)


def read_config(workdir: str | os.PathLike) -> dict[str, Any]:
  """Reads the configuration that a run left in its workdir.

  Args:
    workdir: of the run.

  Returns:
    The JSON object.

  Raises:
    FileNotFoundError: when there is none.
    ValueError: when it is not a run's JSON.
  """
  path = os.path.join(workdir, CONFIG_FILE)
  if not os.path.isfile(path):
    raise FileNotFoundError(
        f'no {CONFIG_FILE} in {workdir}; name the workdir of a run')
  with open(path, encoding='utf-8') as file:
    try:
      config = json.load(file)
    except ValueError as error:  # Neither JSON nor UTF-8.
      raise ValueError(f'{path} is not JSON: {error}') from error
  if not isinstance(config, dict) or 'model' not in config:
    raise ValueError(f'{path} is not the configuration of a run')
  return config
