"""Playing with latent codes: infer, reconstruct, swap, interpolate, generate.

Codes are a dict from factor name to `[N, D]`. Two strategies give the codes
of grouped factors (paper section 4): strategy 1 takes each image as its own
group; strategy 2, with `group_ids`, accumulates the evidence of the group.
Where there are several groupings, ids are a dict from factor name to `[N]`.
"""

from __future__ import annotations

from collections.abc import Mapping
import functools

import jax
import jax.numpy as jnp

from mlvae_jax import svi
from mlvae_jax.evidence import check_group_ids
from mlvae_jax.group_posteriors import Members, combine, sample_codes
from mlvae_jax.model import Model, Params
from mlvae_jax.normal import Normal

Codes = dict[str, jax.Array]
Ids = jax.Array | Mapping[str, jax.Array]  # Of all factors, or by factor.
Sizes = int | Mapping[str, int]


def encode_group(
    model: Model,
    params: Params,
    images: jax.Array,
    group_ids: jax.Array,
    num_groups: int,
    *,
    factor: str | None = None,
    mask: jax.Array | None = None,
) -> Normal:
  """Encodes groups of images: q(C | X_G), the product of the members' Normals.

  Of a model with group_posterior='mixture' the Normal of the mixture's mean
  and variance; of an SVI model what optimisation finds.

  Args:
    model: static.
    params: its parameters.
    images: `[N, H, W, C]`, uint8 or float in [0, 1].
    group_ids: `[N]` integers in `[0, num_groups)`, in any order.
    num_groups: static int, G.
    factor: which factor; by default the only grouped one.
    mask: optional `[N]` bool; False drops a row, even one of NaN.

  Returns:
    Normal of `[G, D]`; N(0, I) for a group without rows.

  Raises:
    ValueError: on wrong shapes, dtypes, ranges or ids.
  """
  name = model.factor(factor).name
  images = jnp.asarray(images)
  if mask is not None and images.ndim == 4:
    mask = jnp.asarray(mask)
    check_group_ids(group_ids, len(images), num_groups, mask)
    images = jnp.where(mask[:, None, None, None], images, 0)
  images = model.to_float(images)
  check_group_ids(group_ids, len(images), num_groups, mask)
  return _encode_group(
      model, params, images, group_ids, num_groups, name, mask)


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def _encode_group(model, params, images, group_ids, num_groups, name, mask):
  if model.inference == 'svi':
    ids, sizes = _all_ids(model, len(images), {name: group_ids},
                          {name: num_groups})
    return svi.infer(model, params, images, ids, sizes, mask=mask)[name]
  q = model.encode(params, images)[name]
  return combine(
      model.group_posterior, q, group_ids, num_groups, mask)


def posteriors(
    model: Model,
    params: Params,
    images: jax.Array,
    group_ids: Ids | None = None,
    num_groups: Sizes | None = None,
) -> dict[str, Normal]:
  """The posterior of every factor for every image.

  Args:
    model: static.
    params: its parameters.
    images: `[N, H, W, C]`, uint8 or float in [0, 1].
    group_ids: for strategy 2 `[N]` ints, or a dict of them by factor; factors
      that it leaves out follow strategy 1, as all do with None.
    num_groups: static number of groups, with group_ids; one, or by factor.

  Returns:
    Normal of `[N, D]` per factor; members of a group have the same one of a
    grouped factor. A mixture is given by its mean and variance.

  Raises:
    ValueError: on wrong shapes, dtypes, ranges or ids.
  """
  images = model.to_float(images)
  group_ids, num_groups = _by_factor(model, group_ids, num_groups)
  group_ids = {
      name: check_group_ids(ids, len(images), num_groups[name], None)
      for name, ids in group_ids.items()}
  return _posteriors(
      model, params, images, group_ids, tuple(num_groups.items()))


def infer(
    model: Model,
    params: Params,
    images: jax.Array,
    group_ids: Ids | None = None,
    num_groups: Sizes | None = None,
    *,
    key: jax.Array | None = None,
) -> Codes:
  """Codes of images: posterior means, or with a key samples.

  Args:
    model: static.
    params: its parameters.
    images: `[N, H, W, C]`, uint8 or float in [0, 1].
    group_ids: as `posteriors` takes them: given for strategy 2.
    num_groups: static number of groups, with group_ids.
    key: optional; consumed.

  Returns:
    `[N, D]` per factor.

  Raises:
    ValueError: as `posteriors` does.
  """
  found = posteriors(model, params, images, group_ids, num_groups)
  if key is None:
    return {name: q.mean for name, q in found.items()}
  keys = dict(zip(found, jax.random.split(key, len(found))))
  codes = {name: q.sample(keys[name]) for name, q in found.items()}
  if model.group_posterior == 'mixture' and model.inference == 'encoder':
    codes |= _sample_members(
        model, params, images, group_ids, num_groups, keys)
  return codes


def decode(model: Model, params: Params, codes: Codes) -> jax.Array:
  """Expected images `[..., H, W, C]` of codes `[..., D]`, cut to [0, 1]."""
  shape = codes[model.factors[0].name].shape[:-1]
  flat = {name: code.reshape(-1, code.shape[-1])
          for name, code in codes.items()}
  images = _decode(model, params, flat)
  return images.reshape(*shape, *images.shape[1:])


