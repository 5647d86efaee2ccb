"""An importance-weighted bound on the log likelihood of a group.

For a group G with content c and a style s_i of each of its images, K outer
samples c_k ~ q(c | X_G) and for each of them L inner samples per image
s_il ~ q(s | x_i, c_k) give

  p_hat(x_i | c_k) = mean_l p(x_i | c_k, s_il) p(s_il) / q(s_il | x_i, c_k)
  p_hat(X_G) = mean_k p(c_k) / q(c_k | X_G) prod_i p_hat(x_i | c_k).

Given c_k the estimates of different images are independent, so the mean of
their product is the product of their means: p_hat(X_G) is unbiased for p(X_G),
and by Jensen's inequality the mean of its logarithm is at most log p(X_G). It
rises with K and with L. At K = L = 1 it is the group ELBO (paper eq. 3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import functools

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from mlvae_jax.grouping.checks import check_count, check_group_ids
from mlvae_jax.grouping.normal import Normal, at_least_float32
from mlvae_jax.grouping.row_noise import row_noise
from mlvae_jax.grouping.segment_sum import segment_sum
from mlvae_jax.model.factors import Factor
from mlvae_jax.model.model import Model, Params

Codes = dict[str, jax.Array]


def group_likelihood_bound(
    model: Model,
    params: Params,
    x: ArrayLike,
    group_ids: ArrayLike | None = None,
    num_groups: int | None = None,
    *,
    key: jax.Array,
    num_outer: int | Sequence[int] = 64,
    num_inner: int | Sequence[int] = 16,
    mask: ArrayLike | None = None,
    free: Mapping[str, Normal] | None = None,
) -> jax.Array:
  """Estimates a lower bound on log p(X_G) of every group.

  Samples are taken one after the other, so the memory is that of decoding the N
  rows once, whatever the number of samples. Where the group posterior is not
  Normal (`GroupPosterior.is_normal`), codes are drawn from the Normal of the
  same mean and variance, as `encode_group` gives it: the bound holds whatever
  distribution codes are drawn from, but is then not the ELBO at K = L = 1.

  Args:
    model: the model; static. `why_no_bound` says which have none.
    params: the model's parameters.
    x: `[N, ...]` observations, with values that the likelihood can have.
    group_ids: `[N]` integers in `[0, num_groups)`, in any order; None where no
      factor is grouped, and each row is a group of its own.
    num_groups: static int, G; given together with group_ids.
    key: random key; consumed.
    num_outer: static number K of samples of a group's codes; or S numbers, for
      S bounds, which the first of the same samples give.
    num_inner: static number L of samples of a row's codes for each of them; or
      S numbers.
    mask: optional `[N]` bool; False drops a row, even one of NaN.
    free: posteriors of a model without an encoder (SVI): Normal of `[G, D]` per
      grouped factor, of `[N, D]` per ungrouped one.

  Returns:
    `[G]` (`[N]` without groups), in nats: a draw of log p_hat(X_G), whose mean
    is a lower bound; 0 for a group without rows. `[S, G]` for S numbers.

  Raises:
    ValueError: on wrong shapes, dtypes, ranges or ids, a model that has no
      bound, or free posteriors that are missing or not needed.
  """
  if reason := why_no_bound(model):
    raise ValueError(f'there is no bound for this model: {reason}')
  _check_given(model, group_ids, num_groups, free)
  x = model.prepare(x, mask)
  if group_ids is None or num_groups is None:
    group_ids, num_groups = jnp.arange(x.shape[0]), max(x.shape[0], 1)
  ids, mask = check_group_ids(group_ids, x.shape[0], num_groups, mask)
  if free is not None:
    free = _check_free(model, free, x.shape[0], num_groups)
  samples = _pairs(num_outer, num_inner)
  found = _bound(
      model, params, key, x, ids, mask, free, int(num_groups), samples)
  is_one = np.ndim(num_outer) == np.ndim(num_inner) == 0
  return found[0] if is_one else jnp.stack(found)


def why_no_bound(model: Model) -> str:
  """Why there is no bound on the log likelihood of a model's groups.

  Args:
    model: the model.

  Returns:
    The reason; '' if there is a bound.
  """
  if len(model.groupings) > 1:
    return (f'groups of several groupings ({", ".join(model.groupings)}) '
            'overlap, so the likelihood is not a product over groups')
  if model.grouped and not model.group_posterior.shares_all:
    return (f'with {model.group_posterior} the members of a group share only '
            'some dimensions of its code')
  for factor in model.grouped:
    if alone := [name for name in factor.given
                 if model.factor(name).grouping is None]:
      return (f'the grouped factor {factor.name!r} is given '
              f'{", ".join(alone)}, which differs between the members')
  return ''


def _pairs(num_outer: int | Sequence[int], num_inner: int | Sequence[int]
           ) -> tuple[tuple[int, int], ...]:
  """Pairs (K, L) of numbers of samples."""
  numbers = {'num_outer': num_outer, 'num_inner': num_inner}
  lists = [[check_count(one, name) for one in np.atleast_1d(given).tolist()]
           for name, given in numbers.items()]
  if len(lists[0]) != len(lists[1]) or not lists[0]:
    raise ValueError(
        'expected num_outer and num_inner to be two numbers, or equally many, '
        f'got {num_outer} and {num_inner}')
  return tuple(zip(*lists))


def _check_given(model: Model, group_ids: ArrayLike | None,
                 num_groups: int | None, free: Mapping[str, Normal] | None
                 ) -> None:
  if (group_ids is None) != (num_groups is None) or (
      group_ids is None) != (not model.grouped):
    raise ValueError(
        'expected group_ids and num_groups if a factor is grouped, otherwise '
        f'neither, got {type(group_ids).__name__} and {num_groups} for the '
        f'grouped factors {[f.name for f in model.grouped]}')
  if (free is None) != model.has_encoder:
    raise ValueError(
        'expected free posteriors for a model without an encoder, and none for '
        f'others, got {None if free is None else list(free)}')


def _check_free(model: Model, free: Mapping[str, Normal], num_rows: int,
                num_groups: int) -> dict[str, Normal]:
  """The free posteriors of the model's factors, with shapes that fit."""
  found = {}
  for factor in model.factors:
    expected = num_groups if factor.grouping else num_rows, factor.dim
    shapes = [list(jnp.shape(value)) for value in free.get(factor.name, ())]
    # JAX would take the last group's for those that are missing.
    if shapes != 2 * [list(expected)]:
      raise ValueError(
          f'expected free posteriors of {factor.name!r} as a Normal of '
          f'{list(expected)}, got {shapes or "none"}')
    found[factor.name] = Normal(*map(jnp.asarray, free[factor.name]))
  return found


