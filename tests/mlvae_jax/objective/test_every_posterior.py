"""Every group posterior on a model that is solved exactly.

The exact q(c | X_G) multiplies the prior and a likelihood message of each image
(precision a, mean w'(x - 1/2) / |w|²): its precision is 1 + n a. What a group
posterior makes of it depends on what the rows' Normals are:

  messages             the product with the prior is exact, for any n
  messages and 1/n of  the product is exact, for this n alone
    the prior
  the group's variance the mean of moments and the harmonic mean are exact, for
    and n times the    this n alone
    row's part of the
    group's mean

A mixture is exact for none of them. The adaptive choice has another likelihood:
content of its own for each row, in the dimensions that are not shared.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlvae_jax.grouping.adaptive import Adaptive
from mlvae_jax.grouping.group_posteriors import GROUP_POSTERIORS
from mlvae_jax.grouping.mixture import Mixture
from mlvae_jax.grouping.moments import Moments
from mlvae_jax.grouping.product import Harmonic, PriorProduct, Product
from mlvae_jax.model.factors import Batch
from mlvae_jax.objective.elbo import elbo_terms, sum_terms
from tests.helpers.exact_model import (
    CONTENT_DIM,
    LINEAR,
    SIGMA,
    exact_heads,
    linear_params,
    log_evidence,
    sample_groups,
    weights,
)
from tests.helpers.small_models import KEY, SHAPE

_CONTENT = slice(0, CONTENT_DIM)
_ENCODED = [kind() for kind in GROUP_POSTERIORS.values() if kind.has_encoder]


def _heads(name, n):
  """Kernels `[pixels, 3]` and biases `[3]` of rows' means and logvars."""
  if name == 'whole group':
    kernel, _, logvar = exact_heads(np.inf)
    precision = np.exp(-logvar)
    whole = 1.0 + n * precision
    # The style's stays.
    scale, is_content = n * precision / whole, np.arange(3) < CONTENT_DIM
    kernel = np.where(is_content, scale * kernel, kernel)
    logvar = np.where(is_content, -np.log(whole), logvar)
    bias = -0.5 * kernel.sum(axis=0)
  else:
    share = n if name == 'share of the prior' else np.inf
    kernel, bias, logvar = exact_heads(share)
  of_logvar = np.zeros_like(kernel)
  if name == 'uneven':  # Some rows are more certain than others.
    of_logvar[:, _CONTENT] = np.random.default_rng(4).normal(
        size=(64, CONTENT_DIM)) * 0.4
  return kernel, bias, of_logvar, logvar - 0.5 * of_logvar.sum(axis=0)


def _params(heads):
  kernel, bias, of_logvar, logvar = heads
  params = linear_params(kernel, bias, logvar)
  # The columns of content's logvar follow those of its mean.
  where = slice(CONTENT_DIM, 2 * CONTENT_DIM)
  found = params['encoder']['heads']['kernel']
  params['encoder']['heads']['kernel'] = found.at[:, where].set(
      of_logvar[:, _CONTENT])
  return params


def _kl(mean, var, other_mean, other_var):
  return 0.5 * np.sum(np.log(other_var / var) - 1.0 + (
      var + np.square(mean - other_mean)) / other_var)


def _kl_of_mixture(mean, var, other_mean, other_var):
  """KL(mixture of rows `[n, 2]` || a Normal), on a grid."""
  std = np.sqrt(var)
  low, high = (mean - 7 * std).min(axis=0), (mean + 7 * std).max(axis=0)
  axes = [np.linspace(a, b, 400) for a, b in zip(low, high)]
  c = np.stack(np.meshgrid(*axes, indexing='ij'), axis=-1)

  def density(mean, var):
    return np.prod(np.exp(-0.5 * np.square(c - mean) / var)
                   / np.sqrt(2 * np.pi * var), axis=-1)

  q = np.mean([density(m, v) for m, v in zip(mean, var)], axis=0)
  log_p = -0.5 * np.sum(np.square(c - other_mean) / other_var
                        + np.log(2 * np.pi * other_var), axis=-1)
  cell = np.prod((high - low) / 399)
  return cell * np.sum(q * (np.log(np.maximum(q, 1e-300)) - log_p))


