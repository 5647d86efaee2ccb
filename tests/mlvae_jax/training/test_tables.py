"""Tables of free posteriors: how they start, and how a step moves them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import mlvae_jax
from mlvae_jax.grouping.free import Free
from mlvae_jax.model.factors import ml_vae
from mlvae_jax.model.model import Model
from mlvae_jax.training import tables as tables_lib

_MODEL = Model(ml_vae(1, 1), (2, 2, 1), group_posterior=Free())


def _tables(sizes):
  return tables_lib.init_tables(_MODEL, jax.random.key(0), sizes)


def test_an_update_is_adam_without_momentum_on_its_rows_alone():
  tables = _tables({'content': 5, 'style': 7})
  rng = np.random.default_rng(0)
  table_rows = {'content': jnp.array([3, 0, -1]),
                'style': jnp.array([6, -1, 2])}
  optimizer = optax.adam(0.05, b1=0.0)  # Of one number each, as here.
  rows = tables['style'].value[jnp.array([6, 2])]
  opt_state = optimizer.init(rows)
  new = tables
  for _ in range(3):
    grads = {name: jnp.asarray(rng.normal(size=(3, 2)), jnp.float32)
             for name in tables}
    new = tables_lib.update(_MODEL, new, table_rows, grads, 0.05)
    updates, opt_state = optimizer.update(
        grads['style'][jnp.array([0, 2])], opt_state)
    rows = optax.apply_updates(rows, updates)
  np.testing.assert_allclose(
      new['style'].value[jnp.array([6, 2])], rows, rtol=1e-5)
  assert new['style'].count.tolist() == [0, 0, 3, 0, 0, 0, 3]
  assert new['content'].count.tolist() == [3, 0, 0, 3, 0]
  for name, kept in (('style', [0, 1, 3, 4, 5]), ('content', [1, 2, 4])):
    for before, after in zip(tables[name], new[name]):
      np.testing.assert_array_equal(
          before[jnp.array(kept)], after[jnp.array(kept)])


def test_means_of_a_posterior_move_on_one_scale():
  """Steps are as long as the learning rate in the root mean square."""
  model = mlvae_jax.Model(
      mlvae_jax.parse_factors('style:2'), (1, 2, 1), group_posterior=Free())
  tables = tables_lib.init_tables(model, jax.random.key(0), {'style': 3})
  grad = {'style': jnp.array([[3.0, 4.0, 0.0, 1e-3]])}
  new = tables_lib.update(model, tables, {'style': jnp.array([1])}, grad, 0.1)
  moved = (new['style'].value - tables['style'].value)[1]
  rms = np.sqrt(12.5)
  np.testing.assert_allclose(
      moved, [-0.3 / rms, -0.4 / rms, 0.0, -0.1 * np.sqrt(2)], rtol=1e-3)


def test_large_tables_are_filled_whatever_their_size(monkeypatch):
  monkeypatch.setattr(tables_lib, '_BLOCK', 4)
  for size in (1, 3, 4, 7, 8):
    value = tables_lib._init_table.__wrapped__(jax.random.key(0), size, 2).value
    assert value.shape == (size, 4)
    assert len(np.unique(value[:, :2])) == 2 * size
    np.testing.assert_array_equal(value[:, 2:], -2.0)