@functools.partial(jax.jit, static_argnums=(0, 7, 8))
def _bound(model, params, key, x, ids, mask, free, num_groups, samples):
  """Does what `group_likelihood_bound` promises, after its checks."""
  rows = model.encode_rows(params, x) if model.has_encoder else None
  num_outer, num_inner = map(max, zip(*samples))

  def row_posterior(factor: Factor, codes: Codes) -> Normal:
    """q of each row alone, or the free posteriors."""
    q = free[factor.name] if rows is None else model.posterior(
        params, factor, rows, codes)
    # Free posteriors of groups are not those of rows: no row is padding.
    return q if rows is None and factor.grouping else q.masked(mask)

  def outer(key: jax.Array) -> tuple[jax.Array, dict[int, jax.Array]]:
    """log p(c) / q(c | X_G) `[G]` and log p_hat(x_i | c) `[N]` for one c.

    The latter for each number of inner samples.
    """
    group_key, row_key = jax.random.split(key)
    codes, log_ratio = {}, jnp.zeros(num_groups)
    for factor, factor_key in _with_keys(model.grouped, group_key):
      q = row_posterior(factor, codes)
      if rows is not None:
        q = model.group_posterior.combine(q, ids, num_groups, mask)
      code, ratio = _draw(factor_key, q)
      # One code per group, since its members are not independent otherwise.
      codes[factor.name] = code[ids]
      log_ratio += ratio
    log_p = jax.lax.map(
        functools.partial(inner, codes), jax.random.split(row_key, num_inner))
    return log_ratio, {number: _log_mean_exp(log_p[:number])
                       for _, number in samples}

  def inner(codes: Codes, key: jax.Array) -> jax.Array:
    """log [p(x_i | c, s_i) p(s_i) / q(s_i | x_i, c)] `[N]` for one s_i."""
    codes, log_ratio = dict(codes), jnp.zeros(x.shape[0])
    ungrouped = [f for f in model.factors if f.grouping is None]
    for factor, factor_key in _with_keys(ungrouped, key):
      codes[factor.name], ratio = _draw(
          factor_key, row_posterior(factor, codes))
      log_ratio += ratio
    logits = model.decode(params, codes)
    return model.likelihood.log_prob(logits, x) + log_ratio

  log_ratio, all_log_p = jax.lax.map(outer, jax.random.split(key, num_outer))
  is_present = jax.ops.segment_max(
      mask.astype(jnp.int32), ids, num_groups) > 0

  def bound(num_outer: int, num_inner: int) -> jax.Array:
    """The bound `[G]` by the first samples."""
    # Padding may give anything; `where`, since 0 * NaN is NaN.
    log_p = jnp.where(mask, all_log_p[num_inner][:num_outer], 0.0)
    # Less each row's largest, what is left is small: the rounding errors of
    # long sums would differ between samples, and the largest of them would win.
    largest = jax.lax.stop_gradient(jnp.max(log_p, axis=0))
    largest = jnp.where(jnp.isfinite(largest), largest, 0.0)
    log_lik = segment_sum((log_p - largest).T, ids, num_groups).T
    found = _log_mean_exp(log_ratio[:num_outer] + log_lik) + segment_sum(
        largest, ids, num_groups)
    return jnp.where(is_present, found, 0.0)

  return [bound(*numbers) for numbers in samples]


def _with_keys(factors, key: jax.Array):
  """Pairs of factors and random keys."""
  return list(zip(factors, jax.random.split(key, max(len(factors), 1))))


def _draw(key: jax.Array, q: Normal) -> tuple[jax.Array, jax.Array]:
  """Draws codes z `[M, D]` of q, with log p(z) - log q(z), `[M]`."""
  mean, logvar = map(at_least_float32, q)
  # A function of key and row, so that padding does not change the noise.
  noise = row_noise(key, jnp.arange(mean.shape[0]), mean.shape[1])
  z = q.reparameterize(noise)
  # The density by the noise: z may have few digits of its distance to the mean.
  log_ratio = jnp.square(noise) + logvar - jnp.square(z)
  return z, 0.5 * jnp.sum(log_ratio, axis=-1)


def _log_mean_exp(values: jax.Array) -> jax.Array:
  """log of the mean of exp over the first axis: `[K, M]` to `[M]`."""
  return jax.nn.logsumexp(values, axis=0) - jnp.log(len(values))