def _combined(kind, mean, var):
  """Mean and variance of a group's content, of rows `[n, 2]`."""
  total = np.sum(1 / var, axis=0)
  product = np.sum(mean / var, axis=0) / total
  return {
      Product(): (product, 1 / total),
      PriorProduct(): (product * total / (1 + total), 1 / (1 + total)),
      Harmonic(): (product, len(var) / total),
      Moments(): (mean.mean(axis=0), var.mean(axis=0)),
  }[kind]


def _shared(kind, mean, var):
  """`[2]` bool, which dimensions of content a group shares."""
  if kind != Adaptive() or len(mean) == 1:
    return np.ones(CONTENT_DIM, bool)
  average = var.mean(axis=0)
  delta = 0.5 * np.mean(
      np.log(average / var) - 1.0 + (
          var + np.square(mean - mean.mean(axis=0))) / average, axis=0)
  return delta < (delta.max() + delta.min()) / 2


def _gap(kind, group, heads):
  """log p(X_G) - ELBO of a group `[n, pixels]`: KL(q || exact posterior)."""
  kernel, bias, of_logvar, logvar = heads
  mean, var = group @ kernel + bias, np.exp(group @ of_logvar + logvar)
  message, _, message_logvar = exact_heads(np.inf)
  means = (group - 0.5) @ message[:, _CONTENT]
  a, n = np.exp(-message_logvar[_CONTENT]), len(group)
  whole = 1 + n * a
  exact = means.sum(axis=0) * a / whole, 1 / whole
  mean, var = mean[:, _CONTENT], var[:, _CONTENT]
  # Styles' posteriors are exact, so that the content's gap is all.
  if kind == Mixture():
    return _kl_of_mixture(mean, var, *exact)
  if kind != Adaptive():
    return _kl(*_combined(kind, mean, var), *exact)
  is_shared = _shared(kind, mean, var)
  average = mean.mean(axis=0), var.mean(axis=0)
  own = ~is_shared
  return _kl(*(v[is_shared] for v in (*average, *exact))) + _kl(
      mean[:, own], var[:, own], means[:, own] * a[own] / (1 + a[own]),
      1 / (1 + a[own]))


def _log_evidence(kind, group, heads):
  """log p(X_G), with content of each row's own where it is not shared."""
  kernel, bias, of_logvar, logvar = heads
  mean, var = group @ kernel + bias, np.exp(group @ of_logvar + logvar)
  is_shared = _shared(kind, mean[:, _CONTENT], var[:, _CONTENT])
  if is_shared.all():
    return log_evidence(group[None])
  w, n = weights(), len(group)
  shared, own = w[_CONTENT][is_shared], np.concatenate(
      [w[_CONTENT][~is_shared], w[CONTENT_DIM:]])
  covariance = np.kron(np.ones((n, n)), shared.T @ shared) + np.kron(
      np.eye(n), own.T @ own + SIGMA ** 2 * np.eye(64))
  residual = group.reshape(-1) - 0.5
  _, log_det = np.linalg.slogdet(2 * np.pi * covariance)
  return -0.5 * (log_det + residual @ np.linalg.solve(covariance, residual))


@functools.partial(jax.jit, static_argnums=0)
def _draw_elbos(model, params, x, ids):
  """Draws of the sum of the group ELBOs."""
  batch = Batch(x, {'content': ids}, jnp.ones(len(ids), bool),
                jnp.arange(len(ids)))
  return jax.vmap(lambda key: sum_terms(elbo_terms(
      model, params, key, batch, {'content': 3})).elbo())(
          jax.random.split(KEY, 2000))


