"""Contrast: a row's code should reveal the row's group within the batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mlvae_jax.grouping.normal import at_least_float32
from mlvae_jax.objective.penalties.rows import Rows, mean_where, pairs

_MIN_NORM = 0.01  # Far below the norm of codes, about sqrt(D) under the prior.


def contrast(rows: Rows) -> jax.Array:
  """`contrastive_loss` of the rows' means, `[N]`."""
  if rows.group_ids is None:
    raise ValueError('contrast is a penalty of grouped factors')
  return contrastive_loss(
      rows.q.mean, rows.group_ids, rows.mask, axis_name=rows.axis_name)


def contrastive_loss(
    means: jax.Array,
    group_ids: jax.Array,
    mask: jax.Array,
    *,
    temperature: float = 0.1,
    axis_name: str | None = None,
) -> jax.Array:
  """How badly a row's code predicts the row's group within a batch.

  The supervised contrastive loss of Khosla et al. (arXiv 2004.11362),

    -mean over rows j of i's group of log softmax_j(cos(m_i, m_j) / T),

  j over all other real rows. As a penalty it makes the codes of single images
  recognisable, which the ELBO alone does not demand: there a group's code only
  has to be good once the evidence of all members is combined.

  Args:
    means: `[N, D]` posterior means of single rows.
    group_ids: `[N]` ints, the group of each row.
    mask: `[N]` bool, False for padding.
    temperature: temperature T of the softmax.
    axis_name: mapped axis over which the batch is spread, if any.

  Returns:
    `[N]` in nats; 0 for padding, and for rows that are alone in their group.
  """
  # Zeroed before the norm is taken: NaN in padding must not reach the gradient.
  unit = _unit(jnp.where(mask[:, None], means, 0.0))
  everyone, same, different = pairs(unit, group_ids, mask, axis_name)
  others = same | different
  # -inf leaves out of the softmax the row itself, and padding.
  logits = jnp.where(others, unit @ everyone.T / temperature, -jnp.inf)
  # Where there are no others at all, log_softmax of -inf alone would be NaN.
  logits = jnp.where(jnp.any(others, axis=1, keepdims=True), logits, 0.0)
  return -mean_where(same, jax.nn.log_softmax(logits))


def _unit(means: jax.Array) -> jax.Array:
  """Rows `[N, D]` divided by their norms, or by `_MIN_NORM` if it is larger."""
  means = at_least_float32(means)
  # The gradient of a direction grows without bound as a row approaches 0, and
  # at 0 it is NaN. The smallest norm bounds it.
  square = jnp.sum(jnp.square(means), axis=-1, keepdims=True)
  return means / jnp.sqrt(jnp.maximum(square, _MIN_NORM ** 2))
