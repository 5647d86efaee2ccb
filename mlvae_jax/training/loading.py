"""Loads the trained model of a workdir."""

from __future__ import annotations

import dataclasses
import os

import jax

from mlvae_jax.files import expand_path
from mlvae_jax.model.model import Model, Params
from mlvae_jax.model.networks import registry
from mlvae_jax.model.networks.mlp import MLP
from mlvae_jax.training.checkpoint import Checkpoints
from mlvae_jax.training.run_files import (
    CHECKPOINT_DIR,
    CONFIG_FILE,
    as_step,
    read_config,
)


def load(workdir: str | os.PathLike, step: int | str = 'latest', *,
         model: Model | None = None) -> tuple[Model, Params]:
  """Loads the trained model of a workdir.

  Args:
    workdir: folder with config.json and checkpoints, as
      `python -m experiments.train` leaves it. ~ and $VARIABLES are expanded.
    step: checkpoint to load: 'latest', 'best' by the ELBO of the validation
      images, or the number of a step that was kept, as an int or in digits.
    model: the model, which has to be given where its networks are neither the
      library's nor registered: config.json can only describe them.

  Returns:
    The model and its parameters.

  Raises:
    FileNotFoundError: where there is no run, or no checkpoint yet.
    ValueError: where the configuration cannot be read or does not fit the
      checkpoint, where no checkpoint is intact, or none is of that step.
  """
  workdir, step = expand_path(workdir), as_step(step)
  model = _read_model(workdir, model)
  folder = os.path.join(workdir, CHECKPOINT_DIR)
  opened = (
      Checkpoints(workdir, read_only=True) if os.path.isdir(folder) else None)
  if opened is None or opened.latest_step is None:
    raise FileNotFoundError(
        f'no checkpoint in {folder}; train first, or wait for one')
  # Shapes without initial values: `restore_params` overwrites the zeros.
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  params = opened.restore_params(
      jax.tree.map(lambda s: jax.numpy.zeros(s.shape, s.dtype), shapes), step)
  opened.close()
  return model, jax.tree.map(jax.numpy.asarray, params)


def _read_model(workdir: str, given: Model | None) -> Model:
  """The model of a workdir; if one is given, that, once it was compared."""
  path = os.path.join(workdir, CONFIG_FILE)
  config = read_config(workdir)
  try:
    config = dict(config['model'])
    if given is None:
      return Model.from_dict(config)
    if config['network']['name'] is None:  # Nothing to compare but the rest.
      config['network'] = registry.to_dict(MLP())
      found = dataclasses.replace(
          Model.from_dict(config), network=given.network)
    else:
      found = Model.from_dict(config)
  except (KeyError, TypeError, ValueError) as error:
    message = str(error) if isinstance(error, ValueError) else repr(error)
    raise ValueError(f'{path} does not describe a model: {message}') from error
  changed = [field.name for field in dataclasses.fields(Model)
             if getattr(found, field.name) != getattr(given, field.name)]
  if changed:
    raise ValueError(
        f'{path} describes a model that differs from the one given in '
        f'{", ".join(changed)}')
  return given


def find_step(workdir: str | os.PathLike, step: int | str) -> int | None:
  """Finds the number of the step that `load` would load.

  Args:
    workdir: folder of the run.
    step: 'latest', 'best', or a number.

  Returns:
    The number, or None where there is no such checkpoint.

  Raises:
    ValueError: on any other step.
  """
  step = as_step(step)
  opened = Checkpoints(workdir, read_only=True)
  named = {'latest': opened.latest_step, 'best': opened.best_step}
  found = named[step] if isinstance(step, str) else step
  opened.close()
  return found
