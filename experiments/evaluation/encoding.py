"""Codes of many images for the evaluation, alone or accumulated in sets.

The evaluation gets all posteriors from `Encoded`. A model without an encoder
(SVI) infers them by optimisation. A factor that is given others has the
posterior at their means or, where its code is sampled, at samples of theirs.
Observations as vectors, the control of every code, are here as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import functools
from typing import Any
import zlib

import jax
import jax.numpy as jnp
import numpy as np

import mlvae_jax
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.grouping.posterior import GroupPosterior
from mlvae_jax.inference import free
from mlvae_jax.model.factors import Factor
from mlvae_jax.model.model import Model, Params

# Rows that are processed at a time: they bound the memory and, because the last
# ones are padded, all numbers of rows run the same compiled program.
_ENCODE_ROWS = 512
_COMBINE_ROWS = 4096
_INFER_ROWS = 512
# From what the posteriors of single images say of the set on. On MNIST the ELBO
# is then within 0.6 nats an image of what 1,000 steps reach.
_REFINE = {'num_steps': 50, 'learning_rate': 0.05}
_SEED = 0


class Encoded:
  """The posteriors of a model for the images of several splits.

  A split is encoded at the first request.
  """

  def __init__(self, model: Model, params: Params,
               images: Mapping[str, np.ndarray],
               rows: Mapping[str, np.ndarray] | None = None,
               cache: dict[tuple, Any] | None = None):
    """Notes what to encode.

    Args:
      model: model that encodes.
      params: parameters of the model.
      images: images by split, `[N, H, W, C]` uint8.
      rows: rows by split, `[M]`, sorted and distinct, including all that will
        be requested; None for all rows.
      cache: posteriors of this model that were inferred before; new ones are
        added to it.
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

  def alone(self, split: str, factor: str, rows: np.ndarray, *,
            drawn: bool = False) -> Normal:
    """Strategy 1: each image is its own group.

    Args:
      split: split of the rows.
      factor: name of the factor.
      rows: rows `[R]` of the images.
      drawn: whether a factor that is given others sees samples of their codes,
        as a sample of its own should, instead of their means.

    Returns:
      Normal of `[R, D]`.
    """
    q = self.message(split, factor, rows, drawn)
    return Normal(*map(np.asarray, self.model.alone(
        self.model.factor(factor), q)))

  def all_alone(self, split: str, rows: np.ndarray) -> dict[str, Normal]:
    """Like `alone`, for every factor, by name."""
    return {f.name: self.alone(split, f.name, rows) for f in self.factors}

  def messages(self, split: str, rows: np.ndarray) -> dict[str, Normal]:
    """Like `message`, for every factor, by name."""
    return {f.name: self.message(split, f.name, rows) for f in self.factors}

  def message(self, split: str, factor: str, rows: np.ndarray,
              drawn: bool = False) -> Normal:
    """What images contribute to groups: the Normals that are combined."""
    drawn = drawn and bool(self.model.factor(factor).given)
    return self._encoded(split, drawn)[factor].take(self._places(split, rows))

  def _encoded(self, split: str, drawn: bool = False) -> dict[str, Normal]:
    """The posteriors of all rows that will be requested, by factor."""
    # Sections that ask for the same rows share what was inferred.
    rows = None if self._rows is None else self._rows[split]
    asked = (split, None if rows is None else rows.tobytes(), drawn)
    if asked not in self._cache:
      # Noise of its own: in that of the examples it learned from, a probe could
      # recognise labels.
      key = jax.random.fold_in(
          jax.random.key(_SEED), zlib.crc32(split.encode())) if drawn else None
      self._cache[asked] = encode_rows(
          self.model, self._params, self._images[split], rows, key=key)
    return self._cache[asked]

  def _places(self, split: str, rows: np.ndarray) -> np.ndarray:
    """The positions of rows among those that `_encoded` gives."""
    if self._rows is None:
      return rows
    return np.searchsorted(self._rows[split], rows)

  def together(self, split: str, factor: str, rows: np.ndarray,
               set_ids: np.ndarray, num_sets: int, *, drawn: bool = False
               ) -> Normal:
    """Strategy 2: the images of a set accumulate their evidence.

    Args:
      split: split of the rows.
      factor: name of the factor.
      rows: rows `[R]` of the images; a row may be in several sets.
      set_ids: set of each row, `[R]` ints in `[0, num_sets)`.
      num_sets: number of sets, S.
      drawn: as in `alone`.

    Returns:
      Normal of `[S, D]` (paper eqs. 6-7); for a mixture, the Normal with its
      mean and variance.
    """
    is_grouped = self.model.factor(factor).grouping is not None
    is_alone = np.array_equal(set_ids, np.arange(num_sets))
    if is_alone and not is_grouped:  # No rule of groups applies.
      return self.alone(split, factor, rows, drawn=drawn)
    if self.model.has_encoder or not is_grouped or is_alone:
      return _combine_sets(
          self.model, self.message(split, factor, rows, drawn), set_ids,
          num_sets)
    # A set takes an optimisation of its own. Probes of means and of samples ask
    # for the same sets.
    asked = (split, factor, rows.tobytes(), set_ids.tobytes(), num_sets)
    if asked not in self._cache:
      self._cache[asked] = _infer_sets(
          self.model, self._params, factor, self._images[split], rows,
          self.messages(split, rows), set_ids, num_sets)
    return self._cache[asked]