def _elbo(kind, groups, heads):
  """Mean over draws of the ELBO of all groups, and its standard error."""
  model = dataclasses.replace(LINEAR, group_posterior=kind)
  num_groups, n, _ = groups.shape
  draws = np.asarray(_draw_elbos(
      model, _params(heads), groups.reshape(-1, *SHAPE).astype(np.float32),
      np.arange(num_groups * n) // n), np.float64)
  return draws.mean(), draws.std() / np.sqrt(len(draws))


# Of one row, the other kinds make what the product does.
@pytest.mark.parametrize(('kind', 'name', 'n'), [
    (Product(), 'messages', 1), (PriorProduct(), 'messages', 1),
    *((kind, name, 4) for kind in _ENCODED for name in (
        'messages', 'share of the prior', 'whole group', 'uneven'))])
def test_the_elbo_is_the_log_evidence_less_the_kl_of_the_posteriors(
    kind, name, n):
  groups, heads = sample_groups(3, n), _heads(name, n)
  mean, error = _elbo(kind, groups, heads)
  evidence, gap = (sum(function(kind, group, heads) for group in groups)
                   for function in (_log_evidence, _gap))
  assert gap >= 0 and error < 0.3 + 0.01 * gap
  assert abs(mean - (evidence - gap)) < 4 * error
  assert mean < evidence + 4 * error


def _gaps(name, n, heads_for=None):
  """Gaps by kind, where all dimensions are shared; mean over 20 groups."""
  heads = _heads(name, heads_for or n)
  return {kind: np.mean([_gap(kind, group, heads)
                         for group in sample_groups(20, n)])
          for kind in (Product(), PriorProduct(), Moments(), Harmonic())}


def test_messages_make_the_product_with_the_prior_exact_for_any_size():
  for n in (1, 3, 10):
    gaps = _gaps('messages', n)
    assert abs(gaps[PriorProduct()]) < 1e-10
    # Without the prior the product lacks 1 of 1 + n a: less and less.
    assert gaps[Product()] > 1e-4
    if n == 1:  # One row is what it is in all other kinds.
      np.testing.assert_allclose(gaps[Moments()], gaps[Product()], rtol=1e-9)
    else:  # The others do not add evidence up.
      assert gaps[Product()] < 0.1 * min(gaps[Moments()], gaps[Harmonic()])
  assert _gaps('messages', 10)[Product()] < 0.2 * _gaps(
      'messages', 1)[Product()]


def test_messages_are_better_multiplied_than_mixed():
  heads = _heads('messages', 4)
  for group in sample_groups(3, 4):
    assert _gap(Product(), group, heads) < 0.1 * _gap(Mixture(), group, heads)


@pytest.mark.parametrize(('name', 'exact'), [
    ('share of the prior', [Product()]),
    ('whole group', [Moments(), Harmonic()])])
def test_the_others_are_exact_for_one_size_of_group(name, exact):
  gaps, of_others = _gaps(name, 4), _gaps(name, 2, heads_for=4)
  for kind, gap in gaps.items():
    if kind in exact:
      assert abs(gap) < 1e-10 and of_others[kind] > 1e-3
    else:
      assert gap > 1e-3


def test_an_adaptive_bound_is_not_one_on_a_likelihood_of_shared_content():
  # The second dimension of content differs within the groups.
  rng = np.random.default_rng(0)
  groups = sample_groups(3, 4)
  groups = groups + 2.0 * rng.normal(size=(3, 4, 1)) * weights()[1]
  heads = _heads('share of the prior', 1)
  mean, error = _elbo(Adaptive(), groups, heads)
  own = sum(_log_evidence(Adaptive(), group, heads) for group in groups)
  assert log_evidence(groups) < mean - 4 * error
  assert mean < own + 4 * error


def test_an_uncertain_image_costs_the_product_with_the_prior_little():
  # The product pays for a variance of e14; with the prior it is at most 1.
  groups = sample_groups(3, 1)
  kernel, bias, of_logvar, logvar = _heads('messages', 1)
  heads = kernel, bias, of_logvar, logvar + np.array([14.0, 14.0, 0.0])
  (product, _), (with_prior, error) = (
      _elbo(kind, groups, heads) for kind in (Product(), PriorProduct()))
  evidence = log_evidence(groups)
  gap = sum(_gap(PriorProduct(), group, heads) for group in groups)
  assert product < evidence - 1e6
  assert gap < 30 and error < 1
  assert abs(with_prior - (evidence - gap)) < 4 * error
