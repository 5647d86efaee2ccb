"""The model's pure functions, and encode_group under transformations."""

import dataclasses
import json

import jax
from jax import export
import jax.numpy as jnp
from jax.sharding import PartitionSpec
import numpy as np
import pytest

from mlvae_jax.grouping.free import Free
from mlvae_jax.grouping.group_posteriors import GROUP_POSTERIORS
from mlvae_jax.grouping.mixture import Mixture
from mlvae_jax.grouping.product import Product, product_of_normals
from mlvae_jax.inference.encode import encode_group, infer, posteriors
from mlvae_jax.inference.latents import reconstruct
from mlvae_jax.model.factors import Batch, Factor, ml_vae, vae
from mlvae_jax.model.likelihoods.bernoulli import Bernoulli
from mlvae_jax.model.likelihoods.gaussian import Gaussian, LearnedGaussian
from mlvae_jax.model.model import Model
from mlvae_jax.model.networks.conv import Conv
from mlvae_jax.model.networks.mlp import MLP
from mlvae_jax.objective.elbo import elbo_terms

NUM_GROUPS = 4
MODEL = Model(
    ml_vae(3, 2), (8, 8, 1), network=MLP(hidden_sizes=(16,)))
PARAMS = jax.jit(MODEL.init)(jax.random.key(0))
IMAGES = np.random.default_rng(0).integers(
    0, 256, (12, 8, 8, 1), dtype=np.uint8)
IDS = np.array([3, 0, 1, 3, 3, 0, 1, 1, 0, 3, 3, 0], np.int32)  # 2 is empty.


def _encode_group(params, images, ids, mask=None):
  return encode_group(MODEL, params, images, ids, NUM_GROUPS, mask=mask)


def _assert_same(found, expected):
  """Two trees of arrays are equal to float32, elementwise."""
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


EXPECTED = _encode_group(PARAMS, IMAGES, IDS)


def test_every_factor_gets_a_posterior_of_its_size():
  q = jax.jit(MODEL.encode)(PARAMS, IMAGES)
  assert {name: n.mean.shape for name, n in q.items()} == {
      'content': (12, 3), 'style': (12, 2)}
  assert {name: n.logvar.shape for name, n in q.items()} == {
      'content': (12, 3), 'style': (12, 2)}


def test_each_image_is_encoded_alone():
  encode = jax.jit(MODEL.encode)
  alone = [encode(PARAMS, IMAGES[i:i + 1]) for i in range(12)]
  _assert_same(
      jax.tree.map(lambda *v: jnp.concatenate(v), *alone),
      encode(PARAMS, IMAGES))


def test_each_grouping_is_listed_once_in_the_factors_order():
  model = dataclasses.replace(MODEL, factors=(
      Factor('light', 2, 'light'), Factor('who', 2, 'identity'),
      Factor('style', 2), Factor('shade', 1, 'light')))
  assert model.groupings == ('light', 'identity')
  assert dataclasses.replace(MODEL, factors=vae(2)).groupings == ()


def test_every_head_moves_one_moment_of_one_factor():
  encode = jax.jit(MODEL.encode)
  before = encode(PARAMS, IMAGES)
  flat_before = np.concatenate(
      [v for name in before for v in before[name]], axis=-1)
  for head in range(10):
    params = jax.tree.map(jnp.copy, PARAMS)
    bias = params['encoder']['heads']['bias']
    params['encoder']['heads']['bias'] = bias.at[head].add(1.0)
    after = encode(params, IMAGES)
    flat = np.concatenate([v for name in after for v in after[name]], axis=-1)
    changed = np.any(np.abs(flat - flat_before) > 0.5, axis=0)
    assert changed.sum() == 1


