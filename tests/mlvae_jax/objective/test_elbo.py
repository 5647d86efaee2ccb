"""The group ELBO: an exact model, reductions, padding, gradients, layouts."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlvae_jax.grouping.posterior import row_noise
from mlvae_jax.grouping.product import product_of_normals
from mlvae_jax.model.factors import Batch, Factor, ml_vae, vae
from mlvae_jax.model.likelihoods.bernoulli import Bernoulli
from mlvae_jax.model.likelihoods.gaussian import Gaussian, LearnedGaussian
from mlvae_jax.model.model import Model
from mlvae_jax.model.networks.mlp import MLP
from mlvae_jax.objective.elbo import elbo_terms, sum_terms, warm_up
from mlvae_jax.objective.penalties.registry import Penalty
from tests.helpers.exact_model import (
  LINEAR,
  exact_heads,
  linear_params,
  log_evidence,
  other_heads,
  posterior_gap,
  sample_groups,
)
from tests.helpers.small_models import (
  KEY,
  MODEL,
  SHAPE,
  assert_close,
  init_params,
  make_batch,
  penalised_terms,
)


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def _terms_and_grad(
    model, params, key, batch, num_groups, sample_per='row'):
  """The batch's terms, and the gradient of its ELBO."""

  def elbo(params):
    terms = elbo_terms(
        model, params, key, batch,
        {f.name: num_groups for f in model.grouped}, sample_per=sample_per)
    return sum_terms(terms).elbo(), terms

  grad, terms = jax.grad(elbo, has_aux=True)(params)
  return terms, grad


def _take(tree, rows):
  """Some rows of every array."""
  return jax.tree.map(lambda value: value[rows], tree)


# The exact model.


@functools.partial(jax.jit, static_argnums=(3, 4))
def _draw_elbos(params, keys, batch, num_groups, sample_per):
  """One estimate of the summed group ELBOs of LINEAR per key."""
  return jax.vmap(lambda key: sum_terms(elbo_terms(
      LINEAR, params, key, batch, {'content': num_groups},
      sample_per=sample_per)).elbo())(keys)


