"""`jax.export`: one artifact for any number of rows."""

import dataclasses

import jax
from jax import export
import jax.numpy as jnp
import numpy as np
import pytest

import mlvae_jax
from mlvae_jax import MLP, Batch, Conv, Model
from mlvae_jax.grouping.segment_sum import segment_sum

_SHAPE, _NUM_GROUPS = (8, 8, 1), 4
_MODELS = {
    'mlp': Model(mlvae_jax.ml_vae(3, 2), _SHAPE, network=MLP((8,))),
    'conv': Model(mlvae_jax.ml_vae(3, 2), _SHAPE,
                  network=Conv((4,), (8,), norm_groups=2)),
}
_MODELS['mixture'] = dataclasses.replace(
    _MODELS['mlp'], group_posterior=mlvae_jax.Mixture())
each_model = pytest.mark.parametrize('name', _MODELS)


def _assert_same(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def _of_any_size(function, *rows):
  """A function as it comes back from bytes, for rows `[n, ...]`."""
  pytest.importorskip('flatbuffers')  # What JAX serialises with.
  n, = export.symbolic_shape('n')
  symbolic = jax.tree.map(
      lambda v: jax.ShapeDtypeStruct((n, *v.shape[1:]), v.dtype), rows)
  exported = export.export(jax.jit(function))(*symbolic)
  return export.deserialize(exported.serialize()).call


def _assert_any_size(function, rows):
  """Holds the exported function against the direct one."""
  found = _of_any_size(function, *rows)
  for size in (1, 3, 50):
    some = jax.tree.map(lambda v, size=size: v[:size], rows)
    _assert_same(found(*some), function(*some))


def _initialised(model):
  return model, jax.jit(model.init)(jax.random.key(0))


def _rows(num_rows=50):
  rng = np.random.default_rng(0)
  return (rng.integers(0, 256, (num_rows, *_SHAPE), np.uint8),
          rng.integers(0, _NUM_GROUPS, num_rows).astype(np.int32),
          rng.random(num_rows) < 0.7)


@pytest.mark.slow
@each_model
def test_encode_of_any_number_of_images(name):
  model, params = _initialised(_MODELS[name])
  images, _, _ = _rows()
  _assert_any_size(lambda x: model.encode(params, x), (images,))
  _assert_any_size(lambda x: model.encode(params, x),
                   (np.float32(images / 255.0),))


@pytest.mark.slow
@each_model
def test_groups_of_any_number_of_images(name):
  model, params = _initialised(_MODELS[name])
  images, ids, mask = _rows()
  _assert_any_size(
      lambda x, ids, mask: mlvae_jax.encode_group(
          model, params, x, ids, _NUM_GROUPS, mask=mask), (images, ids, mask))
  _assert_any_size(
      lambda x, ids: (
          mlvae_jax.encode_group(model, params, x, ids, _NUM_GROUPS),
          mlvae_jax.infer(model, params, x, ids, _NUM_GROUPS),
          mlvae_jax.reconstruct(model, params, x)), (images, ids))


@pytest.mark.slow
@each_model
def test_any_number_of_groups(name):
  model, params = _initialised(_MODELS[name])
  images, ids, _ = _rows()
  _assert_any_size(
      lambda x, ids: mlvae_jax.encode_group(
          model, params, x, ids % x.shape[0], x.shape[0]), (images, ids))


@pytest.mark.slow
def test_groups_of_any_number_of_images_by_optimisation():
  model = dataclasses.replace(_MODELS['mlp'], group_posterior=mlvae_jax.Free())
  _, params = _initialised(model)
  images, ids, _ = _rows()
  _assert_any_size(
      lambda x, ids: mlvae_jax.posteriors(
          model, params, x, ids, _NUM_GROUPS), (images, ids))


@pytest.mark.slow
@each_model
def test_decode_of_any_number_of_codes(name):
  model, params = _initialised(_MODELS[name])
  rng = np.random.default_rng(0)
  codes = {f.name: rng.normal(size=(50, f.dim)).astype(np.float32)
           for f in model.factors}
  _assert_any_size(
      lambda codes: mlvae_jax.decode(model, params, codes), (codes,))


@pytest.mark.slow
def test_sums_of_any_number_of_rows_are_exact():
  ids = np.where(np.arange(300_000) % 7, 0, np.arange(300_000) % 3).astype(
      np.int32)
  values = np.full((300_000, 1), 0.1, np.float32)
  found = _of_any_size(
      lambda values, ids: segment_sum(values, ids, 3), values, ids)
  for size in (1, 130, 20_000, 300_000):
    expected = np.bincount(ids[:size], minlength=3) * np.float64(values[0, 0])
    np.testing.assert_allclose(
        found(values[:size], ids[:size])[:, 0], expected, rtol=1e-5)


def test_a_batch_goes_through_export():
  pytest.importorskip('flatbuffers')
  images, ids, mask = _rows(6)
  batch = Batch(jnp.asarray(images), {'content': jnp.asarray(ids)},
                jnp.asarray(mask), jnp.arange(6))

  def double(batch):
    return batch._replace(rows=2 * batch.rows)

  exported = export.export(jax.jit(double))(batch)
  again = export.deserialize(exported.serialize())
  _assert_same(again.call(batch), double(batch))
