"""The group Evidence Lower Bound (paper eqs. 3-5).

For a group G, with content c shared by its members and styles s_i:

  ELBO(G) = sum_i E[log p(x_i | c, s_i)] - sum_i KL(s_i) - KL(c),

the last term once per group; the objective is its average over groups. Sums
and counts travel separately, so that padding divides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlvae_jax.grouping import group_posteriors
from mlvae_jax.grouping.normal import Normal, kl_divergence
from mlvae_jax.model.factors import Batch, Factor
from mlvae_jax.model.model import Model, Params
from mlvae_jax.objective.penalties import (
    around_groups,
    contrast,
    leakage,
    standardize,
)

# Folded into a factor's key: noise of rows taken alone. No row has such a
# number, nor has a part of a split key: fold_in(key, 1) is split(key)[1].
_ALONE = 0xFFFFA10E


class ElboTerms(NamedTuple):
  """Terms of the group ELBOs of a batch, in nats.

  Attributes:
    log_lik: `[N]`, log p(x_i | z_i) for one sample z_i; 0 for padding.
    kl: per factor `[G]` (`[N]` for an ungrouped one); 0 for absent groups.
    num_groups: how many groups of the first grouped factor are present (rows
      where no factor is grouped); with `batch.shares` the sum of shares.
    num_rows: how many rows are real or, with `batch.weights`, how many rows
      they represent.
    contrast: per factor that was asked for `[N]`, see `penalties.contrast`.
    leakage: per factor that was asked for `[N]`, see `penalties.leakage`.
    mean_leakage: likewise, of standardised means instead of samples, those of
      a grouped factor less the mean of their group.

  Where a batch is spread over devices these are the device's shares: they
  add up over devices to the terms of the whole batch.
  """

  log_lik: jax.Array
  kl: dict[str, jax.Array]
  num_groups: jax.Array
  num_rows: jax.Array
  contrast: dict[str, jax.Array]
  leakage: dict[str, jax.Array]
  mean_leakage: dict[str, jax.Array]


class ElboSums(NamedTuple):
  """`ElboTerms` summed over rows and groups: scalars that can be added."""

  log_lik: jax.Array
  kl: dict[str, jax.Array]
  num_groups: jax.Array
  num_rows: jax.Array
  contrast: dict[str, jax.Array]
  leakage: dict[str, jax.Array]
  mean_leakage: dict[str, jax.Array]

  def elbo(self, kl_weights: Mapping[str, jax.Array] | None = None
           ) -> jax.Array:
    """Sum of the group ELBOs, or with weights on the KLs, of the objective.

    Args:
      kl_weights: by factor; 1 for those that it leaves out.

    Returns:
      A scalar.

    Raises:
      ValueError: on the weight of an unknown factor.
    """
    kl_weights = kl_weights or {}
    _check_known('kl_weights', kl_weights, list(self.kl))
    return self.log_lik - sum(
        kl * kl_weights.get(name, 1.0) for name, kl in self.kl.items())


def elbo_terms(
    model: Model,
    params: Params,
    key: jax.Array,
    batch: Batch,
    num_groups: Mapping[str, int],
    *,
    sample_per: str = 'row',
    contrast_of: tuple[str, ...] = (),
    leakage_of: tuple[str, ...] = (),
    mean_leakage_of: tuple[str, ...] = (),
    leakage_estimate: str = 'unbiased',
    free: Mapping[str, Normal] | None = None,
    axis_name: str | None = None,
) -> ElboTerms:
  """Estimates the ELBO of every group in a batch with one sample.

  Args:
    model: static.
    params: its parameters.
    key: consumed. Noise is a function of key and `batch.rows` alone.
    batch: the rows, or this device's share of them. Groups may straddle
      devices: their evidence is summed over `axis_name`.
    num_groups: static number of groups per grouped factor.
    sample_per: 'row' draws a group's code anew for every member (algorithm
      1), 'group' once.
    contrast_of: names of grouped factors for which to also compute the
      contrast, which is no part of the ELBO.
    leakage_of: names of factors for which to also compute how much the codes
      of single rows reveal of other factors' groups, summed over these.
    mean_leakage_of: names of factors for which to also compute how much their
      means reveal: noise hides from samples what a classifier of means still
      sees. Of a grouped factor they are taken less the mean of their group.
    leakage_estimate: as `penalties.leakage` takes it.
    free: posteriors that no encoder gives (SVI, fig. 3a): Normal of `[G, D]`
      per grouped factor, of `[N, D]` per ungrouped one.
    axis_name: mapped axis over which the batch is spread, if any.

  Returns:
    The terms.

  Raises:
    ValueError: on another `sample_per`, unknown factors, images that do not
      fit the model, or shares of KLs where an encoder gives the posteriors.
  """
  _check_sample_per(sample_per)
  _check_penalties(model, free, contrast_of, leakage_of, mean_leakage_of)
  if free is None and batch.shares is not None:
    raise ValueError(
        'batch.shares is only for free posteriors (SVI): a posterior encoded '
        'from the rows of a batch pays its whole KL; leave batch.shares out')
  mask = batch.mask
  # Padding holds any pixels, even NaN: zeros keep it out of the gradient too.
  x = model.to_float(jnp.where(mask[:, None, None, None], batch.x, 0))
  weights = mask.astype(x.dtype) if batch.weights is None else jnp.where(
      mask, batch.weights, 0.0)
  encoded = model.encode(params, x) if free is None else free
  codes, kl, contrasts, leakages, mean_leakages = {}, {}, {}, {}, {}
  group_share = weights
  keys = jax.random.split(key, len(model.factors))
  leak = functools.partial(
      _leakage, model, batch, leakage_estimate, axis_name)
  for factor, factor_key in zip(model.factors, keys):
    name, q = factor.name, encoded[factor.name]
    if factor.grouping is None:
      q = _mask_rows(q, mask)
      codes[name] = q.reparameterize(
          group_posteriors.row_noise(factor_key, batch.rows, factor.dim))
      kl[name] = weights * kl_divergence(q)
      if name in leakage_of:
        leakages[name] = leak(factor, codes[name])
      if name in mean_leakage_of:
        mean_leakages[name] = leak(
            factor, standardize(q.mean, mask, axis_name=axis_name))
      continue
    members = _members(batch, factor)
    if free is None:
      members = members._replace(q=_mask_rows(q, mask))
      sampled = group_posteriors.sample_codes(
          model.group_posterior, factor_key, members, num_groups[name],
          sample_per=sample_per, axis_name=axis_name)
      if name in contrast_of:
        contrasts[name] = contrast(
            q.mean, members.group_ids, mask, axis_name=axis_name)
      if name in leakage_of:
        noise = group_posteriors.row_noise(
            jax.random.fold_in(factor_key, _ALONE), batch.rows, factor.dim)
        leakages[name] = leak(factor, members.q.reparameterize(noise))
      if name in mean_leakage_of:
        # What a group's code has to tell lies between groups.
        within = around_groups(
            members.q.mean, members.group_ids, mask, num_groups[name],
            axis_name=axis_name)
        mean_leakages[name] = leak(
            factor, standardize(within, mask, axis_name=axis_name))
    else:
      sampled = group_posteriors.sample_from(
          factor_key, q, members, sample_per, axis_name)
    codes[name], kl[name] = sampled.codes, sampled.kl
    if factor == model.grouped[0]:
      group_share = sampled.share
  logits = model.decode(params, codes)
  log_lik = jnp.where(mask, model.likelihood.log_prob(logits, x), 0.0)
  return ElboTerms(
      weights * log_lik, kl, jnp.sum(group_share), jnp.sum(weights),
      contrasts, leakages, mean_leakages)


def _leakage(model: Model, batch: Batch, estimate: str, axis_name: str | None,
             factor: Factor, z: jax.Array) -> jax.Array:
  """What a factor's codes of single rows reveal of other groupings, `[N]`."""
  return sum(
      leakage(z, batch.group_ids[other.name], batch.mask, estimate=estimate,
              axis_name=axis_name)
      for other in model.grouped if other.grouping != factor.grouping)