def test_codes_are_decoded_in_the_order_of_the_factors():
  codes = {'style': jnp.ones((5, 2)), 'content': jnp.zeros((5, 3))}
  decode = jax.jit(MODEL.decode)
  logits = decode(PARAMS, codes)
  assert logits.shape == (5, 2, 8, 8, 1)
  _assert_same(logits, decode(PARAMS, dict(reversed(codes.items()))))
  kernel = PARAMS['decoder']['hidden_0']['kernel']
  hidden = jnp.tanh(kernel[3:].sum(axis=0))  # The biases start at 0.
  expected = hidden @ PARAMS['decoder']['pixels']['kernel']
  _assert_same(logits[0].ravel(), expected)


def test_uint8_images_equal_floats_between_0_and_1():
  encode = jax.jit(MODEL.encode)
  _assert_same(
      encode(PARAMS, IMAGES), encode(PARAMS, np.float32(IMAGES / 255.0)))
  white = jax.jit(MODEL.prepare)(np.full((1, 8, 8, 1), 255, np.uint8))
  np.testing.assert_array_equal(white, 1.0)


# encode_group


def test_encode_group_multiplies_the_members():
  q = MODEL.encode(PARAMS, IMAGES)['content']
  _assert_same(EXPECTED, product_of_normals(q, IDS, NUM_GROUPS))
  np.testing.assert_array_equal(EXPECTED.mean[2], 0.0)
  np.testing.assert_array_equal(EXPECTED.logvar[2], 0.0)


def test_encode_group_under_jit_and_without():
  _assert_same(jax.jit(_encode_group)(PARAMS, IMAGES, IDS), EXPECTED)


def test_encode_group_of_shuffled_rows():
  order = np.random.default_rng(1).permutation(12)
  _assert_same(_encode_group(PARAMS, IMAGES[order], IDS[order]), EXPECTED)


def test_vmap_over_sets_of_groups():
  images = np.stack([IMAGES, IMAGES[::-1]])
  ids = np.stack([IDS, IDS[::-1]])
  found = jax.jit(jax.vmap(_encode_group, (None, 0, 0)))(PARAMS, images, ids)
  for i in range(2):
    _assert_same([v[i] for v in found], EXPECTED)


@pytest.mark.slow
def test_vmap_over_models():
  both = jax.tree.map(
      lambda *v: jnp.stack(v), PARAMS, jax.jit(MODEL.init)(jax.random.key(1)))
  found = jax.jit(jax.vmap(_encode_group, (0, None, None)))(both, IMAGES, IDS)
  _assert_same([v[0] for v in found], EXPECTED)


@pytest.mark.slow
def test_pmap_and_shard_map_over_sets_of_groups():
  devices = jax.local_devices()
  images, ids = (np.stack([v] * len(devices)) for v in (IMAGES, IDS))
  found = jax.pmap(_encode_group, in_axes=(None, 0, 0))(PARAMS, images, ids)
  mesh = jax.sharding.Mesh(np.array(devices), ('d',))
  rows = PartitionSpec('d')
  sharded = jax.jit(jax.shard_map(
      _encode_group, mesh=mesh, in_specs=(PartitionSpec(), rows, rows),
      out_specs=rows))(
          PARAMS, np.concatenate(images), np.concatenate(ids))
  for i in range(len(devices)):
    _assert_same([v[i] for v in found], EXPECTED)
    _assert_same([v[i * NUM_GROUPS:][:NUM_GROUPS] for v in sharded], EXPECTED)


def test_export_of_encode_group():
  exported = export.export(jax.jit(_encode_group))(PARAMS, IMAGES, IDS)
  _assert_same(exported.call(PARAMS, IMAGES, IDS), EXPECTED)
  pytest.importorskip('flatbuffers')  # What JAX serialises with.
  again = export.deserialize(exported.serialize())
  _assert_same(again.call(PARAMS, IMAGES, IDS), EXPECTED)


def test_gradient_reaches_parameters_and_images():
  def scalar(params, images):
    return sum(jnp.sum(v) for v in _encode_group(params, images, IDS))

  images = np.float32(IMAGES / 255.0)
  params_grad, images_grad = jax.jit(jax.grad(scalar, (0, 1)))(PARAMS, images)
  assert np.all(np.isfinite(images_grad))
  assert np.all(np.any(images_grad != 0, axis=(1, 2, 3)))
  heads = params_grad['encoder']['heads']['kernel']
  assert np.all(heads[:, :6] != 0)  # The content's mean and logvar.
  np.testing.assert_array_equal(heads[:, 6:], 0.0)


