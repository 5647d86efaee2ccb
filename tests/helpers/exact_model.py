"""A linear-Gaussian model, whose likelihood and posteriors are known exactly.

x = W'z + 1/2 + noise, with orthogonal rows of W. Then the exact posterior of
(c, s_1, ..., s_n) given a group of n images is diagonal, with precisions
1 + n a_c and 1 + a_s, where a = |w|² / sigma². The encoder can express it: the
product must have the prior's precision of 1 once, so each of the n members
contributes a_c + 1/n.
"""

import jax
import jax.numpy as jnp
import numpy as np

from mlvae_jax.model.factors import ml_vae
from mlvae_jax.model.likelihoods.gaussian import Gaussian
from mlvae_jax.model.model import Model
from mlvae_jax.model.networks.mlp import MLP
from tests.helpers.small_models import SHAPE

SIGMA = 0.2
CONTENT_DIM, STYLE_DIM = 2, 1
LINEAR = Model(ml_vae(CONTENT_DIM, STYLE_DIM), SHAPE, Gaussian(SIGMA), MLP(()))


def weights():
  """Orthogonal rows `[D, pixels]`, content first."""
  rng = np.random.default_rng(0)
  basis, _ = np.linalg.qr(rng.normal(size=(64, CONTENT_DIM + STYLE_DIM)))
  return basis.T * np.array([[0.5], [0.25], [0.4]])


def linear_params(head_mean, head_bias, head_logvar):
  """Parameters of LINEAR, given the heads of [content..., style...]."""
  kernel = np.concatenate([head_mean, np.zeros_like(head_mean)], axis=1)
  bias = np.concatenate([head_bias, head_logvar])
  # Heads are the moments of one factor after the other.
  order = np.array([0, 1, 3, 4, 2, 5])
  params = {
      'encoder': {'heads': {'kernel': kernel[:, order], 'bias': bias[order]}},
      'decoder': {'pixels': {'kernel': weights(), 'bias': np.full(64, 0.5)}},
  }
  return jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), params)


def exact_heads(group_size):
  """(mean kernel, mean bias, logvar) whose product is the exact posterior."""
  w = weights()
  prior = np.array([1.0 / group_size] * CONTENT_DIM + [1.0] * STYLE_DIM)
  precision = np.square(w).sum(axis=1) / SIGMA ** 2 + prior
  kernel = w.T / SIGMA ** 2 / precision
  return kernel, -0.5 * kernel.sum(axis=0), -np.log(precision)


def sample_groups(num_groups, group_size):
  """Groups `[G, n, pixels]` drawn from the exact model."""
  rng = np.random.default_rng(1)
  c = rng.normal(size=(num_groups, 1, CONTENT_DIM))
  s = rng.normal(size=(num_groups, group_size, STYLE_DIM))
  z = np.concatenate([np.repeat(c, group_size, axis=1), s], axis=-1)
  noise = rng.normal(size=(num_groups, group_size, 64))
  return 0.5 + z @ weights() + SIGMA * noise


def log_evidence(groups):
  """Sum over groups of log p(X_G), from the joint Normal of their pixels."""
  _, n, _ = groups.shape
  w = weights()
  c, s = w[:CONTENT_DIM], w[CONTENT_DIM:]
  covariance = (np.kron(np.ones((n, n)), c.T @ c)
                + np.kron(np.eye(n), s.T @ s + SIGMA ** 2 * np.eye(64)))
  residual = groups.reshape(len(groups), -1) - 0.5
  distance = np.sum(residual * np.linalg.solve(covariance, residual.T).T)
  _, log_det = np.linalg.slogdet(2.0 * np.pi * covariance)
  return -0.5 * (distance + len(groups) * log_det)


def posterior_moments(groups, heads):
  """Moments (mean, variance) of contents `[G, D]` and styles `[G, n, D]`."""
  kernel, bias, logvar = heads
  mean = groups @ kernel + bias
  c, s = slice(0, CONTENT_DIM), slice(CONTENT_DIM, None)
  n = groups.shape[1]
  return ((mean[..., c].mean(axis=1), np.exp(logvar[c]) / n),
          (mean[..., s], np.exp(logvar[s])))


def posterior_gap(groups, heads):
  """KL(q || exact posterior), summed over groups: log p(X_G) - ELBO."""
  total = 0.0
  exact = posterior_moments(groups, exact_heads(groups.shape[1]))
  for (m_q, v_q), (m_p, v_p) in zip(posterior_moments(groups, heads), exact):
    total += 0.5 * np.sum(
        np.log(v_p / v_q) - 1.0 + (v_q + np.square(m_q - m_p)) / v_p)
  return total


def other_heads(name, group_size):
  """Heads that are not those of the exact posterior."""
  kernel, bias, logvar = exact_heads(group_size)
  content = np.array([1.0, 1.0, 0.0])
  return {
      'content mean': (kernel * (1 + 0.3 * content), bias, logvar),
      'content variance': (kernel, bias, logvar + 0.8 * content),
      'style mean': (kernel, bias + 0.5 * (1 - content), logvar),
      'style variance': (kernel, bias, logvar - 0.8 * (1 - content)),
      # The prior counted once per member instead of once per group.
      'prior per member': exact_heads(1),
      # Members do not know that they are `group_size`.
      'evidence not added': (
          kernel, bias, logvar + np.log(group_size) * content),
  }[name]
