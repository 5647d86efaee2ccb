"""Codes of many images, for the evaluation: alone, or accumulated in sets.

All that the evaluation knows of posteriors goes through `Encoded`. A model
without an encoder (SVI) infers them by optimisation instead. Pixels,
the control next to every code, are here too.
"""

from __future__ import annotations

from collections.abc import Mapping
import functools
from typing import Any

import jax
import numpy as np

import mlvae_jax
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.model.factors import Factor
from mlvae_jax.model.model import Model, Params

_ENCODE_ROWS = 1024
_INFER_ROWS = 2048


class Encoded:
  """The posteriors of a model for the images of several splits.

  A split is encoded when it is first asked for.
  """

  def __init__(self, model: Model, params: Params,
               images: Mapping[str, np.ndarray],
               rows: Mapping[str, np.ndarray] | None = None,
               cache: dict[tuple, Any] | None = None):
    """Takes note of what is to be encoded.

    Args:
      model: static.
      params: its parameters.
      images: `[N, H, W, C]` uint8 by split.
      rows: rows by split, `[M]`, sorted and distinct: all that will be asked
        for; None for all rows.
      cache: posteriors of this model that were inferred before, and will be.
    """
    self.model = model
    self._params = params
    self._images = images
    self._rows = rows
    self._cache = {} if cache is None else cache

  @property
  def factors(self) -> tuple[Factor, ...]:
    """The factors of the model."""
    return self.model.factors

  def alone(self, split: str, factor: str, rows: np.ndarray) -> Normal:
    """Strategy 1: each image its own group.

    Args:
      split: split of the rows.
      factor: name of the factor.
      rows: `[R]`.

    Returns:
      Normal of `[R, D]`.
    """
    return self._encoded(split)[factor].take(self._places(split, rows))

  def all_alone(self, split: str, rows: np.ndarray) -> dict[str, Normal]:
    """As `alone`, for every factor, by name."""
    places = self._places(split, rows)
    return {name: q.take(places) for name, q in self._encoded(split).items()}

  def _encoded(self, split: str) -> dict[str, Normal]:
    """The posteriors of all rows that will be asked for."""
    rows = None if self._rows is None else self._rows[split]
    asked = (split, None if rows is None else rows.tobytes())
    if asked not in self._cache:
      self._cache[asked] = encode_rows(
          self.model, self._params, self._images[split], rows)
    return self._cache[asked]

  def _places(self, split: str, rows: np.ndarray) -> np.ndarray:
    """Where the posteriors of rows are among those."""
    if self._rows is None:
      return rows
    return np.searchsorted(self._rows[split], rows)

  def together(self, split: str, factor: str, rows: np.ndarray,
               set_ids: np.ndarray, num_sets: int) -> Normal:
    """Strategy 2: the images of a set accumulate their evidence.

    Args:
      split: split of the rows.
      factor: name of the factor.
      rows: `[R]`; a row may be in several sets.
      set_ids: `[R]` ints in `[0, num_sets)`.
      num_sets: S.

    Returns:
      Normal of `[S, D]` (paper eqs. 6-7); of a mixture its mean and variance.
    """
    if (self.model.has_encoder
        or self.model.factor(factor).grouping is None
        or np.array_equal(set_ids, np.arange(num_sets))):  # Each its own set.
      return self.model.group_posterior.combine(
          self.alone(split, factor, rows), set_ids, num_sets)
    # Probes of means and of samples ask for the same sets.
    asked = (split, factor, rows.tobytes(), set_ids.tobytes())
    if asked not in self._cache:
      self._cache[asked] = _infer_sets(
          self.model, self._params, factor, self._images[split], rows,
          set_ids, num_sets)
    return self._cache[asked]


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
  if not model.has_encoder:
    encode = functools.partial(mlvae_jax.posteriors, model)
  count = len(images if rows is None else rows)
  parts = []
  for start in range(0, count, _ENCODE_ROWS):
    which = slice(start, start + _ENCODE_ROWS)
    parts.append(jax.device_get(encode(
        params, images[which if rows is None else rows[which]])))
  return jax.tree.map(lambda *values: np.concatenate(values), *parts)


def _infer_sets(model: Model, params: Params, factor: str, images: np.ndarray,
                rows: np.ndarray, set_ids: np.ndarray, num_sets: int
                ) -> Normal:
  """The posteriors of sets, by optimisation, some whole sets at a time."""
  order = np.argsort(set_ids, kind='stable')
  end = np.cumsum(np.bincount(set_ids, minlength=num_sets))
  parts, first = [], 0
  while first < num_sets:
    start = end[first - 1] if first else 0
    last = max(first + 1, int(np.searchsorted(
        end, start + _INFER_ROWS, side='right')))
    chosen = order[start:end[last - 1]]
    # One shape, to compile once; what fills it up is one more set.
    size = max(_INFER_ROWS, len(chosen))
    ids = np.full(size, last - first, np.int32)
    ids[:len(chosen)] = set_ids[chosen] - first
    q = mlvae_jax.encode_group(
        model, params, images[rows[np.resize(chosen, size)]], ids,
        _INFER_ROWS + 1, factor=factor, mask=np.arange(size) < len(chosen))
    parts.append(jax.device_get(q.take(slice(0, last - first))))
    first = last
  return Normal(*map(np.concatenate, zip(*parts)))


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