def test_masked_images_drop_out_even_nan():
  mask = np.arange(12) < 9
  images = np.float32(IMAGES / 255.0)
  expected = _encode_group(PARAMS, images[:9], IDS[:9])
  images[~mask] = np.nan
  ids = np.where(mask, IDS, 99)
  _assert_same(_encode_group(PARAMS, images, ids, mask), expected)
  _assert_same(jax.jit(_encode_group)(PARAMS, images, ids, mask), expected)


def test_new_ids_need_no_new_compilation(compilations):
  _encode_group(PARAMS, IMAGES, IDS)
  with compilations() as names:
    _encode_group(PARAMS, IMAGES, IDS[::-1].copy())
  assert not names


def test_the_factor_is_named_where_the_model_has_several_grouped():
  factors = (Factor('shape', 2, 'shape'), Factor('colour', 3, 'colour'))
  model = Model(factors, (8, 8, 1), network=MLP((8,)))
  params = jax.jit(model.init)(jax.random.key(0))
  found = encode_group(model, params, IMAGES, IDS, 4, factor='colour')
  assert found.mean.shape == (4, 3)
  with pytest.raises(ValueError, match=r"2 grouped factors, name one of"):
    encode_group(model, params, IMAGES, IDS, 4)
  with pytest.raises(ValueError, match=r"no factor 'size', expected one of"):
    encode_group(model, params, IMAGES, IDS, 4, factor='size')
  with pytest.raises(ValueError, match=(
      r"'style' is not grouped, expected one of .*\['content'\]")):
    encode_group(MODEL, PARAMS, IMAGES, IDS, 4, factor='style')


@pytest.mark.parametrize('images, ids, match', [
    (IMAGES[:, :, :, 0], IDS, r'of \[N, 8, 8, 1\], got \[12, 8, 8\]'),
    (IMAGES[:, :4], IDS, r'of \[N, 8, 8, 1\], got \[12, 4, 8, 1\]'),
    (IMAGES.astype(np.int32), IDS, 'floats, or uint8 pixels, got int32'),
    (np.float32(IMAGES), IDS, 'a scale of about 1, got values from 0 to'),
    (IMAGES, IDS[:5], r'group_ids of \[12\] integers.*got int32 of \[5\]'),
    (IMAGES, np.float32(IDS), 'integers.*got float32'),
    (IMAGES, IDS + 1, r'ids in \[0, 4\), got ids from 1 to 4'),
])
def test_bad_images_and_ids_are_refused(images, ids, match):
  with pytest.raises(ValueError, match=match):
    _encode_group(PARAMS, images, ids)


def test_nan_images_are_not_taken_for_floats_between_0_and_1():
  images = np.float32(IMAGES / 255.0)
  images[3, 0, 0, 0] = np.nan
  with pytest.raises(ValueError, match='got NaN or infinity'):
    _encode_group(PARAMS, images, IDS)


def test_nan_is_refused_wherever_images_are_taken():
  images = np.float32(IMAGES / 255.0)
  images[3, 0, 0, 0] = np.nan
  for function in (posteriors, infer, reconstruct):
    with pytest.raises(ValueError, match='got NaN.*; mask these rows'):
      function(MODEL, PARAMS, images, IDS, NUM_GROUPS)
    mask = np.arange(12) != 3
    found = function(MODEL, PARAMS, images, IDS, NUM_GROUPS, mask=mask)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(found))


def test_images_that_a_jit_closes_over_are_checked():
  images = jnp.asarray(np.float32(IMAGES))
  with pytest.raises(ValueError, match='about 1, got values from'):
    jax.jit(lambda params: MODEL.encode(params, images))(PARAMS)
  _assert_same(
      jax.jit(lambda params: _encode_group(params, images / 255, IDS))(PARAMS),
      EXPECTED)


