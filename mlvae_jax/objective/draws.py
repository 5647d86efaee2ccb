"""Posteriors and codes of a batch, for its ELBO and its penalties."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlvae_jax.grouping import posterior
from mlvae_jax.grouping.normal import Normal, kl_divergence
from mlvae_jax.model.factors import Batch, Factor
from mlvae_jax.model.model import Model, Params


class Drawn(NamedTuple):
  """A batch with one code of every factor for every row.

  Attributes:
    batch: the rows; x is as `Model.prepare` gives it, 0 for padding.
    weights: `[N]`, the number of rows that a row represents in the likelihood;
      0 for padding.
    q: posteriors of rows, Normal of `[N, D]` per factor, N(0, I) for padding;
      where posteriors are free, those of a grouped factor are the groups',
      Normal of `[G, D]`.
    codes: codes drawn from the posteriors, `[N, D]` per factor.
    kl: KLs to the prior in nats, `[G]` per grouped factor, `[N]` per ungrouped
      one; 0 for absent groups.
    group_share: `[G]` of the first grouped factor, the share of each group's
      KL that this batch pays (`weights` where no factor is grouped).
  """

  batch: Batch
  weights: jax.Array
  q: dict[str, Normal]
  codes: dict[str, jax.Array]
  kl: dict[str, jax.Array]
  group_share: jax.Array


def draw_codes(
    model: Model,
    params: Params,
    key: jax.Array,
    batch: Batch,
    num_groups: Mapping[str, int],
    *,
    sample_per: str = 'row',
    free: Mapping[str, Normal] | None = None,
    axis_name: str | None = None,
) -> Drawn:
  """Draws one code of every factor for every row of a batch.

  Args:
    model: the model; static.
    params: the model's parameters.
    key: random key; consumed. Noise is a function of key, factor and
      `batch.rows` alone.
    batch: the rows, or this device's share of them. Groups may straddle
      devices: their evidence is summed over `axis_name`.
    num_groups: static number of groups per grouped factor.
    sample_per: 'row' draws a group's code for every member (algorithm 1),
      'group' once.
    free: posteriors of a model without an encoder (SVI, paper fig. 3a): Normal
      of `[G, D]` per grouped factor, of `[N, D]` per ungrouped one.
    axis_name: mapped axis over which the batch is spread, if any.

  Returns:
    Posteriors, codes and their KLs.

  Raises:
    ValueError: on an unknown `sample_per`, images that do not fit the model, or
      free posteriors or shares of KLs where an encoder gives the posteriors.
  """
  posterior.check_sample_per(sample_per)
  _check_free(model, batch, free)
  mask = batch.mask
  # Padding may hold any values, even NaN; zeros keep it out of gradients too.
  x = model.prepare(batch.x, mask)
  dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.float32
  weights = mask.astype(dtype) if batch.weights is None else jnp.where(
      mask, batch.weights, 0.0)
  rows = None if free is not None else model.encode_rows(params, x)
  q, codes, kl, group_share = {}, {}, {}, weights
  # A key per factor by its position, so that a factor's noise does not depend
  # on whether others are grouped.
  keys = {factor.name: factor_key for factor, factor_key in zip(
      model.factors, jax.random.split(key, len(model.factors)))}
  for factor in model.factors:
    name = factor.name
    # A factor that is given others is encoded with the codes drawn of them.
    if free is not None:
      q[name] = free[name]
    elif rows is not None:  # They are there without free posteriors.
      q[name] = model.posterior(params, factor, rows, codes)
    # Free posteriors of groups are not those of rows: no row is padding.
    if factor.grouping is None or model.has_encoder:
      q[name] = q[name].masked(mask)
    if factor.grouping is None:
      codes[name] = q[name].reparameterize(posterior.row_noise(
          keys[name], batch.rows, factor.dim))
      # A row that represents several pays their KLs too: each has its style.
      kl[name] = weights * kl_divergence(q[name])
      continue
    sampled = model.group_posterior.sample(
        keys[name], _members(batch, factor, q[name]), num_groups[name],
        sample_per=sample_per, axis_name=axis_name)
    codes[name], kl[name] = sampled.codes, sampled.kl
    if factor == model.grouped[0]:  # Its groups are those of eq. 5.
      group_share = sampled.kl_share
  return Drawn(batch._replace(x=x), weights, q, codes, kl, group_share)


def _check_free(model: Model, batch: Batch, free: Mapping[str, Normal] | None
                ) -> None:
  if not model.has_encoder:
    return
  if free is not None:
    raise ValueError(
        'free posteriors are only for a model without an encoder, that is one '
        'with group_posterior=Free()')
  if batch.kl_share is not None:
    raise ValueError(
        'batch.kl_share is only for free posteriors (SVI): a posterior encoded '
        'from the rows of a batch pays its whole KL; leave batch.kl_share out')


def _members(batch: Batch, factor: Factor, q: Normal) -> posterior.Members:
  """The rows as members of a factor's groups."""
  evidence = (batch.mask if batch.evidence is None
              else batch.evidence[factor.name])
  return posterior.Members(
      q, batch.group_ids[factor.name], batch.mask, evidence, batch.rows,
      None if batch.kl_share is None else batch.kl_share[factor.name],
      batch.weights)
