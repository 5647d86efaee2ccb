"""Small models and batches, for tests of the objective and its penalties."""

import jax
import jax.numpy as jnp
import numpy as np

from mlvae_jax.model.factors import Batch, ml_vae
from mlvae_jax.model.likelihoods.gaussian import LearnedGaussian
from mlvae_jax.model.model import Model
from mlvae_jax.model.networks.mlp import MLP
from mlvae_jax.objective.draws import draw_codes
from mlvae_jax.objective.elbo import elbo_of_codes
from mlvae_jax.objective.penalties.registry import penalty_terms

SHAPE = (8, 8, 1)
MODEL = Model(ml_vae(3, 2), SHAPE, LearnedGaussian(), MLP((16,)))
KEY = jax.random.key(7)


def make_batch(model, ids, seed=0, mask=None):
  """A batch of random images, the same ids for every grouped factor."""
  ids = np.asarray(ids, np.int32)
  x = np.random.default_rng(seed).random((len(ids), *SHAPE), np.float32)
  mask = np.ones(len(ids), bool) if mask is None else mask
  return Batch(x, {f.name: ids for f in model.grouped}, mask,
               np.arange(len(ids), dtype=np.int32))


def init_params(model, seed=0):
  """Parameters of the size that training starts with, biases too."""
  rng = np.random.default_rng(seed)
  return jax.tree.map(
      lambda leaf: jnp.asarray(
          rng.normal(0.0, leaf.shape[0] ** -0.5, leaf.shape), jnp.float32),
      jax.eval_shape(model.init, jax.random.key(0)))


def penalised_terms(model, params, key, batch, num_groups, penalties):
  """Terms of the ELBO and of penalties, as a step of training has them."""
  drawn = draw_codes(model, params, key, batch, num_groups)
  return elbo_of_codes(model, params, drawn)._replace(
      penalties=penalty_terms(model, penalties, drawn, num_groups))


def assert_close(found, expected, rtol=1e-5):
  """Two trees are equal, relative to the largest element of each array.

  Elements of a gradient are sums of either sign: those that cancel have an
  error in proportion to the others.
  """
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert np.all(np.isfinite(a)) and a.shape == b.shape
    assert np.max(np.abs(a - b), initial=0.0) <= rtol * np.max(
        np.abs(b), initial=0.0)