def _check_sample_per(sample_per: str) -> None:
  if sample_per not in group_posteriors.SAMPLE_PER:
    raise ValueError(
        f'expected sample_per of {group_posteriors.SAMPLE_PER}, got '
        f'{sample_per!r}')


def _check_penalties(
    model: Model, free: Mapping[str, Normal] | None,
    contrast_of: tuple[str, ...], leakage_of: tuple[str, ...],
    mean_leakage_of: tuple[str, ...]) -> None:
  """Raises a ValueError where a penalty is of a factor that has none."""
  grouped = [f.name for f in model.grouped]
  leaky = [f.name for f in model.factors
           if {g.grouping for g in model.grouped} - {f.grouping}]
  if free is not None:  # A group's code is all there is: no row has its own.
    grouped, leaky = [], [name for name in leaky if name not in grouped]
  _check_known('contrast_of', contrast_of, grouped)
  _check_known('leakage_of', leakage_of, leaky)
  _check_known('mean_leakage_of', mean_leakage_of, leaky)


def _check_known(what: str, names: Iterable[str], known: list[str]) -> None:
  unknown = [name for name in names if name not in known]
  if unknown:
    may = f'may only name {", ".join(known)}' if known else (
        'must be empty, as no factor has one')
    raise ValueError(f'{what} {may}, got {unknown}')


def _members(batch: Batch, factor: Factor) -> group_posteriors.Members:
  """The rows as members of a factor's groups; their posteriors are to come."""
  evidence = batch.mask if batch.evidence is None else batch.evidence
  return group_posteriors.Members(
      None, batch.group_ids[factor.name], batch.mask, evidence, batch.rows,
      None if batch.shares is None else batch.shares[factor.name])


def sum_terms(terms: ElboTerms) -> ElboSums:
  """Sums the terms over rows and groups."""
  return ElboSums(
      jnp.sum(terms.log_lik),
      {name: jnp.sum(kl) for name, kl in terms.kl.items()},
      terms.num_groups, terms.num_rows,
      *({name: jnp.sum(value) for name, value in values.items()}
        for values in (terms.contrast, terms.leakage, terms.mean_leakage)))


def warm_up(step: jax.Array, num_steps: int) -> jax.Array:
  """Linear warm-up from 1 / num_steps at step 0 to 1; 1 if num_steps is 0."""
  return jnp.minimum(1.0, (step + 1.0) / max(num_steps, 1))


def _mask_rows(q: Normal, mask: jax.Array) -> Normal:
  """Replaces the posteriors of padding rows by the prior, whose KL is 0."""
  return Normal(*(jnp.where(mask[:, None], value, 0.0) for value in q))
