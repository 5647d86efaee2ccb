"""Inference: the posteriors and codes of images and of their groups.

Codes are a dict from factor name to `[N, D]`. Two strategies give the codes
of grouped factors (paper section 4): strategy 1 takes each image as its own
group; strategy 2, with `group_ids`, accumulates the evidence of the group.
Where there are several groupings, ids are a dict from factor name to `[N]`.
Images, ids and masks may also be lists, and N may be 0.
"""

from __future__ import annotations

from collections.abc import Mapping
import functools
from typing import Any

import jax
import jax.numpy as jnp

from mlvae_jax.grouping.checks import check_group_ids, check_mask
from mlvae_jax.grouping.normal import Normal, standard_normal
from mlvae_jax.grouping.posterior import Members
from mlvae_jax.inference import free
from mlvae_jax.model.model import Model, Params

Codes = dict[str, jax.Array]
Ids = jax.Array | Mapping[str, jax.Array]  # For all factors, or by factor.
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

  For a model with another group posterior, such as a mixture, it is the Normal
  of the same mean and variance; for an SVI model it is found by optimisation.

  Args:
    model: the model; static.
    params: the model's parameters.
    images: `[N, H, W, C]`, uint8 or float in [0, 1].
    group_ids: `[N]` integers in `[0, num_groups)`, in any order.
    num_groups: static int, G.
    factor: name of the grouped factor; by default the only one.
    mask: optional `[N]` bool; False drops a row, even one of NaN.

  Returns:
    Normal of `[G, D]`; N(0, I) for a group without rows.

  Raises:
    ValueError: on wrong shapes, dtypes, ranges or ids, or a factor that is
      unknown or not grouped.
  """
  name = model.grouped_factor(factor).name
  images = model.to_float(images, mask)
  ids, mask = check_group_ids(
      group_ids, images.shape[0], num_groups, mask)
  return _encode_group(model, params, images, ids, num_groups, name, mask)


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def _encode_group(model, params, images, group_ids, num_groups, name, mask):
  if not model.has_encoder:
    return _infer_free(
        model, params, images, {name: group_ids}, {name: num_groups}, mask
    )[name]
  q = model.encode(params, images)[name]
  return model.group_posterior.combine(q, group_ids, num_groups, mask)


def posteriors(
    model: Model,
    params: Params,
    images: jax.Array,
    group_ids: Ids | None = None,
    num_groups: Sizes | None = None,
    *,
    mask: jax.Array | None = None,
) -> dict[str, Normal]:
  """Infers the posterior of every factor for every image.

  Args:
    model: the model; static.
    params: the model's parameters.
    images: `[N, H, W, C]`, uint8 or float in [0, 1].
    group_ids: group of each row for strategy 2, `[N]` ints, or a dict of them
      by factor; factors that it leaves out follow strategy 1, as all do with
      None.
    num_groups: static number of groups, or a dict of numbers by factor;
      required with group_ids.
    mask: optional `[N]` bool; False drops a row, even one of NaN.

  Returns:
    Normal of `[N, D]` per factor; members of a group have the same Normal of a
    grouped factor. A mixture is given by its mean and variance. A row that is
    dropped has N(0, I).

  Raises:
    ValueError: on wrong shapes, dtypes, ranges or ids.
  """
  images, mask, members, num_groups = _check(
      model, images, group_ids, num_groups, mask)
  return _posteriors(
      model, params, images, mask, members, tuple(num_groups.items()))


def infer(
    model: Model,
    params: Params,
    images: jax.Array,
    group_ids: Ids | None = None,
    num_groups: Sizes | None = None,
    *,
    mask: jax.Array | None = None,
    key: jax.Array | None = None,
) -> Codes:
  """Infers codes of images: posterior means, or samples if there is a key.

  Args:
    model: the model; static.
    params: the model's parameters.
    images: `[N, H, W, C]`, uint8 or float in [0, 1].
    group_ids: ids for strategy 2, as `posteriors` takes them.
    num_groups: static number of groups, as `posteriors` takes it.
    mask: optional `[N]` bool; False drops a row, even one of NaN.
    key: optional key for samples; consumed.

  Returns:
    `[N, D]` per factor; 0 for a row that is dropped, also with a key.

  Raises:
    ValueError: as `posteriors` does.
  """
  images, mask, members, num_groups = _check(
      model, images, group_ids, num_groups, mask)
  found = _posteriors(
      model, params, images, mask, members, tuple(num_groups.items()))
  if key is None:
    return {name: q.mean for name, q in found.items()}
  # A key per factor, and for each row noise of its own: members of a group get
  # different samples of its code, as in algorithm 1.
  keys = dict(zip(found, jax.random.split(key, len(found))))
  codes = {name: q.sample(keys[name]) for name, q in found.items()}
  if not model.group_posterior.is_normal and images.shape[0] != 0:
    codes |= _sample_members(
        model, params, images, mask, members, num_groups, keys)
  is_real = {name: mask & members[name][1] if name in members else mask
             for name in codes}
  return {name: jnp.where(is_real[name][:, None], code, 0.0)
          for name, code in codes.items()}


def _check(model: Model, images: jax.Array, group_ids: Ids | None,
           num_groups: Sizes | None, mask: jax.Array | None
           ) -> tuple[jax.Array, jax.Array, Any, dict[str, int]]:
  """Checks the arguments of `posteriors`.

  Returns:
    Images as float; a mask; (ids, mask) by factor; numbers of groups by factor.
  """
  images = model.to_float(images, mask)
  num_rows = images.shape[0]
  group_ids, num_groups = _by_factor(model, group_ids, num_groups)
  members = {
      name: check_group_ids(ids, num_rows, num_groups[name], mask)
      for name, ids in group_ids.items()}
  mask = (jnp.ones(num_rows, bool) if mask is None
          else jnp.asarray(check_mask(mask, num_rows)))
  if not model.has_encoder:
    # All codes of a row are optimised together, so a row that one factor drops
    # (a traced id out of range) must be dropped for all.
    for _, is_member in members.values():
      mask &= is_member
    members = {name: (ids, mask) for name, (ids, _) in members.items()}
  return images, mask, members, num_groups


def _by_factor(model: Model, group_ids: Ids | None, num_groups: Sizes | None
               ) -> tuple[dict[str, jax.Array], dict[str, int]]:
  """Ids and numbers of groups, both by the name of the grouped factor."""
  if group_ids is None:
    return {}, {}
  if num_groups is None:
    raise ValueError('expected num_groups along with group_ids, got None')
  names = [f.name for f in model.grouped]
  if not isinstance(group_ids, Mapping):
    group_ids = dict.fromkeys(names, group_ids)
  if not isinstance(num_groups, Mapping):
    num_groups = dict.fromkeys(group_ids, num_groups)
  for what, given in (('group_ids', group_ids), ('num_groups', num_groups)):
    if not set(group_ids) <= set(given) <= set(names):
      raise ValueError(
          f'expected {what} of grouped factors {names}, the same factors in '
          f'group_ids and num_groups, got {list(given)}')
  return dict(group_ids), {name: num_groups[name] for name in group_ids}


@functools.partial(jax.jit, static_argnums=(0, 5))
def _posteriors(model, params, images, mask, members, num_groups):
  if not model.has_encoder:
    found = _infer_free(
        model, params, images,
        {name: ids for name, (ids, _) in members.items()}, dict(num_groups),
        mask)
  else:
    found = model.encode(params, images)
    for name, size in num_groups:
      found[name] = model.group_posterior.combine(
          found[name], members[name][0], size, members[name][1])
  by_row = {name: q.take(members[name][0]) if name in members else q
            for name, q in found.items()}
  return {name: q.masked(members.get(name, (None, mask))[1])
          for name, q in by_row.items()}


def _infer_free(model, params, images, group_ids, num_groups, mask):
  """As `free.infer`; without ids, every image is a group of its own."""
  num_rows = images.shape[0]
  alone = [f.name for f in model.grouped if f.name not in group_ids]
  ids = group_ids | {name: jnp.arange(num_rows) for name in alone}
  sizes = num_groups | dict.fromkeys(alone, num_rows)
  if num_rows == 0:  # Nothing to optimise.
    return {f.name: standard_normal((sizes.get(f.name, 0), f.dim))
            for f in model.factors}
  return free.infer(model, params, images, ids, sizes, mask=mask)


def _sample_members(model, params, images, mask, members, num_groups, keys):
  """Codes drawn from the groups' own posteriors, such as mixtures."""
  # Members' posteriors are those of strategy 1: each image on its own.
  alone = _posteriors(model, params, images, mask, {}, ())
  return {
      name: model.group_posterior.sample(
          keys[name], Members(
              alone[name], ids, is_member, is_member,
              jnp.arange(images.shape[0])),
          num_groups[name]).codes
      for name, (ids, is_member) in members.items()}
