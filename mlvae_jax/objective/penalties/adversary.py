"""Adversary: no classifier should find a row's group in its code.

The classifier, or critic, is trained together with the model, to predict the
group, while the penalty trains the encoder to make that impossible (Ganin et
al. 2016, arXiv 1505.07818). It sees standardised means: a classifier can find
in means what noise hides in codes. Its classes are the groups of the batch
(prototypical networks; Snell et al. 2017, arXiv 1703.05175), so that it needs
no list of groups, and works where each group has only a few rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from mlvae_jax.grouping.normal import at_least_float32
from mlvae_jax.objective.penalties.leakage import comparable_means
from mlvae_jax.objective.penalties.rows import Rows

_HIDDEN, _FEATURES = 256, 16


class Critic(nn.Module):
  """Features of codes `[N, D]` in which groups are told apart, `[N, F]`."""

  @nn.compact
  def __call__(self, z: jax.Array) -> jax.Array:
    for _ in range(2):
      z = nn.relu(nn.Dense(_HIDDEN)(z))
    return nn.Dense(_FEATURES)(z)


def init_critics(key: jax.Array, dim: int, others: Iterable[str]
                 ) -> dict[str, Any]:
  """Parameters of critics of `dim`-dimensional codes, by the other factor."""
  return {other: Critic().init(
      jax.random.fold_in(key, i), jnp.zeros((1, dim)))
          for i, other in enumerate(others)}


def adversary(rows: Rows, critics: Mapping[str, Any]) -> jax.Array:
  """What critics predict of the rows' other groups, in nats, `[N]`.

  Args:
    rows: the rows.
    critics: parameters of a critic for each of `rows.others`.

  Returns:
    The sum of `predicted` over the other groupings; 0 for padding. The encoder
    is trained to decrease it, the critics to increase it.
  """
  means = comparable_means(rows)
  return jnp.asarray(sum(
      predicted(Critic().apply(critics[name], means), other.group_ids,
                rows.mask, other.num_groups, axis_name=rows.axis_name)
      for name, other in rows.others.items()))


def predicted(
    features: jax.Array,
    group_ids: jax.Array,
    mask: jax.Array,
    num_groups: int,
    *,
    axis_name: str | None = None,
) -> jax.Array:
  """How much better than by chance features predict the rows' groups.

  A class is the mean of a group's features, without those of the row that is
  to be predicted; classes are predicted by the softmax of minus the squared
  distance.

  Args:
    features: `[N, F]`.
    group_ids: `[N]` ints in `[0, num_groups)`.
    mask: `[N]` bool, False for padding.
    num_groups: static number of groups, G.
    axis_name: mapped axis over which the batch is spread, if any.

  Returns:
    `[N]`, the log probability of the row's group plus the log of the number of
    groups, in nats: 0 where nothing is predicted. 0 for padding, and for rows
    that are alone in their group.
  """
  # NaN in padding must not reach the gradient.
  f = at_least_float32(jnp.where(mask[:, None], features, 0.0))
  real = mask.astype(f.dtype)
  total, count = (
      jax.ops.segment_sum(values, group_ids, num_groups)
      for values in (f, real))
  if axis_name is not None:
    total, count = jax.lax.psum((total, count), axis_name)
  # |f|^2 is the same for all classes of a row, so it does not matter.
  centre = total / jnp.maximum(count, 1.0)[:, None]
  logits = 2.0 * f @ centre.T - jnp.sum(centre ** 2, axis=-1)
  others = count[group_ids] - real
  own = (total[group_ids] - f) / jnp.maximum(others, 1.0)[:, None]
  own_logit = jnp.sum((2.0 * f - own) * own, axis=-1)
  # The row's own class is replaced by the one without the row.
  is_own = group_ids[:, None] == jnp.arange(num_groups)
  logits = jnp.where(is_own, own_logit[:, None], logits)
  logits = jnp.where(count > 0, logits, -jnp.inf)
  value = own_logit - jax.nn.logsumexp(
      jnp.where(mask[:, None], logits, 0.0), axis=-1) + jnp.log(
          jnp.maximum(jnp.sum(count > 0), 1))
  return jnp.where(mask & (others > 0), value, 0.0)
