"""Warnings about codes that are the same for all images."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from experiments.evaluation.wording import worded
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.model.model import Model

# A tenth of the noise: a dimension that varies by no more says 0.005 nats.
_LEAST = 0.1


def same_codes(model: Model, codes: Mapping[str, Normal]) -> list[str]:
  """Warns of factors whose codes hardly differ between images.

  An encoder whose units are saturated gives every image the same code, while
  the ELBO keeps rising and the KL, which counts how far that code is from the
  prior, stays high.

  Args:
    model: model of the run.
    codes: posteriors of single images, Normal of `[N, D]` per factor.

  Returns:
    A sentence, or none if all factors have a dimension whose mean varies over
    the images by more than a tenth of the posteriors' deviation.
  """
  same = [name for name, q in codes.items()
          if len(q.mean) > 1 and not _varies(q)]
  if not same:
    return []
  if len(same) < len(codes):
    return [worded(model, (
        f'all images have nearly the same code of {" and ".join(same)}, which '
        'therefore says nothing about them'))]
  return [worded(model, (
      'all images have nearly the same codes: the encoder ignores its input. '
      'Train again with --activation=silu, with a lower --learning_rate, or '
      'on photographs with --network=conv'))]


def _varies(q: Normal) -> bool:
  """Whether any dimension's mean varies, compared with its noise."""
  mean, logvar = (np.asarray(part, np.float64) for part in q)
  return bool(np.any(mean.std(0) > _LEAST * np.sqrt(np.exp(logvar).mean(0))))