@pytest.mark.parametrize('name', ['float16', 'bfloat16'])
def test_images_of_low_precision_are_encoded_in_float32(name):
  images = jnp.asarray(IMAGES / 255.0, name)
  wide = images.astype(jnp.float32)
  for dtype in ('float32', 'bfloat16'):
    model = dataclasses.replace(MODEL, dtype=dtype)
    found = jax.jit(model.encode)(PARAMS, images)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(found))
    _assert_same(found, jax.jit(model.encode)(PARAMS, wide))
    codes = {f: jnp.asarray(q.mean, name) for f, q in found.items()}
    assert jax.jit(model.decode)(PARAMS, codes).dtype == jnp.float32
  _assert_same(_encode_group(PARAMS, images, IDS),
               _encode_group(PARAMS, wide, IDS))


def test_600_images_of_low_precision_count_as_600():
  x = jnp.full((600, 8, 8, 1), 0.5, jnp.bfloat16)
  batch = Batch(x, {'content': np.zeros(600, np.int32)}, np.ones(600, bool),
                np.arange(600))
  terms = jax.jit(lambda batch: elbo_terms(
      MODEL, PARAMS, jax.random.key(0), batch, {'content': 1}))(batch)
  assert terms.num_rows == 600


# No images at all, lists, ids out of range.


_SVI = dataclasses.replace(MODEL, group_posterior=Free())
_EMPTY = [
    MODEL, dataclasses.replace(MODEL, group_posterior=Mixture()), _SVI,
    dataclasses.replace(MODEL, network=Conv((4,), (8,)))]


@pytest.mark.slow
@pytest.mark.parametrize('model', _EMPTY, ids=[
    'product', 'mixture', 'svi', 'conv'])
def test_no_images_give_empty_results_and_the_prior(model):
  params = jax.jit(model.init)(jax.random.key(0))
  for images, ids, mask in (
      (IMAGES[:0], IDS[:0], None), (np.float32(IMAGES[:0]), [], [])):
    found = encode_group(model, params, images, ids, 4, mask=mask)
    for value in found:
      np.testing.assert_array_equal(value, np.zeros((4, 3)))
    for groups in ((), (ids, 4)):
      for key in (None, jax.random.key(0)):
        codes = infer(model, params, images, *groups, mask=mask, key=key)
        assert {name: code.shape for name, code in codes.items()} == {
            'content': (0, 3), 'style': (0, 2)}
      assert posteriors(
          model, params, images, *groups)['style'].logvar.shape == (0, 2)
      assert reconstruct(
          model, params, images, *groups, mask=mask).shape == (0, 8, 8, 1)
  if model.has_encoder:
    assert model.encode(params, IMAGES[:0])['style'].mean.shape == (0, 2)
  codes = {'content': jnp.zeros((0, 3)), 'style': jnp.zeros((0, 2))}
  assert model.decode(params, codes).shape == (0, 2, 8, 8, 1)


def test_images_ids_and_masks_may_be_lists():
  images = IMAGES / 255.0
  mask = [i % 3 > 0 for i in range(12)]
  arrays = (images, IDS, NUM_GROUPS)
  lists = (images.tolist(), IDS.tolist(), NUM_GROUPS)
  for function in (encode_group, posteriors, infer, reconstruct):
    _assert_same(function(MODEL, PARAMS, *lists, mask=mask),
                 function(MODEL, PARAMS, *arrays, mask=np.array(mask)))
  _assert_same(infer(MODEL, PARAMS, images, {'content': IDS.tolist()}, 4),
               infer(MODEL, PARAMS, *arrays))


def test_traced_ids_out_of_range_drop_the_row():
  far = np.where(np.arange(12) == 3, 99, IDS)
  real = far < 99
  found = jax.jit(lambda ids: posteriors(MODEL, PARAMS, IMAGES, ids, 4))(far)
  expected = posteriors(MODEL, PARAMS, IMAGES, IDS, 4, mask=real)
  _assert_same(found['content'], expected['content'])
  _assert_same(found['style'].mean[3],
               posteriors(MODEL, PARAMS, IMAGES)['style'].mean[3])