def _mean_elbo(groups, heads, sample_per):
  """Summed group ELBOs averaged over draws, and the standard error."""
  num_groups, n, _ = groups.shape
  rows = num_groups * n
  batch = Batch(
      jnp.asarray(groups.reshape(rows, *SHAPE), jnp.float32),
      {'content': jnp.arange(rows) // n}, jnp.ones(rows, bool),
      jnp.arange(rows))
  params = linear_params(*heads)
  keys = jax.random.split(KEY, 4000)
  draws = np.asarray(
      _draw_elbos(params, keys, batch, num_groups, sample_per), np.float64)
  return draws.mean(), draws.std() / np.sqrt(len(draws))


@pytest.mark.slow
@pytest.mark.parametrize('sample_per', ['row', 'group'])
@pytest.mark.parametrize('group_size', [1, 4])
def test_elbo_at_the_exact_posterior_is_the_log_evidence(
    group_size, sample_per):
  groups = sample_groups(3, group_size)
  mean, error = _mean_elbo(groups, exact_heads(group_size), sample_per)
  assert error < 0.1  # Small beside the gaps elsewhere, below.
  assert abs(mean - log_evidence(groups)) < 4 * error


@pytest.mark.parametrize('name', [
    'content mean', 'content variance', 'style mean', 'style variance',
    'prior per member', 'evidence not added'])
def test_elsewhere_the_elbo_lies_below_by_the_kl_of_the_posteriors(name):
  groups = sample_groups(6, 4)
  heads = other_heads(name, 4)
  mean, error = _mean_elbo(groups, heads, 'row')
  log_p, gap = log_evidence(groups), posterior_gap(groups, heads)
  assert abs(mean - (log_p - gap)) < 4 * error
  assert mean + 4 * error < log_p


# Reductions.


@pytest.mark.slow
def test_content_kl_counts_once_per_group():
  params = init_params(MODEL)
  ids = np.array([0, 2, 2, 2, 2, 0, 3, 2])
  batch = make_batch(MODEL, ids)
  terms, _ = _terms_and_grad(MODEL, params, KEY, batch, 5)
  q = jax.jit(MODEL.encode)(params, batch.x)
  q_group = product_of_normals(q['content'], ids, 5)

  def kl64(n):
    mean, logvar = (np.asarray(value, np.float64) for value in n)
    return 0.5 * (np.exp(logvar) + np.square(mean) - 1 - logvar).sum(axis=-1)

  expected = kl64(q_group)
  np.testing.assert_array_equal(expected[[1, 4]], 0.0)  # Absent groups.
  np.testing.assert_allclose(
      terms.kl['content'], expected, rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(
      terms.kl['style'], kl64(q['style']), rtol=1e-5, atol=1e-6)
  sums = sum_terms(terms)
  assert (sums.num_groups, sums.num_rows) == (3, 8)
  np.testing.assert_allclose(
      sums.elbo(), np.asarray(terms.log_lik, np.float64).sum()
      - expected.sum() - kl64(q['style']).sum(), rtol=1e-5)


def _vae_elbo(params, x, noise):
  """The VAE's ELBO, summed over images: written out, no groups anywhere."""
  flat = x.reshape(len(x), -1)
  phi, theta = params['encoder'], params['decoder']
  hidden = jnp.tanh(flat @ phi['hidden_0']['kernel'] + phi['hidden_0']['bias'])
  heads = hidden @ phi['heads']['kernel'] + phi['heads']['bias']
  mean, logvar = jnp.split(heads, 2, axis=1)
  z = mean + jnp.exp(logvar / 2) * noise
  hidden = jnp.tanh(z @ theta['hidden_0']['kernel']
                    + theta['hidden_0']['bias'])
  logits = hidden @ theta['pixels']['kernel'] + theta['pixels']['bias']
  log_lik = (flat * jax.nn.log_sigmoid(logits)
             + (1 - flat) * jax.nn.log_sigmoid(-logits)).sum()
  kl = 0.5 * (jnp.exp(logvar) + mean ** 2 - 1 - logvar).sum()
  return log_lik - kl


@pytest.mark.slow
def test_one_ungrouped_factor_is_the_vae():
  model = Model(vae(4), SHAPE, Bernoulli(), MLP((16,)))
  params, batch = init_params(model), make_batch(model, np.zeros(10))
  terms, grad = _terms_and_grad(model, params, KEY, batch, 1)
  # The noise is the only thing taken from the library.
  noise = row_noise(jax.random.split(KEY, 1)[0], batch.rows, 4)
  elbo, expected = jax.jit(jax.value_and_grad(_vae_elbo))(
      params, batch.x, noise)
  np.testing.assert_allclose(sum_terms(terms).elbo(), elbo, rtol=1e-5)
  assert_close(grad, expected)
  assert (terms.num_groups, terms.num_rows) == (10, 10)


@pytest.mark.slow
def test_groups_of_one_are_the_vae():
  grouped = Model((Factor('c', 4, 'g'),), SHAPE, Bernoulli(), MLP((16,)))
  plain = Model(vae(4), SHAPE, Bernoulli(), MLP((16,)))
  params = init_params(plain)
  ids = np.random.default_rng(0).permutation(10)
  found, grad = _terms_and_grad(
      grouped, params, KEY, make_batch(grouped, ids), 10)
  expected, expected_grad = _terms_and_grad(
      plain, params, KEY, make_batch(plain, ids), 1)
  assert_close(found.log_lik, expected.log_lik)
  assert_close(found.kl['c'][ids], expected.kl['z'])
  assert_close(grad, expected_grad)
  assert found.num_groups == expected.num_groups == 10


@pytest.mark.slow
def test_groups_are_counted_by_the_first_grouped_factor():
  factors = (Factor('s', 2), Factor('a', 2, 'a'), Factor('b', 2, 'b'))
  model = Model(factors, SHAPE, Bernoulli(), MLP((8,)))
  batch = make_batch(model, [0, 0, 1, 1, 1, 3])
  batch.group_ids['b'] = np.array([0, 1, 2, 3, 0, 1], np.int32)
  terms, _ = _terms_and_grad(model, init_params(model), KEY, batch, 5)
  assert terms.num_groups == 3
  assert {name: kl.shape for name, kl in terms.kl.items()} == {
      's': (6,), 'a': (5,), 'b': (5,)}


# Padding and order.


@pytest.mark.parametrize('garbage', [0.5, np.nan, np.inf])
@pytest.mark.parametrize('sample_per', ['row', 'group'])
def test_padding_changes_neither_value_nor_gradient(garbage, sample_per):
  params = init_params(MODEL)
  mask = np.array([True, False, True, True, True, False, True, False])
  ids = np.array([0, 1, 4, 0, 4, 0, 2, 3])  # 1 and 3 are padding only.
  batch = make_batch(MODEL, ids, mask=mask)
  batch.x[~mask] = garbage
  terms, grad = _terms_and_grad(MODEL, params, KEY, batch, 5, sample_per)
  expected, expected_grad = _terms_and_grad(
      MODEL, params, KEY, _take(batch, mask), 5, sample_per)
  assert_close(sum_terms(terms), sum_terms(expected))
  assert_close(grad, expected_grad)
  assert (terms.num_groups, terms.num_rows) == (3, 5)
  np.testing.assert_array_equal(terms.log_lik[~mask], 0.0)
  np.testing.assert_array_equal(terms.kl['style'][~mask], 0.0)
  np.testing.assert_array_equal(terms.kl['content'][jnp.array([1, 3])], 0.0)


@pytest.mark.slow
def test_padding_may_be_nan_without_jit_too():
  # Concrete images are checked to lie in [0, 1]: those of real rows.
  batch = make_batch(MODEL, [0, 1, 1, 0], mask=np.arange(4) < 3)
  batch.x[3] = np.nan
  terms = elbo_terms(MODEL, init_params(MODEL), KEY, batch, {'content': 2})
  assert np.all(np.isfinite(terms.log_lik))


def test_a_batch_of_padding_alone_is_zero():
  batch = make_batch(MODEL, [0, 1, 1, 1, 2, 0, 4, 3], mask=np.zeros(8, bool))
  found = _terms_and_grad(MODEL, init_params(MODEL), KEY, batch, 5)
  for value in jax.tree.leaves(found):
    np.testing.assert_array_equal(value, 0.0)


@pytest.mark.parametrize('sample_per', ['row', 'group'])
def test_order_of_rows_changes_nothing(sample_per):
  params = init_params(MODEL)
  batch = make_batch(MODEL, [0, 1, 1, 2, 0, 1, 4, 4])
  order = np.random.default_rng(0).permutation(8)
  found, grad = _terms_and_grad(
      MODEL, params, KEY, _take(batch, order), 5, sample_per)
  expected, expected_grad = _terms_and_grad(
      MODEL, params, KEY, batch, 5, sample_per)
  assert_close(sum_terms(found), sum_terms(expected))
  assert_close(grad, expected_grad)
  np.testing.assert_allclose(
      found.log_lik, expected.log_lik[order], rtol=1e-5)


def test_uint8_images_equal_floats_between_0_and_1():
  params = init_params(MODEL)
  batch = make_batch(MODEL, [0, 1, 1, 2, 0, 1, 4, 4])
  pixels = np.round(batch.x * 255).astype(np.uint8)
  assert_close(
      _terms_and_grad(MODEL, params, KEY, batch._replace(x=pixels), 5),
      _terms_and_grad(
          MODEL, params, KEY, batch._replace(x=np.float32(pixels / 255.0)), 5))


# Gradients.


@pytest.mark.parametrize(
    'likelihood', [Bernoulli(), Gaussian(0.3), LearnedGaussian()])
def test_every_weight_learns(likelihood):
  model = Model(ml_vae(3, 2), SHAPE, likelihood, MLP((16,)))
  batch = make_batch(model, [0, 1, 1, 2, 0, 1, 4, 4])
  _, grad = _terms_and_grad(model, init_params(model), KEY, batch, 5)
  for value in jax.tree.leaves(grad):
    assert np.all(np.isfinite(value)) and np.all(np.asarray(value) != 0)


def test_every_real_row_teaches_the_content_its_mean_and_logvar():
  # Image i is white in pixel i alone and the encoder is linear: weight
  # [i, head] then has the gradient of that head of row i.
  model = Model(ml_vae(3, 2), SHAPE, Bernoulli(), MLP(()))
  mask = np.array([True] * 7 + [False] * 3)
  batch = make_batch(model, [0, 1, 1, 2, 0, 1, 1, 0, 1, 3], mask=mask)
  batch = batch._replace(
      x=np.eye(10, 64, dtype=np.float32).reshape(10, *SHAPE))
  _, grad = _terms_and_grad(model, init_params(model), KEY, batch, 4)
  kernel = np.asarray(grad['encoder']['heads']['kernel'])
  assert np.all(np.isfinite(kernel))
  assert np.all(kernel[:7] != 0)
  np.testing.assert_array_equal(kernel[7:], 0.0)


def test_new_ids_need_no_new_compilation(compilations):
  params = init_params(MODEL)
  batches = [make_batch(MODEL, ids, seed) for seed, ids in enumerate(
      ([0, 1, 1, 2, 2, 0, 1, 0], [3] * 8, [2, 0, 1, 3, 4, 0, 1, 4]))]
  _terms_and_grad(MODEL, params, KEY, batches[0], 5)
  with compilations() as names:
    for batch in batches[1:]:
      _terms_and_grad(MODEL, params, KEY, batch, 5)
  assert not names


# Noise and layout.


def test_noise_is_a_function_of_key_and_row():
  noise = jax.jit(row_noise, static_argnums=2)
  rows = jnp.arange(1000)
  whole = np.asarray(noise(KEY, rows, 4))
  subset = np.array([999, 3, 3, 0, 512])
  np.testing.assert_array_equal(noise(KEY, rows[subset], 4), whole[subset])
  other = np.asarray(noise(jax.random.key(8), rows, 4))
  assert np.all(whole != other)
  assert len(np.unique(whole)) == whole.size
  # Four standard errors of mean and variance.
  assert abs(whole.mean()) < 4 / np.sqrt(whole.size)
  assert abs(whole.var() - 1.0) < 4 * np.sqrt(2.0 / whole.size)


def test_factors_have_noise_of_their_own():
  # Two factors that enter alike: with equal noise, swapping their decoder
  # weights would change nothing.
  model = Model((Factor('a', 2), Factor('b', 2)), SHAPE, Bernoulli(), MLP(()))
  params = init_params(model)
  heads = params['encoder']['heads']
  heads['kernel'] = jnp.tile(heads['kernel'][:, :4], 2)
  heads['bias'] = jnp.tile(heads['bias'][:4], 2)
  swapped = jax.tree.map(lambda value: value, params)
  kernel = params['decoder']['pixels']['kernel']
  swapped['decoder']['pixels']['kernel'] = jnp.roll(kernel, 2, axis=0)
  batch = make_batch(model, np.zeros(6))
  first, second = (
      _terms_and_grad(model, p, KEY, batch, 1)[0].log_lik
      for p in (params, swapped))
  assert np.all(np.abs(first - second) > 1e-3)


@pytest.mark.slow
def test_a_group_samples_per_row_or_once():
  model = Model((Factor('c', 4, 'g'),), SHAPE, Bernoulli(), MLP((16,)))
  params = init_params(model)
  batch = make_batch(model, [0, 0, 0, 1, 1, 2])
  batch = batch._replace(x=np.repeat(batch.x[:1], 6, axis=0))
  once, per_row = (
      np.asarray(_terms_and_grad(
          model, params, KEY, batch, 3, sample_per)[0].log_lik)
      for sample_per in ('group', 'row'))
  # The same image and the same code have the same likelihood.
  np.testing.assert_allclose(once[:3], once[0], rtol=1e-6)
  np.testing.assert_allclose(once[3:5], once[3], rtol=1e-6)
  assert len(set(np.round(once, 3))) == 3
  assert len(set(np.round(per_row, 3))) == 6


@pytest.mark.slow
@pytest.mark.parametrize('sample_per', ['row', 'group'])
def test_groups_that_straddle_devices_equal_one_device(sample_per):
  num_devices = jax.local_device_count()
  ids = np.repeat([0, 1, 2, 4], [1, 3 * num_devices, num_devices, num_devices])
  num_rows = 6 * num_devices
  mask = np.arange(num_rows) < len(ids)
  batch = make_batch(MODEL, np.resize(ids, num_rows), mask=mask)
  batch.x[~mask] = np.nan
  params = init_params(MODEL)

  def on_device(params, batch):
    def elbo(params):
      sums = sum_terms(elbo_terms(
          MODEL, params, KEY, batch, {'content': 6}, sample_per=sample_per,
          axis_name='devices'))
      return sums.elbo(), sums

    grad, sums = jax.grad(elbo, has_aux=True)(params)
    return jax.lax.psum((sums, grad), 'devices')

  split = jax.tree.map(
      lambda v: v.reshape(num_devices, -1, *v.shape[1:]), batch)
  found = jax.pmap(
      on_device, axis_name='devices', in_axes=(None, 0), out_axes=None)(
          params, split)
  terms, grad = _terms_and_grad(MODEL, params, KEY, batch, 6, sample_per)
  assert_close(found, (sum_terms(terms), grad))
  assert terms.num_groups == 4


# Weights.


def test_weights_multiply_the_kls():
  batch = make_batch(MODEL, [0, 1, 1, 2, 0, 1, 4, 4])
  sums = sum_terms(
      _terms_and_grad(MODEL, init_params(MODEL), KEY, batch, 5)[0])
  np.testing.assert_allclose(
      sums.elbo({'content': 3.0, 'style': 0.5}),
      sums.log_lik - 3.0 * sums.kl['content'] - 0.5 * sums.kl['style'],
      rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float16])
def test_all_rows_of_low_precision_are_counted(dtype):
  batch = make_batch(MODEL, np.arange(600) % 7)
  params = init_params(MODEL)
  low = batch._replace(x=batch.x.astype(dtype))
  sums = sum_terms(elbo_terms(MODEL, params, KEY, low, {'content': 7}))
  exact = sum_terms(elbo_terms(
      MODEL, params, KEY, low._replace(x=low.x.astype(jnp.float32)),
      {'content': 7}))
  assert sums.num_rows == 600
  assert {leaf.dtype for leaf in jax.tree.leaves(sums)} == {jnp.float32.dtype}
  assert_close(sums, exact)


@pytest.mark.parametrize('penalty, match', [
    (('contrast', 'contnet'),
     r"no factor 'contnet', expected one of \['content', 'style'\]"),
    (('contrast', 'style'), "contrast needs a grouped factor, got 'style'"),
    (('mean_leakage', 'content'),
     '^mean_leakage needs some other factor with a different grouping, and '
     "'content' has none"),
    (('mean_leakage', 'z'), "no factor 'z'")])
def test_penalties_on_unknown_factors_are_refused(penalty, match):
  with pytest.raises(ValueError, match=match):
    penalised_terms(
        MODEL, init_params(MODEL), KEY, make_batch(MODEL, [0, 1]),
        {'content': 2}, [Penalty(*penalty, 1.0)])


@pytest.mark.slow
def test_a_model_without_groups_refuses_them_too():
  model = dataclasses.replace(MODEL, factors=vae(3))
  with pytest.raises(ValueError, match='mean_leakage needs some other factor'):
    penalised_terms(model, init_params(model), KEY, make_batch(model, [0]), {},
                    [Penalty('mean_leakage', 'z', 1.0)])


@pytest.mark.parametrize('factors, num_groups', [
    (MODEL.factors, {'content': 2}), (vae(3), {})])
def test_another_sample_per_is_refused(factors, num_groups):
  model = dataclasses.replace(MODEL, factors=factors)
  with pytest.raises(ValueError, match='expected sample_per'):
    elbo_terms(model, init_params(model), KEY, make_batch(model, [0, 1]),
               num_groups, sample_per='image')


def test_weights_of_unknown_factors_are_refused():
  sums = sum_terms(elbo_terms(
      MODEL, init_params(MODEL), KEY, make_batch(MODEL, [0, 1]),
      {'content': 2}))
  assert sums.elbo({'style': 1.0}) == sums.elbo()
  with pytest.raises(ValueError, match=r"kl_weights.*'stile'"):
    sums.elbo({'stile': 2.0})


def test_an_encoder_pays_for_whole_pieces():
  batch = make_batch(MODEL, [0, 1])
  with pytest.raises(ValueError, match='leave batch.kl_share out'):
    elbo_terms(MODEL, init_params(MODEL), KEY,
               batch._replace(kl_share={'content': np.ones(2, 'f')}),
               {'content': 2})


def test_warm_up_grows_linearly_to_one():
  weights = jax.jit(lambda steps: jax.vmap(lambda n: warm_up(n, 4))(steps))(
      jnp.arange(6))
  np.testing.assert_allclose(weights, [0.25, 0.5, 0.75, 1.0, 1.0, 1.0])
  np.testing.assert_array_equal(warm_up(jnp.arange(3), 0), 1.0)
