"""Inference: the posteriors and codes of observations and of their groups.

Codes are a dict from factor name to `[N, D]`. Two strategies give the codes
of grouped factors (paper section 4): strategy 1 takes each observation as its
own group; strategy 2, with `group_ids`, accumulates the evidence of the group.
Where there are several groupings, ids are a dict from factor name to `[N]`.
Observations, ids and masks may also be lists, and N may be 0.

A factor that is given others is inferred after them, from their means or, where
there is a key, from the samples drawn of them.
"""

from __future__ import annotations

from collections.abc import Mapping
import functools
from typing import Any

import jax
import jax.numpy as jnp
from numpy.typing import ArrayLike

from mlvae_jax.grouping.checks import check_count, check_group_ids, check_mask
from mlvae_jax.grouping.normal import Normal, standard_normal
from mlvae_jax.grouping.posterior import Members
from mlvae_jax.inference import free
from mlvae_jax.model.model import Model, Params

Codes = dict[str, jax.Array]
Ids = ArrayLike | Mapping[str, ArrayLike]  # For all factors, or by factor.
Sizes = int | Mapping[str, int]


def encode_group(
    model: Model,
    params: Params,
    x: ArrayLike,
    group_ids: ArrayLike,
    num_groups: int,
    *,
    factor: str | None = None,
    mask: ArrayLike | None = None,
) -> Normal:
  """Encodes groups: q(C | X_G), the product of the members' Normals.

  For a model with another group posterior, such as a mixture, it is the Normal
  of the same mean and variance; for an SVI model it is found by optimisation.

  Args:
    model: the model; static.
    params: the model's parameters.
    x: `[N, ...]` observations, with values that the likelihood can have.
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
  num_groups = check_count(num_groups, 'num_groups')
  x = model.prepare(x, mask)
  ids, mask = check_group_ids(
      group_ids, x.shape[0], num_groups, mask)
  return _encode_group(model, params, x, ids, num_groups, name, mask)


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def _encode_group(model, params, x, group_ids, num_groups, name, mask):
  if not model.has_encoder:
    return _infer_free(
        model, params, x, {name: group_ids}, {name: num_groups}, mask
    )[name]
  q = model.encode(params, x)[name]
  return model.group_posterior.combine(q, group_ids, num_groups, mask)


def posteriors(
    model: Model,
    params: Params,
    x: ArrayLike,
    group_ids: Ids | None = None,
    num_groups: Sizes | None = None,
    *,
    mask: ArrayLike | None = None,
) -> dict[str, Normal]:
  """Infers the posterior of every factor for every observation.

  Args:
    model: the model; static.
    params: the model's parameters.
    x: `[N, ...]` observations, with values that the likelihood can have.
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
  x, mask, members, num_groups = _check(
      model, x, group_ids, num_groups, mask)
  return _posteriors(
      model, params, x, mask, members, tuple(num_groups.items()), {})


def infer(
    model: Model,
    params: Params,
    x: ArrayLike,
    group_ids: Ids | None = None,
    num_groups: Sizes | None = None,
    *,
    mask: ArrayLike | None = None,
    key: jax.Array | None = None,
) -> Codes:
  """Infers codes: posterior means, or samples if there is a key.

  Args:
    model: the model; static.
    params: the model's parameters.
    x: `[N, ...]` observations, with values that the likelihood can have.
    group_ids: ids for strategy 2, as `posteriors` takes them.
    num_groups: static number of groups, as `posteriors` takes it.
    mask: optional `[N]` bool; False drops a row, even one of NaN.
    key: optional key for samples; consumed.

  Returns:
    `[N, D]` per factor; 0 for a row that is dropped, also with a key.

  Raises:
    ValueError: as `posteriors` does.
  """
  x, mask, members, num_groups = _check(
      model, x, group_ids, num_groups, mask)
  sizes = tuple(num_groups.items())
  found = _posteriors(model, params, x, mask, members, sizes, {})
  if key is None:
    return {name: q.mean for name, q in found.items()}
  # A key per factor, and for each row noise of its own: members of a group get
  # different samples of its code, as in algorithm 1.
  keys = dict(zip(found, jax.random.split(key, len(found))))
  codes = {}
  for factor in model.factors:
    name = factor.name
    if factor.given:
      found = _posteriors(model, params, x, mask, members, sizes, codes)
    codes[name] = found[name].sample(keys[name])
    if name in members and not model.group_posterior.is_normal and x.shape[0]:
      codes[name] = _sample_members(
          model, params, x, mask, members, num_groups, keys, name, codes)
    is_real = mask & members[name][1] if name in members else mask
    codes[name] = jnp.where(is_real[:, None], codes[name], 0.0)
  return codes