# Masks.


_KEY = jax.random.key(3)


@pytest.mark.parametrize('kind', GROUP_POSTERIORS)
@pytest.mark.parametrize('grouped', [False, True])
def test_masked_images_change_nothing_and_are_the_prior(kind, grouped):
  model = dataclasses.replace(MODEL, group_posterior=GROUP_POSTERIORS[kind]())
  params = jax.jit(model.init)(jax.random.key(0))
  mask = np.arange(12) % 4 != 1
  images = np.float32(IMAGES / 255.0)
  dirty = np.where(mask[:, None, None, None], images, np.nan)
  groups, clean = (), ()
  if grouped:
    groups = (np.where(mask, IDS, 77), NUM_GROUPS)
    clean = (IDS, NUM_GROUPS)
  for function, key in ((posteriors, {}), (infer, {}), (infer, {'key': _KEY}),
                        (reconstruct, {})):
    found = function(model, params, dirty, *groups, mask=mask, **key)
    other = function(model, params, 0.5 * images, *clean, mask=mask, **key)
    _assert_same(
        jax.tree.map(lambda v: v[mask], found),
        jax.tree.map(lambda v: v[mask], function(
            model, params, np.where(mask[:, None, None, None], images, 0.25),
            *clean, mask=mask, **key)))
    assert np.any(jax.tree.leaves(found)[0][mask]
                  != jax.tree.leaves(other)[0][mask])
    if function is not reconstruct:
      for leaf in jax.tree.leaves(found):
        np.testing.assert_array_equal(leaf[~mask], 0.0)
  if model.has_encoder:  # Free ones have noise that names rows by place.
    some = clean and (IDS[mask], NUM_GROUPS)
    _assert_same(
        jax.tree.map(lambda v: v[mask], posteriors(
            model, params, dirty, *groups, mask=mask)),
        posteriors(model, params, images[mask], *some))


@pytest.mark.parametrize('mask', [np.ones(5, bool), np.ones(12, np.float32)])
def test_bad_masks_are_refused(mask):
  with pytest.raises(ValueError, match=r'mask of \[12\] bool'):
    _encode_group(PARAMS, IMAGES, IDS, mask)


# The description of a model.


@pytest.mark.parametrize(
    'likelihood', [Bernoulli(), Gaussian(0.3), LearnedGaussian()])
@pytest.mark.parametrize('factors', [vae(4), ml_vae(3, 2, 'identity')])
def test_a_model_survives_json(factors, likelihood):
  model = Model(factors, (8, 6, 3), likelihood, MLP((8, 4), 'gelu'))
  text = json.dumps(model.to_dict())
  again = Model.from_dict(json.loads(text))
  assert again == model and hash(again) == hash(model)


@pytest.mark.parametrize('kind', GROUP_POSTERIORS)
def test_group_posteriors_survive_json(kind):
  model = dataclasses.replace(MODEL, group_posterior=GROUP_POSTERIORS[kind]())
  found = json.loads(json.dumps(model.to_dict()))
  assert found['group_posterior'] == {'name': kind}
  assert Model.from_dict(found) == model


@pytest.mark.parametrize('group_posterior', ['product', 'mixture'])
@pytest.mark.parametrize('inference', ['encoder', 'svi'])
def test_group_posteriors_of_an_older_version_are_read(
    group_posterior, inference):
  old = MODEL.to_dict() | {
      'group_posterior': group_posterior, 'inference': inference}
  expected = Free() if inference == 'svi' else {
      'product': Product(), 'mixture': Mixture()}[group_posterior]
  assert Model.from_dict(old).group_posterior == expected


