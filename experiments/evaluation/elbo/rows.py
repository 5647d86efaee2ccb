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

  The ELBO of the test images is hidden from tuning on validation images.

  Args:
    context: context of the evaluation.

  Returns:
    The numbers of `mlvae_jax.training.evaluation.evaluate_elbo` by split.
  """
  model, params = context.models['trained']
  splits = dict.fromkeys(('train', 'validation', context.split))
  # On local devices: of several processes, the first evaluates alone.
  devices = jax.local_devices()
  found = {}
  for name in splits:
    if len(data := getattr(context.data, name)):
      feed = make_feed(
          model, data, context.config, shuffle=False, devices=devices)
      found[name] = evaluation.evaluate_elbo(
          model, params, feed, seed=_SEED, max_images=context.elbo_images)
  return {'elbo': found}