def encode_rows(model: Model, params: Params, images: np.ndarray,
                rows: np.ndarray | None = None, *,
                key: jax.Array | None = None) -> dict[str, Normal]:
  """Encodes many images, each alone.

  Args:
    model: model that encodes.
    params: parameters of the model.
    images: images `[N, H, W, C]` uint8, N > 0; may be a file mapped into
      memory.
    rows: rows of the images to encode, `[M]`, M > 0; None for all.
    key: random key of the samples that factors see of the codes they are given;
      None for means.

  Returns:
    A Normal of `[M, D]` NumPy arrays per factor.
  """
  encode, limit = ((_encode, _ENCODE_ROWS) if model.has_encoder else
                   (mlvae_jax.posteriors, _INFER_ROWS))
  rows = np.arange(len(images)) if rows is None else rows
  # A power of two, so that splits of few rows share programs as well.
  size = min(limit, 1 << (len(rows) - 1).bit_length())
  parts = []
  for start in range(0, len(rows), size):
    which = rows[start:start + size]
    x = np.asarray(images[np.resize(which, size)])
    found = jax.device_get(
        encode(model, params, x) if key is None or not model.has_encoder else
        _encode_drawn(model, params, x, jax.random.fold_in(key, start)))
    parts.append({name: q.take(slice(len(which)))
                  for name, q in found.items()})
  return jax.tree.map(lambda *values: np.concatenate(values), *parts)


@functools.partial(jax.jit, static_argnums=0)
def _encode(model: Model, params: Params, images: jax.Array
            ) -> dict[str, Normal]:
  return model.encode(params, images)


@functools.partial(jax.jit, static_argnums=0)
def _encode_drawn(model: Model, params: Params, images: jax.Array,
                  key: jax.Array) -> dict[str, Normal]:
  """Like `Model.encode`, with samples of the codes that a factor is given."""
  encoded, found, codes = model.encode_rows(
      params, model.prepare(images)), {}, {}
  keys = jax.random.split(key, len(model.factors))
  for factor, own_key in zip(model.factors, keys):
    found[factor.name] = model.posterior(params, factor, encoded, codes)
    codes[factor.name] = model.alone(
        factor, found[factor.name]).sample(own_key)
  return found


def _infer_sets(model: Model, params: Params, factor: str, images: np.ndarray,
                rows: np.ndarray, alone: dict[str, Normal],
                set_ids: np.ndarray, num_sets: int) -> Normal:
  """The posteriors of sets by optimisation, which starts from those of rows."""
  return _in_chunks(
      lambda chosen, ids, num, mask: _refine(
          model, params, factor, images[rows[chosen]],
          {name: q.take(chosen) for name, q in alone.items()}, ids, num, mask),
      set_ids, num_sets, _INFER_ROWS)


@functools.partial(jax.jit, static_argnums=(0, 2, 6))
def _refine(model: Model, params: Params, factor: str, images: jax.Array,
            alone: dict[str, Normal], ids: jax.Array, num_sets: int,
            mask: jax.Array) -> Normal:
  """The posteriors of sets, from those of their rows `[R, D]` on."""
  own = jnp.arange(len(ids))
  groups = {f.name: (own, len(own)) for f in model.grouped}
  groups[factor] = ids, num_sets
  start = alone | {factor: model.group_posterior.combine(
      alone[factor], ids, num_sets, mask)}
  return free.infer(
      model, params, model.prepare(images),
      *({name: group[i] for name, group in groups.items()} for i in range(2)),
      mask=mask, start=start, **_REFINE)[factor]


