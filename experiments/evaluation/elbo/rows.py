"""The ELBO of each split: section "elbo"."""

from __future__ import annotations

from typing import Any

import jax

from experiments.evaluation.context import Context
from experiments.runs.build import make_feed
from mlvae_jax.training import evaluation

_SEED = 0


def elbo_rows(context: Context) -> dict[str, dict[str, Any]]:
  """The ELBO of each split with images, in batches like those of training.

  Whoever tunes on validation images does not see that of the test images.

  Args:
    context: what is evaluated.

  Returns:
    By split the numbers of `mlvae_jax.training.evaluation.evaluate_elbo`.
  """
  model, params = context.models['trained']
  splits = dict.fromkeys(('train', 'validation', context.split))
  return {'elbo': {
      name: evaluation.evaluate_elbo(
          model, params,
          make_feed(model, getattr(context.data, name), context.config,
                    shuffle=False, devices=jax.local_devices()),
          seed=_SEED, max_images=context.elbo_images)
      for name in splits if len(getattr(context.data, name))}}
