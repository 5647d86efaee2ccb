"""Runs that were not trained: a workdir with random parameters."""

import dataclasses

from experiments.config import library, presets
from experiments.runs.workdir import open_workdir
from mlvae_jax.training.checkpoint import Checkpoints
from mlvae_jax.training.step import init_state


def config(dataset='folder', **changes):
  """A small model; changes override."""
  return dataclasses.replace(presets.PRESETS[dataset], **{
      'factors': 'content:3:group,style:2', 'image_size': 8,
      'hidden_sizes': (8,), 'penalties': '', 'augment': ''} | changes)


def untrained(workdir, config, shape):
  """Writes a workdir of step 0 for observations of a shape; its model."""
  model = library.make_model(config, shape)
  with open_workdir(str(workdir), config, model, resume=False):
    checkpoints = Checkpoints(workdir)
    checkpoints.save(init_state(
        model, library.make_train_config(config, model), {
            f.grouping: 1 for f in model.grouped}))
    checkpoints.close()
  return model