def _check(model: Model, x: ArrayLike, group_ids: Ids | None,
           num_groups: Sizes | None, mask: ArrayLike | None
           ) -> tuple[jax.Array, jax.Array, Any, dict[str, int]]:
  """Checks the arguments of `posteriors`.

  Returns:
    Prepared rows; a mask; (ids, mask) by factor; numbers of groups by factor.
  """
  x = model.prepare(x, mask)
  num_rows = x.shape[0]
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
  return x, mask, members, num_groups


def _by_factor(model: Model, group_ids: Ids | None, num_groups: Sizes | None
               ) -> tuple[dict[str, ArrayLike], dict[str, int]]:
  """Ids and numbers of groups, both by the name of the grouped factor."""
  if group_ids is None:
    if num_groups is not None:
      raise ValueError(
          'expected group_ids along with num_groups, got None; leave out both '
          'to take each row as its own group')
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
  return dict(group_ids), {
      name: check_count(num_groups[name], 'num_groups') for name in group_ids}


@functools.partial(jax.jit, static_argnums=(0, 5))
def _posteriors(model, params, x, mask, members, num_groups, codes):
  """By row; `codes` of given factors take the place of their means."""
  sizes, found = dict(num_groups), {}
  if not model.has_encoder:
    free_q = _infer_free(
        model, params, x, {name: ids for name, (ids, _) in members.items()},
        sizes, mask)
  else:
    rows = model.encode_rows(params, x)
  for factor in model.factors:
    name = factor.name
    q = free_q[name] if not model.has_encoder else model.posterior(
        params, factor, rows, {name: q.mean for name, q in found.items()}
        | codes)
    if name in members:
      ids, is_member = members[name]
      if model.has_encoder:
        q = model.group_posterior.combine(q, ids, sizes[name], is_member)
      q = q.take(ids)
    elif model.has_encoder:
      q = model.alone(factor, q)
    found[name] = q.masked(members.get(name, (None, mask))[1])
  return found


def _infer_free(model, params, x, group_ids, num_groups, mask):
  """As `free.infer`; without ids, every row is a group of its own."""
  num_rows = x.shape[0]
  alone = [f.name for f in model.grouped if f.name not in group_ids]
  ids = group_ids | {name: jnp.arange(num_rows) for name in alone}
  sizes = num_groups | dict.fromkeys(alone, num_rows)
  if num_rows == 0:  # Nothing to optimise.
    return {f.name: standard_normal((sizes.get(f.name, 0), f.dim))
            for f in model.factors}
  return free.infer(model, params, x, ids, sizes, mask=mask)


def _sample_members(model, params, x, mask, members, num_groups, keys, name,
                    codes):
  """Codes drawn from the groups' own posteriors, such as mixtures."""
  # Members' posteriors are those of strategy 1: each row on its own.
  ids, is_member = members[name]
  alone = _posteriors(model, params, x, mask, {}, (), codes)[name]
  return model.group_posterior.sample(
      keys[name], Members(
          alone, ids, is_member, is_member, jnp.arange(x.shape[0])),
      num_groups[name]).codes
