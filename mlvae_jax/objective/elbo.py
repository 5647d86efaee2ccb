"""The group Evidence Lower Bound (paper eqs. 3-5).

For a group G, with content c shared by its members and styles s_i:

  ELBO(G) = sum_i E[log p(x_i | c, s_i)] - sum_i KL(s_i) - KL(c),

the last term once per group; the objective is its average over groups. Sums
and counts are kept apart until the end, so that averages are over real rows
and groups whatever the padding, and over all devices.
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
    kl: KLs to the prior, `[G]` per grouped factor, `[N]` per ungrouped one; 0
      for absent groups.
    num_groups: number of groups of the first grouped factor that are present
      (of rows where no factor is grouped); with `batch.kl_share` the sum of
      the shares.
    num_rows: number of real rows or, with `batch.weights`, the number of rows
      that they represent.
    penalties: penalties of training, keyed 'kind/factor', `[N]` each without
      their weights; not part of the ELBO.

  Where a batch is spread over devices these are the device's shares, whose sums
  over the devices are the terms of the whole batch.
  """

  log_lik: jax.Array
  kl: dict[str, jax.Array]
  num_groups: jax.Array
  num_rows: jax.Array
  penalties: dict[str, jax.Array]

  def elbo(self, kl_weights: Mapping[str, jax.Array] | None = None
           ) -> jax.Array:
    """Sum of the group ELBOs (eq. 3), optionally with weights on the KLs.

    Call it on terms that `sum_terms` has summed.

    Args:
      kl_weights: weights by factor; 1 for factors that it leaves out.

    Returns:
      A scalar in nats; divided by `num_groups` it is the average of eq. 5.

    Raises:
      ValueError: on the weight of an unknown factor.
    """
    kl_weights = kl_weights or {}
    if unknown := [name for name in kl_weights if name not in self.kl]:
      raise ValueError(
          f'kl_weights may only name the factors {", ".join(self.kl)}, got '
          f'{unknown}')
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
    The terms.

  Raises:
    ValueError: on an unknown `sample_per`, images that do not fit the model, or
      free posteriors or shares of KLs where an encoder gives the posteriors.
  """
  return elbo_of_codes(model, params, draw_codes(
      model, params, key, batch, num_groups, sample_per=sample_per, free=free,
      axis_name=axis_name))


def elbo_of_codes(model: Model, params: Params, drawn: Drawn) -> ElboTerms:
  """Estimates the terms of the ELBO (eqs. 3-5) with codes that were drawn.

  Args:
    model: the model; static.
    params: the model's parameters.
    drawn: the batch's posteriors and codes.

  Returns:
    The terms.
  """
  # Eq. 3, first term: E[log p(x_i | c, s_i)], with one sample of c and s_i.
  logits = model.decode(params, drawn.codes)
  log_lik = jnp.where(drawn.batch.mask, model.likelihood.log_prob(
      logits, drawn.batch.x), 0.0)
  # Eq. 3, other terms: KL(s_i) of every row, and KL(c) once per group. They are
  # exact where the posteriors are Normals; only the likelihood is sampled.
  kl = drawn.kl
  # Eq. 4 averages over the groups of the data, eq. 5 over those of a batch.
  num_groups, num_rows = jnp.sum(drawn.group_share), jnp.sum(drawn.weights)
  # With unbiased subsampling a row stands for several rows of its group.
  return ElboTerms(drawn.weights * log_lik, kl, num_groups, num_rows, {})


def sum_terms(terms: ElboTerms) -> ElboTerms:
  """Sums each of the terms over rows and groups to a scalar."""
  return jax.tree.map(jnp.sum, terms)


def warm_up(step: jax.Array, num_steps: int) -> jax.Array:
  """Linear warm-up: 1 / num_steps at step 0, 1 from step num_steps - 1 on.

  Args:
    step: number of steps taken so far, a scalar.
    num_steps: static number of steps to warm up; 0 for none.

  Returns:
    A scalar in (0, 1].
  """
  return jnp.minimum(1.0, (step + 1.0) / max(num_steps, 1))
