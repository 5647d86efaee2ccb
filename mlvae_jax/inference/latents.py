"""Uses of latent codes: decode, reconstruct, swap, interpolate, generate.

Codes are a dict from factor name to `[N, D]`, as `infer` gives them.
"""

from __future__ import annotations

from collections.abc import Mapping
import functools

import jax
import jax.numpy as jnp
from numpy.typing import ArrayLike

from mlvae_jax.grouping.checks import check_count
from mlvae_jax.inference.encode import Ids, Sizes, infer
from mlvae_jax.model.model import Model, Params


def decode(model: Model, params: Params, codes: Mapping[str, ArrayLike]
           ) -> jax.Array:
  """Decodes codes into expected observations.

  Args:
    model: the model; static.
    params: the model's parameters.
    codes: `[..., D]` for every factor.

  Returns:
    `[..., *observation_shape]`, as the likelihood's `mean` gives them; a
    Gaussian may leave the range of pixels.

  Raises:
    ValueError: on missing or unknown factors, or codes of the wrong shape.
  """
  codes = model.check_codes(codes)
  # The decoder takes one leading axis; grids of codes have several.
  shape = codes[model.factors[0].name].shape[:-1]
  flat = {name: code.reshape(-1, code.shape[-1])
          for name, code in codes.items()}
  found = _decode(model, params, flat)
  return found.reshape(*shape, *found.shape[1:])


def reconstruct(
    model: Model,
    params: Params,
    x: ArrayLike,
    group_ids: Ids | None = None,
    num_groups: Sizes | None = None,
    *,
    mask: ArrayLike | None = None,
    key: jax.Array | None = None,
) -> jax.Array:
  """Reconstructs observations from their codes (paper fig. 6).

  Args:
    model: the model; static.
    params: the model's parameters.
    x: `[N, ...]` observations, with values that the likelihood can have.
    group_ids: ids for strategy 2, as `infer` takes them.
    num_groups: static number of groups, as `infer` takes it.
    mask: optional `[N]` bool; False drops a row, even one of NaN.
    key: optional key for samples of the codes; consumed.

  Returns:
    `[N, ...]`, as `decode` gives them.

  Raises:
    ValueError: as `infer` does.
  """
  return decode(
      model, params, infer(model, params, x, group_ids, num_groups,
                           mask=mask, key=key))


def swap(
    model: Model,
    params: Params,
    row_codes: Mapping[str, ArrayLike],
    column_codes: Mapping[str, ArrayLike],
    *,
    factor: str | None = None,
) -> jax.Array:
  """Decodes every combination of one factor with the others (paper fig. 4).

  Args:
    model: the model; static.
    params: the model's parameters.
    row_codes: `[R, D]` per factor; all factors but `factor` are taken from it.
    column_codes: `[C, D]` per factor; `factor` is taken from it.
    factor: name of the factor to swap; by default the only grouped factor.

  Returns:
    `[R, C, ...]`, a grid of observations. With content as the factor, each row
    has one style and each column one content. Codes are kept as they are, also
    where the encoder of style saw a content (`given`): in the model style does
    not depend on content, so a code stands for the same style with any.

  Raises:
    ValueError: as `decode` does, or on an unknown factor.
  """
  name = model.factor(factor).name
  row_codes, column_codes = (
      model.check_codes(codes, leading=(axis,))
      for axis, codes in (('R', row_codes), ('C', column_codes)))
  num_rows = row_codes[name].shape[0]
  num_columns = column_codes[name].shape[0]
  codes = {}
  for f in model.factors:
    code = (column_codes[f.name][None] if f.name == name
            else row_codes[f.name][:, None])
    codes[f.name] = jnp.broadcast_to(code, (num_rows, num_columns, f.dim))
  return decode(model, params, codes)


def interpolate(
    model: Model,
    params: Params,
    start: Mapping[str, ArrayLike],
    stop: Mapping[str, ArrayLike],
    num_steps: int,
    *,
    factor: str | None = None,
) -> jax.Array:
  """Interpolates linearly between two observations' codes (paper fig. 5b).

  Args:
    model: the model; static.
    params: the model's parameters.
    start: `[D]` per factor, codes of the observation at the top left.
    stop: `[D]` per factor, codes of the observation at the bottom right.
    num_steps: number of observations per side of the grid, at least 2.
    factor: name of the factor that changes from left to right, by default the
      only grouped one; all others change from top to bottom.

  Returns:
    `[num_steps, num_steps, ...]`.

  Raises:
    ValueError: as `swap` does, or on fewer than 2 steps.
  """
  num_steps = check_count(num_steps, 'num_steps', 2)
  start, stop = (
      model.check_codes(codes, leading=()) for codes in (start, stop))
  weight = jnp.linspace(0.0, 1.0, num_steps)[:, None]
  line = {name: start[name] + weight * (stop[name] - start[name])
          for name in start}
  return swap(model, params, line, line, factor=factor)


def generate(
    model: Model,
    params: Params,
    codes: Mapping[str, ArrayLike],
    key: jax.Array,
    num_samples: int,
) -> jax.Array:
  """Generates observations of given groups in random styles (paper fig. 5a).

  Args:
    model: the model; static.
    params: the model's parameters.
    codes: `[G, D]` for each factor to keep; all others are drawn from the
      prior. With an empty dict all factors are drawn.
    key: random key; consumed.
    num_samples: number of observations per group; static.

  Returns:
    `[G, num_samples, ...]`, or `[1, num_samples, ...]` without codes.

  Raises:
    ValueError: on unknown factors, codes of the wrong shape, or a negative
      number.
  """
  num_samples = check_count(num_samples, 'num_samples', 0)
  codes = model.check_codes(codes, leading=('G',), some=True)
  num_groups = next(iter(codes.values())).shape[0] if codes else 1
  # A key for every factor, needed or not: which factors are given does not
  # change what is drawn for the others.
  keys = jax.random.split(key, len(model.factors))
  drawn = {}
  for f, factor_key in zip(model.factors, keys):
    shape = (num_groups, num_samples, f.dim)
    drawn[f.name] = (
        jnp.broadcast_to(codes[f.name][:, None], shape) if f.name in codes
        else jax.random.normal(factor_key, shape))
  return decode(model, params, drawn)


@functools.partial(jax.jit, static_argnums=0)
def _decode(model, params, codes):
  return model.likelihood.mean(model.decode(params, codes))