def test_unknown_group_posteriors_are_refused():
  with pytest.raises(ValueError, match=r"Product\(\), .*, got 'median'"):
    dataclasses.replace(MODEL, group_posterior='median')
  for value in ('median', {'name': 'median'}):
    with pytest.raises(ValueError, match="'median', expected one of product, "):
      Model.from_dict(MODEL.to_dict() | {'group_posterior': value})


def test_equal_models_share_compilations(compilations):
  _encode_group(PARAMS, IMAGES, IDS)
  twin = Model.from_dict(MODEL.to_dict())
  with compilations() as names:
    encode_group(twin, PARAMS, IMAGES, IDS, NUM_GROUPS)
  assert not names


@pytest.mark.parametrize('shape', [(), (8, 8, 0), (0,)])
def test_bad_observation_shapes_are_refused(shape):
  with pytest.raises(ValueError, match='observation_shape of at least one'):
    Model(vae(2), shape)


@pytest.mark.slow
@pytest.mark.parametrize('shape', [(5,), (8, 8), (2, 8, 8, 1)])
def test_observations_may_have_any_shape(shape):
  model = Model(ml_vae(3, 2), shape, Gaussian(), MLP((16,)))
  params = jax.jit(model.init)(jax.random.key(0))
  x = np.random.default_rng(0).normal(size=(6, *shape))
  ids = np.array([0, 0, 1, 1, 1, 0])
  assert encode_group(model, params, x, ids, 2).mean.shape == (2, 3)
  assert reconstruct(model, params, x, ids, 2).shape == (6, *shape)
  with pytest.raises(ValueError, match=r'expected observations of \[N, '):
    encode_group(model, params, x[..., None], ids, 2)


def test_init_is_a_function_of_the_key():
  init = jax.jit(MODEL.init)
  first, same, other = (init(jax.random.key(seed)) for seed in (0, 0, 1))
  assert set(first) == {'encoder', 'decoder'}
  for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(same)):
    np.testing.assert_array_equal(a, b)
  assert np.any(first['encoder']['heads']['kernel']
                != other['encoder']['heads']['kernel'])


@pytest.mark.slow
@pytest.mark.parametrize('network', [
    MLP(hidden_sizes=(16,)), Conv((8,), (16,), norm_groups=2)])
def test_bfloat16_computes_nearly_the_same(network):
  model = dataclasses.replace(MODEL, network=network)
  low = dataclasses.replace(model, dtype='bfloat16')
  params = jax.jit(low.init)(jax.random.key(0))
  jax.tree.map(np.testing.assert_array_equal, params,
               jax.jit(model.init)(jax.random.key(0)))

  def loss(model, params):
    codes = {name: q.mean for name, q in model.encode(params, IMAGES).items()}
    logits = model.decode(params, codes)
    return jnp.mean(logits ** 2), (codes, logits)

  (value, outputs), grads = jax.jit(
      jax.value_and_grad(loss, 1, has_aux=True), static_argnums=0)(low, params)
  (expected, exact), exact_grads = jax.jit(
      jax.value_and_grad(loss, 1, has_aux=True), static_argnums=0)(
          model, params)
  for leaf in jax.tree.leaves((value, outputs, grads)):
    assert leaf.dtype == jnp.float32
  np.testing.assert_allclose(value, expected, rtol=0.02)
  assert not np.array_equal(outputs[1], exact[1])  # It is no float32.
  for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(exact_grads)):
    # 0.05 on a CPU; a GPU accumulates in another order.
    limit = 0.05 if jax.default_backend() == 'cpu' else 0.1
    assert np.linalg.norm(a - b) < limit * np.linalg.norm(b)


def test_dtype_is_known_and_in_the_json_form():
  low = dataclasses.replace(MODEL, dtype='bfloat16')
  assert Model.from_dict(json.loads(json.dumps(low.to_dict()))) == low
  old = MODEL.to_dict()
  del old['dtype']  # As written before there was a choice.
  assert Model.from_dict(old) == MODEL
  with pytest.raises(ValueError, match="dtype of .*bfloat16.*got 'float16'"):
    dataclasses.replace(MODEL, dtype='float16')
