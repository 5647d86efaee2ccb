"""Checkpoints: Orbax behind one small module.

Orbax restores wrong numbers without a word where a byte of a file has
flipped. So each checkpoint carries a seal, the SHA-256 and the shapes of its
arrays; what does not match is damaged, and the newest good one is restored.
(Checkpoints of before there were seals are taken as they are.)
"""

from __future__ import annotations

import hashlib
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


_SEAL = 'seal'


class DamagedError(ValueError):
  """A checkpoint does not hold what was saved."""


class Checkpoints:
  """The checkpoints of a workdir, written in the background.

  The parameters and the rest of the state are separate items, so that
  `load` reads no optimiser moments.

  Attributes:
    damaged: {step: what is wrong} of checkpoints that a restore passed over.
  """

  def __init__(self, workdir: str | os.PathLike, *, max_to_keep: int = 2,
               read_only: bool = False):
    """Opens `workdir`/checkpoints; makes it unless `read_only`."""
    path = os.path.abspath(os.path.join(workdir, CHECKPOINT_DIR))
    self.damaged = {}
    self._path, self._read_only = path, read_only
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
    items = _items(jax.device_get(state))
    self._manager.save(int(state.step), args=ocp.args.Composite(
        **{name: ocp.args.StandardSave(item) for name, item in items.items()},
        **{_SEAL: ocp.args.JsonSave({
            name: {'arrays': _shapes(item), 'sha256': _digest(item)}
            for name, item in items.items()})}))

  def restore(self, like: TrainState) -> TrainState:
    """Restores the newest good checkpoint into the form of `like`.

    Newer ones that are damaged are named in `damaged`, and deleted: training
    will save these steps again.

    Args:
      like: a state of the same model, whose values do not matter.

    Returns:
      The state, as NumPy arrays.

    Raises:
      ValueError: when the checkpoint holds another model's arrays, or none
        is good.
    """
    like = jax.device_get(like)
    step, restored = self._restore(_items(like))
    for damaged in self.damaged if not self._read_only else ():
      self._manager.delete(damaged)
    return like._replace(step=like.step.dtype.type(step), **restored)

  def restore_params(self, like: Params) -> Params:
    """As `restore`, but the parameters alone; deletes nothing."""
    return self._restore({'params': jax.device_get(like)})[1]['params']

  def close(self) -> None:
    """Waits until what was saved is on disk."""
    self._manager.wait_until_finished()
    self._manager.close()

  def _restore(self, like: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Step and items of the newest checkpoint that is what was saved."""
    for step in sorted(self._manager.all_steps(), reverse=True):
      try:
        return step, self._restore_step(step, like)
      except DamagedError as error:
        self.damaged[step] = str(error)
    raise ValueError(
        f'no checkpoint in {self._path} is good ('
        + '; '.join(f'step {step}: {why}'
                    for step, why in self.damaged.items())
        + '); train again in another workdir')

  def _restore_step(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
    seal = self._read_seal(step)
    for name, item in like.items() if seal else ():
      _check_same_shapes(
          step, name, seal.get(name, {}).get('arrays'), _shapes(item))
    try:
      restored = self._manager.restore(step, args=ocp.args.Composite(**{
          name: ocp.args.StandardRestore(item)
          for name, item in like.items()}))
    except MemoryError:  # No fault of the checkpoint, which would be deleted.
      raise
    except Exception as error:  # Orbax raises whatever its readers raise.
      raise DamagedError(f'{type(error).__name__}: {error}'.split(
          '\n', maxsplit=1)[0]) from error
    for name, item in like.items():
      if seal is None:
        _check_same_shapes(step, name, _shapes(restored[name]), _shapes(item))
      elif _digest(restored[name]) != seal[name]['sha256']:
        raise DamagedError(f'the checksum of {name} is wrong')
    return dict(restored.items())

  def _read_seal(self, step: int) -> dict[str, Any] | None:
    if not os.path.isdir(os.path.join(self._path, str(step), _SEAL)):
      return None
    try:
      return self._manager.restore(step, args=ocp.args.Composite(
          **{_SEAL: ocp.args.JsonRestore()}))[_SEAL]
    except Exception as error:
      raise DamagedError('its seal is broken') from error


def _check_same_shapes(step: int, name: str, found: list[str] | None,
                       expected: list[str]) -> None:
  if found != expected:
    raise ValueError(
        f'the checkpoint of step {step} is of another model: its {name} are '
        f'{found}, expected {expected}')


def _shapes(tree: Any) -> list[str]:
  """Types and shapes of the arrays of a tree, in order."""
  return [f'{np.asarray(leaf).dtype}{list(np.shape(leaf))}'
          for leaf in jax.tree.leaves(tree)]


def _digest(tree: Any) -> str:
  """SHA-256 of the bytes of all arrays of a tree, in order."""
  digest = hashlib.sha256()
  for leaf in jax.tree.leaves(tree):
    digest.update(np.ascontiguousarray(leaf))
  return digest.hexdigest()


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
