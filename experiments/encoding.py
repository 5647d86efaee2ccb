"""Codes of many images, for the evaluation: alone, or accumulated in sets.

All that the evaluation knows of posteriors goes through `Encoded`. Pixels,
the control beside every code, are here too.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np

from mlvae_jax.factors import Factor
from mlvae_jax.group_posteriors import combine
from mlvae_jax.model import Model, Params
from mlvae_jax.normal import Normal

_ENCODE_ROWS = 1024


class Encoded:
  """The posteriors of a model for the images of several splits.

  A split is encoded when it is first asked for.
  """

  def __init__(self, model: Model, params: Params,
               images: Mapping[str, np.ndarray],
               rows: Mapping[str, np.ndarray] | None = None):
    """Takes note of what is to be encoded.

    Args:
      model: static.
      params: its parameters.
      images: `[N, H, W, C]` uint8 by split.
      rows: by split `[M]`, sorted and distinct: all that will be asked for;
        None for all rows.
    """
    self.model = model
    self._params = params
    self._images = images
    self._rows = rows
    self._posteriors = {}

  @property
  def factors(self) -> tuple[Factor, ...]:
    """The factors of the model."""
    return self.model.factors

  def alone(self, split: str, factor: str, rows: np.ndarray) -> Normal:
    """Strategy 1: each image its own group.

    Args:
      split: of the rows.
      factor: name of the factor.
      rows: `[R]`.

    Returns:
      Normal of `[R, D]`.
    """
    if split not in self._posteriors:
      self._posteriors[split] = encode_rows(
          self.model, self._params, self._images[split],
          None if self._rows is None else self._rows[split])
    if self._rows is not None:
      rows = np.searchsorted(self._rows[split], rows)
    return self._posteriors[split][factor].take(rows)

  def together(self, split: str, factor: str, rows: np.ndarray,
               set_ids: np.ndarray, num_sets: int) -> Normal:
    """Strategy 2: the images of a set accumulate their evidence.

    Args:
      split: of the rows.
      factor: name of the factor.
      rows: `[R]`; a row may be in several sets.
      set_ids: `[R]` ints in `[0, num_sets)`.
      num_sets: S.

    Returns:
      Normal of `[S, D]` (paper eqs. 6-7); of a mixture its mean and variance.
    """
    return combine(self.model.group_posterior,
                   self.alone(split, factor, rows), set_ids, num_sets)


def encode_rows(model: Model, params: Params, images: np.ndarray,
                rows: np.ndarray | None = None) -> dict[str, Normal]:
  """Encodes many images, each alone.

  Args:
    model: static.
    params: its parameters.
    images: `[N, H, W, C]` uint8, N > 0; may be a file mapped into memory.
    rows: which of them, `[M]`, M > 0; None for all.

  Returns:
    Per factor a Normal of `[M, D]` NumPy arrays.
  """
  encode = jax.jit(model.encode)
  count = len(images if rows is None else rows)
  parts = []
  for start in range(0, count, _ENCODE_ROWS):
    which = slice(start, start + _ENCODE_ROWS)
    parts.append(jax.device_get(encode(
        params, images[which if rows is None else rows[which]])))
  return jax.tree.map(lambda *values: np.concatenate(values), *parts)


def mean_pixels(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
  """Mean image of each set of rows `[M, k]` as `pixels`, `[M, D]`."""
  total = np.zeros((len(rows), *images.shape[1:]), np.float32)
  for column in rows.T:
    total += images[column]
  return pixels(total / rows.shape[1])


def pixels(images: np.ndarray) -> np.ndarray:
  """Pixels `[N, D]` on [0, 1], averaged in blocks to at most 32x32.

  For recognition these are as good as larger images, and cost less.
  """
  num, height, width, channels = images.shape
  down, right = (
      max(f for f in range(1, size + 1) if size % f == 0
          and (f == 1 or size // f >= 32)) for size in (height, width))
  blocks = images.reshape(
      num, height // down, down, width // right, right, channels)
  small = blocks.mean(axis=(2, 4), dtype=np.float32) / np.float32(255)
  return small.reshape(num, -1)
