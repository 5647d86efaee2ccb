"""Every likelihood, network and group posterior trains two steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlvae_jax.grouping.group_posteriors import GROUP_POSTERIORS
from mlvae_jax.model.factors import Batch, ml_vae
from mlvae_jax.model.likelihoods.gaussian import Gaussian
from mlvae_jax.model.likelihoods.registry import LIKELIHOODS
from mlvae_jax.model.model import Model
from mlvae_jax.model.networks.conv import Conv
from mlvae_jax.model.networks.conv1d import Conv1D
from mlvae_jax.model.networks.mlp import MLP
from mlvae_jax.model.networks.registry import NETWORKS
from mlvae_jax.model.networks.tokens import Tokens
from mlvae_jax.training.step import TrainConfig, init_state, train_step
from tests.helpers.observations import EXAMPLES, SIZE, observe

SMALL = {'mlp': MLP((4,)), 'conv': Conv((2,), (4,)),
         'conv1d': Conv1D((2,), (4,)), 'tokens': Tokens(2, (4,))}
IDS = np.array([0, 0, 1, 1, 1, 2], np.int32)
NAMES = [name for name in EXAMPLES if 'any total' not in name]
SIZES = {'content': 3, 'style': len(IDS)}
# The other posteriors see no more of a model than these do.
WITH_ALL = ('product', 'mixture', 'free')
CONFIG = TrainConfig(learning_rate=1e-2)


def _observations(name, network):
  """`[N, SIZE]`, and for images `[N, 2, SIZE, 1]`."""
  if network != 'conv':
    return observe(name, IDS)
  return np.stack([observe(name, IDS, seed) for seed in (0, 1)], 1)[..., None]


def test_all_are_here():
  assert set(SMALL) == set(NETWORKS) and set(LIKELIHOODS) <= set(NAMES)


def test_tokens_are_for_categories_only():
  with pytest.raises(ValueError, match='Tokens is for .*Categorical'):
    Model(ml_vae(3, 2), (SIZE,), Gaussian(), Tokens())


@pytest.mark.slow
@pytest.mark.parametrize('name, network, posterior', [
    (name, network, posterior) for name in NAMES for network in SMALL
    for posterior in GROUP_POSTERIORS
    if (network != 'tokens' or name == 'categorical')
    and (posterior in WITH_ALL or (name, network) == ('gaussian', 'mlp'))])
def test_two_steps(name, network, posterior):
  x = _observations(name, network)
  batch = Batch(jnp.asarray(x), {'content': IDS}, np.ones(len(IDS), bool),
                np.arange(len(IDS), dtype=np.int32))
  model = Model(ml_vae(3, 2), x.shape[1:], EXAMPLES[name], SMALL[network],
                GROUP_POSTERIORS[posterior]())
  tables = {} if model.has_encoder else SIZES
  state = start = init_state(model, CONFIG, tables or None)
  for _ in range(2):  # Not compiled, which would take longer than the steps.
    state, metrics = train_step(
        model, CONFIG, {'content': 3}, state, batch,
        table_rows=jax.tree.map(jnp.arange, tables) or None)
  assert np.isfinite(metrics.sums.elbo())
  moved = jax.tree.map(lambda a, b: bool(np.any(a != b)),
                       start.params, state.params)
  assert all(jax.tree.leaves(moved)), moved
