"""Warnings about codes that are the same for all images."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from experiments.evaluation.wording import worded
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.model.model import Model

_LEAST = 0.01  # Nats that a code says about its image, over all dimensions.
_MIN_ROWS = 10  # Fewer may well be alike.


class Spread:
  """How much codes differ between images, next to their noise.

  Rows are added in parts; only sums are kept.
  """

  def __init__(self) -> None:
    self.num_rows = 0
    self._mean = self._squares = self._logvar = np.zeros(())

  def add(self, q: Normal) -> None:
    """Adds posteriors of single images, Normal of `[N, D]`."""
    mean, logvar = (np.asarray(part, np.float64) for part in q)
    total, part = self.num_rows + len(mean), np.mean(mean, axis=0)
    # Chan, Golub and LeVeque's update: differences of large sums would leave
    # nothing of deviations that are small next to the means.
    self._squares = (
        self._squares + np.sum((mean - part) ** 2, axis=0)
        + (part - self._mean) ** 2 * (self.num_rows * len(mean) / total))
    self._mean = self._mean + (part - self._mean) * (len(mean) / total)
    self._logvar = self._logvar + (np.mean(logvar, axis=0) - self._logvar) * (
        len(mean) / total)
    self.num_rows = total

  @property
  def nats(self) -> float:
    """What a Normal code with this spread and this noise says of its image.

    The sum over dimensions of log(1 + variance of the means / variance of the
    noise) / 2. The noise is a geometric mean, in which a few uncertain images
    count for little.
    """
    with np.errstate(over='ignore'):
      ratio = self._squares / self.num_rows * np.exp(-self._logvar)
    return float(0.5 * np.sum(np.log1p(ratio)))


def same_codes(model: Model, spreads: Mapping[str, Spread]) -> list[str]:
  """Warns of factors whose codes hardly differ between images.

  An encoder whose units are saturated gives every image the same code, while
  the ELBO keeps rising and the KL, which counts how far that code is from the
  prior, stays high.

  Args:
    model: model of the run.
    spreads: how much the codes of each factor differ.

  Returns:
    A sentence, or none if the codes of all factors say at least 0.01 nats, or
    too few images were seen.
  """
  # Not for NaN, which is another fault.
  same = [name for name, spread in spreads.items()
          if spread.num_rows >= _MIN_ROWS and spread.nats < _LEAST]
  if not same:
    return []
  if len(same) < len(spreads):
    return [worded(model, (
        f'all images have nearly the same code of {" and ".join(same)}, which '
        'therefore says next to nothing about them'))]
  saturates = getattr(model.network, 'activation', None) == 'tanh'
  return [worded(model, (
      'all images have nearly the same codes: the encoder ignores its input. '
      'Train again with ' + ('--activation=silu or ' if saturates else '')
      + 'a lower --learning_rate'))]
