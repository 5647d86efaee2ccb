"""Inference: the posteriors and codes of images and of their groups.

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
