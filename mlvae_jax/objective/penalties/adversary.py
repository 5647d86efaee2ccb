"""Adversary: no classifier should predict a row's group from its code.

The classifier, or critic, is trained alongside the model to predict the group,
while the penalty trains the encoder to make that impossible (Ganin et al. 2016,
arXiv 1505.07818). It sees standardised means, since noise hides in samples what
a classifier can find in means. It chooses among the groups of the batch.

A grouped code may reveal whatever its own group determines, so only deviations
from the group's mean are penalised. But what a deviation says may depend on the
group: fonts change each letter in another way. So the critic is told the
group's mean too, of which the encoder gets no gradient.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from mlvae_jax.grouping.normal import at_least_float32
from mlvae_jax.model.factors import Factor
from mlvae_jax.objective.penalties.leakage import (
    around_groups,
    comparable_means,
    standardize,
)
from mlvae_jax.objective.penalties.rows import Other, Rows

_HIDDEN, _FEATURES = 256, 16
# If there are more groups than this, some share a class. Few groups of a batch
# do, and confusing them makes a critic weaker, not wrong.
_NUM_CLASSES = 4096


class _Features(nn.Module):
  """Features of codes `[N, D]` that distinguish groups, `[N, F]`."""

  @nn.compact
  def __call__(self, z: jax.Array) -> jax.Array:
    for _ in range(2):
      z = nn.relu(nn.Dense(_HIDDEN)(z))
    return nn.Dense(_FEATURES)(z)


class Critic(NamedTuple):
  """Parameters of a classifier of one grouping.

  Attributes:
    network: parameters of the layers from codes to features `[N, F]`.
    weights: `[classes, F]`.
    biases: `[classes]`.
  """

  network: Any
  weights: jax.Array
  biases: jax.Array


def init_critics(key: jax.Array, factor: Factor, others: Iterable[str]
                 ) -> dict[str, Critic]:
  """Critics of a factor's codes, by the name of the other factor."""
  critics, dim = {}, factor.dim * (1 if factor.grouping is None else 2)
  for i, other in enumerate(others):
    keys = jax.random.split(jax.random.fold_in(key, i))
    critics[other] = Critic(
        _Features().init(keys[0], jnp.zeros((1, dim))),
        jax.random.normal(keys[1], (_NUM_CLASSES, _FEATURES))
        * _FEATURES ** -0.5, jnp.zeros(_NUM_CLASSES))
  return critics


def adversary(rows: Rows, critics: Mapping[str, Critic]) -> jax.Array:
  """What critics predict of the rows' other groups, in nats, `[N]`.

  Args:
    rows: the rows.
    critics: a critic for each of `rows.others`.

  Returns:
    The sum of `predicted` over the other groupings; 0 for padding. The encoder
    is trained to decrease it, the critics to increase it.
  """
  z = _inputs(rows)
  return jnp.asarray(sum(
      predicted(critics[name], z, other, rows.mask, axis_name=rows.axis_name)
      for name, other in rows.others.items()))


def _inputs(rows: Rows) -> jax.Array:
  """What critics see of the rows, `[N, D]`; of a grouped factor `[N, 2 D]`."""
  means = comparable_means(rows)
  if rows.group_ids is None or rows.num_groups is None:
    return means
  of_group = rows.q.mean - around_groups(
      rows.q.mean, rows.group_ids, rows.mask, rows.num_groups,
      axis_name=rows.axis_name)
  return jnp.concatenate([means, jax.lax.stop_gradient(standardize(
      of_group, rows.mask, axis_name=rows.axis_name))], axis=-1)


def predicted(critic: Critic, z: jax.Array, other: Other, mask: jax.Array, *,
              axis_name: str | None = None) -> jax.Array:
  """How much better a critic predicts the rows' groups than their frequencies.

  Args:
    critic: the critic.
    z: `[N, D]` codes, finite for padding too.
    other: the grouping to predict, of G groups in the batch.
    mask: `[N]` bool, False for padding.
    axis_name: mapped axis over which the batch is spread, if any.

  Returns:
    `[N]` in nats: log probability of the row's group among the groups that have
    rows in the batch, with their shares of these rows as prior, less the log of
    its own share. 0 for padding, and for a critic that knows nothing. The
    average over rows is at most the entropy of the shares, and expected to be
    at most the mutual information of codes and groups.
  """
  features = at_least_float32(_Features().apply(critic.network, z))
  count = jax.ops.segment_sum(
      mask.astype(jnp.int32), other.group_ids, other.num_groups)
  if axis_name is not None:
    count = jax.lax.psum(count, axis_name)
  classes = other.numbers % _NUM_CLASSES
  logits = features @ critic.weights[classes].T + critic.biases[classes]
  own = jnp.take_along_axis(logits, other.group_ids[:, None], axis=-1)[:, 0]
  # With the shares of the groups in this batch as their prior, so that a critic
  # only has to learn what codes say. Without any rows the sum would be 0, and
  # its logarithm NaN in gradients.
  share = jnp.where(jnp.sum(count) == 0, 1.0, count) / jnp.maximum(
      jnp.sum(count), 1)
  return jnp.where(
      mask, own - jax.nn.logsumexp(logits, b=share, axis=-1), 0.0)
