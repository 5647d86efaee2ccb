"""The group Evidence Lower Bound (paper eqs. 3-5).

For a group G, with content c shared by its members and styles s_i:

  ELBO(G) = sum_i E[log p(x_i | c, s_i)] - sum_i KL(s_i) - KL(c),

the last term once per group; the objective is its average over groups. Sums
and counts travel separately, so that padding divides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from mlvae_jax.grouping.normal import Normal
from mlvae_jax.model.factors import Batch
from mlvae_jax.model.model import Model, Params
from mlvae_jax.objective.draws import Drawn, draw_codes


class ElboTerms(NamedTuple):
  """Terms of the group ELBOs of a batch, in nats; `sum_terms` adds them up.

  Attributes:
    log_lik: `[N]`, log p(x_i | z_i) for one sample z_i; 0 for padding.
    kl: per factor `[G]` (`[N]` for an ungrouped one); 0 for absent groups.
    num_groups: how many groups of the first grouped factor are present (rows
      where no factor is grouped); with `batch.kl_share` the sum of shares.
    num_rows: how many rows are real or, with `batch.weights`, how many rows
      they represent.
    penalties: what training adds besides, keyed 'kind/factor', each `[N]`
      without its weight; no part of the ELBO.

  Where a batch is spread over devices these are the device's shares: they
  add up over devices to the terms of the whole batch.
  """

  log_lik: jax.Array
  kl: dict[str, jax.Array]
  num_groups: jax.Array
  num_rows: jax.Array
  penalties: dict[str, jax.Array]

  def elbo(self, kl_weights: Mapping[str, jax.Array] | None = None
           ) -> jax.Array:
    """Sum of the group ELBOs (eq. 3), or with weights on the KLs.

    It is for terms that `sum_terms` has added up.

    Args:
      kl_weights: by factor; 1 for those that it leaves out.

    Returns:
      A scalar; eq. 5 divides it by `num_groups`.

    Raises:
      ValueError: on the weight of an unknown factor.
    """
    kl_weights = kl_weights or {}
    if unknown := [name for name in kl_weights if name not in self.kl]:
      raise ValueError(
          f'kl_weights may only name {", ".join(self.kl)}, got {unknown}')
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
    free: Mapping[str, Normal] | None = None,
    axis_name: str | None = None,
) -> ElboTerms:
  """Estimates the ELBO of every group in a batch with one sample.

  Args:
    model: static.
    params: its parameters.
    key: consumed. Noise is a function of key, factor and `batch.rows` alone.
    batch: the rows, or this device's share of them. Groups may straddle
      devices: their evidence is summed over `axis_name`.
    num_groups: static number of groups per grouped factor.
    sample_per: 'row' draws a group's code for every member (algorithm 1),
      'group' once.
    free: posteriors that no encoder gives (SVI, fig. 3a): Normal of `[G, D]`
      per grouped factor, of `[N, D]` per ungrouped one.
    axis_name: mapped axis over which the batch is spread, if any.

  Returns:
    The terms.

  Raises:
    ValueError: on another `sample_per`, images that do not fit the model, or
      free posteriors or shares of KLs where an encoder gives the posteriors.
  """
  return elbo_of_codes(model, params, draw_codes(
      model, params, key, batch, num_groups, sample_per=sample_per, free=free,
      axis_name=axis_name))


def elbo_of_codes(model: Model, params: Params, drawn: Drawn) -> ElboTerms:
  """The terms of the ELBO (eqs. 3-5), estimated with the codes drawn.

  Args:
    model: static.
    params: its parameters.
    drawn: the batch's posteriors and codes.

  Returns:
    The terms.
  """
  # Eq. 3, first term: E[log p(x_i | c, s_i)], with one sample of c and s_i.
  logits = model.decode(params, drawn.codes)
  log_lik = jnp.where(drawn.batch.mask, model.likelihood.log_prob(
      logits, drawn.batch.x), 0.0)
  # Eq. 3, other terms: KL(s_i) of every row, and KL(c) once per group.
  kl = drawn.kl
  # Eqs. 4 and 5 average over the groups of the data, and of a batch.
  num_groups, num_rows = jnp.sum(drawn.group_share), jnp.sum(drawn.weights)
  return ElboTerms(drawn.weights * log_lik, kl, num_groups, num_rows, {})


def sum_terms(terms: ElboTerms) -> ElboTerms:
  """The terms, each summed over rows and groups to a scalar."""
  return jax.tree.map(jnp.sum, terms)


def warm_up(step: jax.Array, num_steps: int) -> jax.Array:
  """Linear warm-up from 1 / num_steps at step 0 to 1; 1 if num_steps is 0."""
  return jnp.minimum(1.0, (step + 1.0) / max(num_steps, 1))