def reconstruct(
    model: Model,
    params: Params,
    images: jax.Array,
    group_ids: Ids | None = None,
    num_groups: Sizes | None = None,
    *,
    key: jax.Array | None = None,
) -> jax.Array:
  """Reconstructs images `[N, H, W, C]`; arguments as `infer`'s (fig. 6)."""
  return decode(
      model, params, infer(model, params, images, group_ids, num_groups,
                           key=key))


def swap(
    model: Model,
    params: Params,
    row_codes: Codes,
    column_codes: Codes,
    *,
    factor: str | None = None,
) -> jax.Array:
  """Every combination of one factor with the others (fig. 4).

  Args:
    model: static.
    params: its parameters.
    row_codes: `[R, D]` per factor, which give all factors but one.
    column_codes: `[C, D]` per factor, which give that one.
    factor: the one; by default the only grouped factor.

  Returns:
    `[R, C, H, W, C']` images: each row has a fixed style, each column a fixed
    content.
  """
  name = model.factor(factor).name
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
    start: Codes,
    stop: Codes,
    num_steps: int,
    *,
    factor: str | None = None,
) -> jax.Array:
  """Linear interpolation between two images' codes, as a grid (fig. 5b).

  Args:
    model: static.
    params: its parameters.
    start: `[D]` per factor, at the top left.
    stop: `[D]` per factor, at the bottom right.
    num_steps: images per side, at least 2.
    factor: which changes from left to right, by default the only grouped
      one; all others change from top to bottom.

  Returns:
    `[num_steps, num_steps, H, W, C]`.
  """
  weight = jnp.linspace(0.0, 1.0, num_steps)[:, None]
  line = {name: start[name] + weight * (stop[name] - start[name])
          for name in start}
  return swap(model, params, line, line, factor=factor)


def generate(
    model: Model,
    params: Params,
    codes: Codes,
    key: jax.Array,
    num_samples: int,
) -> jax.Array:
  """Images of given groups in random styles (fig. 5a).

  Args:
    model: static.
    params: its parameters.
    codes: `[G, D]` of the factors to keep; all others are drawn from the
      prior. An empty dict draws everything.
    key: consumed.
    num_samples: images per group.

  Returns:
    `[G, num_samples, H, W, C]`, or `[1, num_samples, ...]` without codes.
  """
  num_groups = len(next(iter(codes.values()))) if codes else 1
  keys = jax.random.split(key, len(model.factors))
  drawn = {}
  for f, factor_key in zip(model.factors, keys):
    shape = (num_groups, num_samples, f.dim)
    drawn[f.name] = (
        jnp.broadcast_to(codes[f.name][:, None], shape) if f.name in codes
        else jax.random.normal(factor_key, shape))
  return decode(model, params, drawn)


def _by_factor(model: Model, group_ids: Ids | None, num_groups: Sizes | None
               ) -> tuple[dict[str, jax.Array], dict[str, int]]:
  """Ids and numbers of groups, both by name of grouped factor."""
  if group_ids is None:
    return {}, {}
  if num_groups is None:
    raise ValueError('expected num_groups with group_ids')
  names = [f.name for f in model.grouped]
  if not isinstance(group_ids, Mapping):
    group_ids = dict.fromkeys(names, group_ids)
  if not isinstance(num_groups, Mapping):
    num_groups = dict.fromkeys(group_ids, num_groups)
  for what, given in (('group_ids', group_ids), ('num_groups', num_groups)):
    if not set(group_ids) <= set(given) <= set(names):
      raise ValueError(
          f'expected {what} of grouped factors {names}, the same in both, got '
          f'{list(given)}')
  return dict(group_ids), {name: num_groups[name] for name in group_ids}


@functools.partial(jax.jit, static_argnums=(0, 4))
def _posteriors(model, params, images, group_ids, num_groups):
  if model.inference == 'svi':
    ids, sizes = _all_ids(model, len(images), group_ids, dict(num_groups))
    found = svi.infer(model, params, images, ids, sizes)
    return {name: q.take(ids[name]) if name in ids else q
            for name, q in found.items()}
  found = model.encode(params, images)
  for name, size in num_groups:
    found[name] = combine(
        model.group_posterior, found[name], group_ids[name], size
    ).take(group_ids[name])
  return found


def _all_ids(model, num_images, group_ids, num_groups):
  """Ids and sizes of all grouped factors; images alone where none are given."""
  ids = {f.name: jnp.arange(num_images) for f in model.grouped}
  sizes = dict.fromkeys(ids, num_images)
  return ids | dict(group_ids), sizes | dict(num_groups)


def _sample_members(model, params, images, group_ids, num_groups, keys):
  """Codes of the groups' mixtures, whose Normals only share their moments."""
  alone = posteriors(model, params, images)
  group_ids, num_groups = _by_factor(model, group_ids, num_groups)
  everyone = jnp.ones(len(images), bool)
  return {
      name: sample_codes(
          model.group_posterior, keys[name], Members(
              alone[name], ids, everyone, everyone, jnp.arange(len(images))),
          num_groups[name]).codes
      for name, ids in group_ids.items()}


@functools.partial(jax.jit, static_argnums=0)
def _decode(model, params, codes):
  return jnp.clip(
      model.likelihood.mean(model.decode(params, codes)), 0.0, 1.0)
