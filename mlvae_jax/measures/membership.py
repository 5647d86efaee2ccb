"""Does an observation belong to a group? Ratios of likelihoods.

If an observation belongs to a group, its posterior q(c | x) and the posterior
q(c | X_G) given some members of the group are about the same code. By Bayes'
rule q(c | x) / p(c) is proportional to the likelihood p(x | c). So the
predictive density of x in the group, relative to that in a new group, of which
only the prior p(c) = N(0, I) is known, is

  p(x | X_G) / p(x) = integral of q(c | x) q(c | X_G) / p(c) dc.

The Normals are of one of two kinds:

- Those that include the prior, as a product with the prior does: the integral
  takes them as they are.
- Those of the paper's product (eqs. 6-7), which has no prior. If the Normals of
  members included it, their product would count it once per member; so each
  Normal is a message, exp(eta c - precision c^2 / 2), proportional to the
  likelihood. Times the prior, and normalised, it is the posterior that the
  integral takes. With Z(message) = integral of p(c) message(c) dc, the ratio is
  then Z(both) / (Z(one) Z(other)). It exists for any messages, and a message of
  precision 0 makes it 1.

The more precise the Normals are, the less their kind matters.

For the Normals that are given the integral is exact. (Only where posteriors
that include the prior are wider than it, which no exact posterior is, are they
narrowed: single rows' to the prior, groups' by the limits of float64.) The
ratio of likelihoods is exact only if the Normals of rows and groups are the
exact posteriors, or messages:

- `Product`, `PriorProduct`: for groups of any size, if each row's Normal is its
  likelihood p(x | c) up to a factor. Training with `Product` leads away from
  this: a row's Normal takes in a part of the prior, which then counts too
  often. This matters less the more evidence there is.
- `Moments`, `Harmonic`, `Adaptive` with all dimensions shared, `Mixture`: for
  groups of one row, if its Normal is the exact posterior. For larger groups
  the ratio is approximate: the variance of the group does not fall as evidence
  grows, so if the Normals of single rows are right the group's is too wide, and
  if the group's is right those of rows are too narrow. `Mixture` is further
  replaced by the Normal of its mean and variance, and so is `Adaptive` where
  dimensions are not shared, in which its model has no common code at all.
- `Free`: as far as optimisation finds the exact posteriors.
"""

from __future__ import annotations

import numpy as np

from mlvae_jax.grouping.normal import Normal

_MAX_LOGVAR = 300.0  # Products of two such variances still fit a float64.
_BLOCK = 1 << 22  # Numbers `[rows, G, D]` at a time, which bounds the memory.


def membership_scores(query: Normal, groups: Normal, *,
                      includes_prior: bool = False) -> np.ndarray:
  """Log predictive density of rows in each group, relative to a new group.

  If a row is as likely to come from one group as from another, probabilities
  of membership are the softmax of the scores over the groups.

  Args:
    query: Normal of `[Q, D]`, posteriors of single rows.
    groups: Normal of `[G, D]`, posteriors of groups, given other rows.
    includes_prior: whether these Normals include the prior; otherwise they are
      messages, as the paper's products are.

  Returns:
    `[Q, G]` float64 in nats, summed over D; above 0 where the group is more
    likely than a new one.

  Raises:
    ValueError: on wrong shapes, or Normals that are not finite.
  """
  rows = _posterior(query, includes_prior)
  known = _posterior(groups, includes_prior, widest=_MAX_LOGVAR)
  if rows[0].shape[1] != known[0].shape[1]:
    raise ValueError(
        'expected posteriors of the same number of dimensions, got '
        f'{rows[0].shape[1]} and {known[0].shape[1]}')
  step = max(1, _BLOCK // max(1, known[0].size))
  scores = np.empty((len(rows[0]), len(known[0])))
  for start in range(0, len(scores), step):
    block = slice(start, start + step)
    scores[block] = _log_ratio(
        tuple(value[block, None] for value in rows), known)
  return scores


def evidence_ratio(q_a: Normal, q_b: Normal, *,
                   includes_prior: bool = False) -> np.ndarray:
  """Log likelihood ratio: do two observations share one code?

  Args:
    q_a: Normal of `[P, D]`.
    q_b: Normal of `[P, D]`.
    includes_prior: as in `membership_scores`.

  Returns:
    `[P]` float64 in nats, summed over D; above 0 where a shared code is more
    likely.

  Raises:
    ValueError: on wrong shapes, or Normals that are not finite.
  """
  a, b = (_posterior(q, includes_prior) for q in (q_a, q_b))
  if a[0].shape != b[0].shape:
    raise ValueError('expected posteriors of one shape, got '
                     f'{list(a[0].shape)} and {list(b[0].shape)}')
  return _log_ratio(a, b)


def _log_ratio(a: tuple[np.ndarray, ...], b: tuple[np.ndarray, ...]
               ) -> np.ndarray:
  """Log of the integral of q_a q_b / p, summed over the last axis.

  In each dimension, with means m and M and variances v <= 1 and V, it is

    -1/2 log d + (V m^2 + v M^2 - (m - M)^2) / (2 d),
    where d = v + V (1 - v) = 1 - (1 - v) (1 - V).

  Args:
    a: means, variances v, and 1 - v with all its digits; `[..., D]` each.
    b: the same, of shapes that broadcast.

  Returns:
    `[...]` float64 in nats.
  """
  (m_a, v_a, rest_a), (m_b, v_b, rest_b) = a, b
  # Each form of d has lost digits of its logarithm where the other has not.
  common = rest_a * rest_b
  d = v_a + v_b * rest_a
  log_d = np.where(common < 0.5, np.log1p(-np.minimum(common, 0.5)), np.log(d))
  # Each term over d by itself: their products could overflow.
  distance = (np.square(m_a - m_b) / d - np.square(m_a) * (v_b / d)
              - np.square(m_b) * (v_a / d))
  return -0.5 * np.sum(log_d + distance, axis=-1)


def _posterior(q: Normal, includes_prior: bool, widest: float = 0.0
               ) -> tuple[np.ndarray, ...]:
  """The posterior as its mean, variance v and 1 - v: `[N, D]` in float64."""
  mean, logvar = (np.asarray(value, np.float64) for value in q)
  if mean.ndim != 2 or mean.shape != logvar.shape:
    raise ValueError(
        'expected posteriors of [N, D], got a mean of '
        f'{list(mean.shape)} and a logvar of {list(logvar.shape)}')
  if not (np.all(np.isfinite(mean)) and np.all(np.isfinite(logvar))):
    raise ValueError('expected finite posteriors, got NaN or infinity')
  logvar = np.clip(logvar, -_MAX_LOGVAR, _MAX_LOGVAR)
  if includes_prior:
    # If a row's were wider than the prior, by rounding or since its encoder is
    # free to be, its likelihood would grow without bound away from its mean.
    # The integral exists if one of the two is not wider.
    logvar = np.minimum(logvar, widest)
    return mean, np.exp(logvar), -np.expm1(logvar)
  rest = 1.0 / (1.0 + np.exp(logvar))
  return mean * rest, 1.0 / (1.0 + np.exp(-logvar)), rest