def _combine_sets(model: Model, q: Normal, set_ids: np.ndarray, num_sets: int
                  ) -> Normal:
  """The posteriors of sets from the Normals of their rows."""
  return _in_chunks(
      lambda chosen, ids, num, mask: _combine(
          model.group_posterior, q.take(chosen), ids, num, mask),
      set_ids, num_sets, _COMBINE_ROWS)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _combine(group_posterior: GroupPosterior, q: Normal, ids: jax.Array,
             num_sets: int, mask: jax.Array) -> Normal:
  return group_posterior.combine(q, ids, num_sets, mask)


def _in_chunks(posterior: Callable[..., Normal], set_ids: np.ndarray,
               num_sets: int, size: int) -> Normal:
  """The posteriors of sets, a few whole sets at a time.

  Args:
    posterior: function from places among the rows, the set of each of them, the
      number of sets and a mask to a Normal per set.
    set_ids: set of each row, `[R]`, R > 0.
    num_sets: number of sets, S > 0; some may have no rows.
    size: number of rows at a time; of a larger set all.

  Returns:
    Normal of `[S, D]` NumPy arrays.
  """
  order = np.argsort(set_ids, kind='stable')
  end = np.cumsum(np.bincount(set_ids, minlength=num_sets))
  parts, first = [], 0
  while first < num_sets:
    start = end[first - 1] if first else 0
    # As many sets as fit, and at least one, even if it is too large.
    last = max(first + 1, int(np.searchsorted(
        end, start + size, side='right')))
    last = min(last, first + size)  # Sets without rows take room as well.
    chosen = order[start:end[last - 1]]
    # The padding is one more set.
    padded = max(size, len(chosen))
    ids = np.full(padded, last - first, np.int32)
    ids[:len(chosen)] = set_ids[chosen] - first
    q = jax.device_get(posterior(
        np.resize(chosen, padded), ids, size + 1,
        np.arange(padded) < len(chosen)))
    parts.append(q.take(slice(0, last - first)))
    first = last
  return Normal(*map(np.concatenate, zip(*parts)))


def control_name(x: np.ndarray) -> str:
  """The name of observations where they serve as a code."""
  return 'pixels' if is_pixels(x) else 'observations'


def mean_vectors(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
  """Mean of each set of rows `[M, k]`, in the form of `vectors`."""
  # One member at a time: [M, k] images at once could exceed the memory.
  total = np.zeros((len(rows), *x.shape[1:]), np.float32)
  for column in rows.T:
    total += x[column]
  mean = total / rows.shape[1]
  return _pixels(mean) if is_pixels(x) else _flatten(mean)


def vectors(x: np.ndarray) -> np.ndarray:
  """Observations as vectors `[N, D]`.

  Pixels are in [0, 1], averaged in blocks to 32x32 or a little more: for
  recognition these are as good as larger images, and cost less. Other
  observations are flattened.

  Args:
    x: observations `[N, ...]`; may be a file mapped into memory.

  Returns:
    Float32 vectors.
  """
  return _pixels(np.asarray(x)) if is_pixels(x) else _flatten(x)


def is_pixels(x: np.ndarray) -> bool:
  """Whether observations are images `[N, H, W, C]` uint8."""
  return x.ndim == 4 and x.dtype == np.uint8


def _flatten(x: np.ndarray) -> np.ndarray:
  return np.asarray(x, np.float32).reshape(len(x), -1)


def _pixels(images: np.ndarray) -> np.ndarray:
  num, height, width, channels = images.shape
  # The largest blocks that divide a side and leave at least 32 of them.
  down, right = (
      max(f for f in range(1, size + 1) if size % f == 0
          and (f == 1 or size // f >= 32)) for size in (height, width))
  blocks = images.reshape(
      num, height // down, down, width // right, right, channels)
  small = blocks.mean(axis=(2, 4), dtype=np.float32) / np.float32(255)
  return small.reshape(num, -1)
