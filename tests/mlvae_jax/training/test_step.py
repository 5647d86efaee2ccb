"""Steps, and chunks of steps over devices.

Most tests train the same tiny model on the same noise images; `_train` runs
it. Noise images are as good as any here: nothing is learned but the numbers.
"""

import dataclasses
import functools
import itertools
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import mlvae_jax
from mlvae_jax.data.augment import Augment
from mlvae_jax.data.feed import DEVICES, Feed
from mlvae_jax.data.grouped import GroupedData
from mlvae_jax.data.index_stream import IndexStream
from mlvae_jax.grouping.free import Free
from mlvae_jax.grouping.group_posteriors import GROUP_POSTERIORS
from mlvae_jax.inference import free
from mlvae_jax.model.factors import Batch, ml_vae
from mlvae_jax.model.model import Model
from mlvae_jax.model.networks.conv import Conv
from mlvae_jax.model.networks.mlp import MLP
from mlvae_jax.objective.elbo import ElboTerms, sum_terms
from mlvae_jax.objective.penalties.registry import Penalty
from mlvae_jax.training.loop import DivergedError, make_chunk, train
from mlvae_jax.training.step import Metrics, TrainConfig, init_state, train_step
from tests.helpers import ROOT
from tests.helpers.small_models import penalised_terms

MODEL = Model(ml_vae(3, 2), (8, 8, 1), network=MLP((16,)))
CONFIG = TrainConfig(learning_rate=1e-2, seed=5)
AUGMENTED = dataclasses.replace(CONFIG, augment=Augment(flip=True, shift=1))
PENALISED = dataclasses.replace(
    AUGMENTED, penalties=(Penalty('contrast', 'content', 200.0),
                          Penalty('mean_leakage', 'style', 300.0)))
SIZES = [3, 9, 1, 14, 8, 5]
NUM_STEPS = 20


def _data():
  """Forty images in six groups."""
  images = np.random.default_rng(0).integers(
      0, 256, (sum(SIZES), 8, 8, 1), dtype=np.uint8)
  offsets = np.concatenate([[0], np.cumsum(SIZES)])
  return GroupedData(images, offsets, tuple('abcdef'))


def _stream(**arguments):
  """Batches of four groups of at most four of the images."""
  return IndexStream(_data(), ('group',), **{
      'groups_per_batch': 4, 'max_group_size': 4,
      'row_multiple': jax.local_device_count(), **arguments})


def _feed(data=None, model=MODEL, on_device=True, **arguments):
  """A feed of `_stream`'s batches."""
  return Feed(model, data or _data(), _stream(**arguments),
              on_device=on_device)


@functools.cache
def _initial_state(model=MODEL, config=CONFIG):
  """The state before the first step, on the host so that none donates it."""
  return jax.device_get(init_state(model, config))


# Built once: it compiles for every number of steps that it meets.
_CHUNK = make_chunk(MODEL, CONFIG, {'content': 4})


def _train(start=None, feed=None, num_steps=NUM_STEPS, chunk_steps=5,
           chunk=_CHUNK):
  """The ELBO of every step, and the state after the last one."""
  elbos = []
  for state, metrics in train(
      start or _initial_state(), feed or _feed(), chunk,
      num_steps=num_steps, chunk_steps=chunk_steps):
    elbos.append(metrics.sums.elbo() / metrics.sums.num_groups)
    last = jax.device_get(state)
  return np.concatenate(elbos), last


@functools.cache
def _expected():
  """What `_train` gives."""
  return _train()


def print_curve():
  """Prints the curve as JSON: run with another number of devices, below."""
  print(json.dumps(_train()[0].tolist()))


# The same batches with so much padding that some is in each of them.
_PADDED = _stream(row_multiple=32)


def _batch(index):
  """A step's batch, as one device sees it."""
  return Batch(
      _data().x[index.rows], {'content': index.group_ids['group']},
      index.mask, np.arange(len(index.rows)))


def _assert_same_bits(found, expected):
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
    np.testing.assert_array_equal(a, b)


# One step.


@functools.partial(jax.jit, static_argnums=0)
def _step(config, state, batch):
  return train_step(MODEL, config, {'content': 4}, state, batch)


def test_a_step_raises_the_elbo():
  batch = _batch(_PADDED.batch(0))
  after, metrics = _step(CONFIG, _initial_state(), batch)
  assert int(after.step) == 1
  # Once more at step 0, for the same noise.
  _, again = _step(CONFIG, after._replace(step=np.int32(0)), batch)
  assert again.sums.elbo() > metrics.sums.elbo()


def _blind_params(model):
  """Parameters whose decoder ignores the codes, so that noise is nothing."""
  params = _initial_state(model).params
  return {'encoder': params['encoder'],
          'decoder': jax.tree.map(jnp.zeros_like, params['decoder'])}


@pytest.mark.slow
@pytest.mark.parametrize('config, weights', [
    (CONFIG, {'content': 1.0, 'style': 1.0}),
    (TrainConfig(kl_weights=(('content', 0.5),), kl_warmup_steps=4),
     {'content': 0.5 / 4, 'style': 1.0 / 4}),
    (dataclasses.replace(
        CONFIG, penalties=(Penalty('contrast', 'content', 200.0),)),
     {'content': 1.0, 'style': 1.0}),
])
def test_the_gradient_is_that_of_the_average_over_real_groups(config, weights):
  params = _blind_params(MODEL)
  index = _PADDED.batch(0)
  real = _batch(jax.tree.map(
      lambda value: value[index.mask], index._replace(groups={})))
  assert len(real.mask) < len(index.mask)

  def loss(params):
    sums = sum_terms(penalised_terms(
        MODEL, params, jax.random.key(0), real, {'content': 4},
        config.penalties))
    penalty = sum(sums.penalties.values())  # Weights are in its gradient.
    return (penalty - sums.elbo(weights)) / sums.num_groups, sums

  grad, sums = jax.jit(jax.grad(loss, has_aux=True))(params)
  _, metrics = _step(
      config, _initial_state()._replace(params=params), _batch(index))
  np.testing.assert_allclose(
      metrics.grad_norm, optax.tree.norm(grad), rtol=1e-5)
  # Metrics are of the ELBO itself, without weights.
  np.testing.assert_allclose(metrics.sums.elbo(), sums.elbo(), rtol=1e-5)
  # One of the four groups is padding: nothing may be divided by four.
  assert metrics.sums.num_groups == sums.num_groups == 3


@pytest.mark.parametrize('step, share', [
    (0, 1.0), (5, 1.0), (6, 1.0), (7, 0.75), (9, 0.25), (10, 0.0), (12, 0.0)])
def test_the_learning_rate_falls_to_0_at_the_end(step, share):
  config = dataclasses.replace(CONFIG, num_steps=10, decay_fraction=0.4)
  before = _initial_state()._replace(step=np.int32(step))
  batch = _batch(_PADDED.batch(0))
  constant, _ = _step(CONFIG, before, batch)
  falling, _ = _step(config, before, batch)
  for old, full, new in zip(*(jax.tree.leaves(state.params) for state in (
      before, constant, falling))):
    np.testing.assert_allclose(
        new - old, share * (full - old), rtol=1e-3, atol=1e-6)


def test_seeds_differ_in_initialisation():
  kernels = [
      _initial_state(MODEL, TrainConfig(seed=seed)).params['encoder']['heads'][
          'kernel'] for seed in (0, 1)]
  assert np.all(kernels[0] != kernels[1])


def test_seeds_and_steps_differ_in_noise():
  state, batch = _initial_state(), _batch(_PADDED.batch(0))
  later = state._replace(step=np.int32(1))
  log_lik = [
      float(_step(config, start, batch)[1].sums.log_lik)
      for config, start in (
          (CONFIG, state), (CONFIG, later),
          (TrainConfig(kl_weights=(('content', 0.5),), kl_warmup_steps=4),
           state))]
  assert len(set(log_lik)) == 3


@pytest.mark.slow
def test_augmentation_changes_the_images_and_nothing_else():
  batch = _batch(_PADDED.batch(0))
  # Flips and shifts change nothing about images of one colour.
  plain = batch._replace(x=np.full_like(batch.x, 90))
  for x, is_same in ((batch, False), (plain, True)):
    found, expected = (
        _step(config, _initial_state(), x)[1] for config in (
            AUGMENTED, CONFIG))
    assert (found.sums.log_lik == expected.sums.log_lik) == is_same
    assert (found.grad_norm == expected.grad_norm) == is_same


@pytest.mark.slow
def test_every_step_augments_anew():
  # Parameters that ignore the codes: there is no noise but augmentation's.
  state = _initial_state()._replace(params=_blind_params(MODEL))
  batch = _batch(_PADDED.batch(0))
  found = [
      [float(_step(config, state._replace(step=np.int32(step)), batch)[
          1].sums.kl['style']) for step in (0, 1)]
      for config in (CONFIG, AUGMENTED)]
  assert found[0][0] == found[0][1]
  assert len({found[0][0], *found[1]}) == 3


# Chunks and devices.


@pytest.mark.slow
@pytest.mark.parametrize('num_devices', [2, 4])
def test_devices_agree_on_penalties_and_augmented_images(num_devices):
  if num_devices > jax.local_device_count():
    pytest.skip(f'there are no {num_devices} devices')
  index = _PADDED.batch(1)
  # Members of a group and padding lie on all the devices.
  order = np.random.default_rng(0).permutation(len(index.mask))
  batch = jax.tree.map(lambda value: value[order], _batch(index))
  step = jax.pmap(
      functools.partial(train_step, MODEL, PENALISED, {'content': 4},
                        axis_name=DEVICES),
      axis_name=DEVICES, in_axes=(None, 0), out_axes=None,
      devices=jax.local_devices()[:num_devices])
  found = step(_initial_state(), jax.tree.map(
      lambda value: value.reshape(num_devices, -1, *value.shape[1:]), batch))
  expected = _step(PENALISED, _initial_state(), batch)
  assert expected[1].sums.penalties['contrast/content'] > 1.0
  assert expected[1].sums.penalties['mean_leakage/style'] != 0.0
  # Adam's first moment, in proportion to the gradient.
  for a, b in zip(*(
      jax.tree.leaves((metrics, state.opt_state[0].mu))
      for state, metrics in (found, expected))):
    np.testing.assert_allclose(
        a, b, rtol=0, atol=1e-5 * np.max(np.abs(b), initial=0.0))


@pytest.mark.slow
# After the sums over devices the other kinds are nothing but arithmetic, so
# check_vma=True is enough for them.
@pytest.mark.parametrize('kind, check_vma', [
    *itertools.product(('product', 'mixture', 'free'), (True, False)),
    ('moments', True), ('adaptive', True), ('prior_product', True),
    ('harmonic', True)])
def test_shard_map_takes_the_steps_of_pmap(kind, check_vma):
  """A gradient that is summed over devices twice would be four times that."""
  if jax.local_device_count() < 4:
    pytest.skip('there are no four devices')
  model = dataclasses.replace(MODEL, group_posterior=GROUP_POSTERIORS[kind]())
  config, sizes, table_rows = PENALISED, None, None
  if kind == 'free':
    config = dataclasses.replace(
        CONFIG, penalties=(Penalty('mean_leakage', 'style', 300.0),))
    sizes = {'content': 6, 'style': 40}
  batch = _batch(_PADDED.batch(1))
  if kind == 'free':
    rows = np.arange(len(batch.mask))
    table_rows = {'content': np.array([3, 1, 5, 0]),
                  'style': np.where(batch.mask, rows, -1)}
  state = init_state(model, config, sizes)

  def step(state, batch, groups, rows):
    return train_step(
        model, config, {'content': 4}, state, batch, DEVICES,
        None if groups is None else {'content': groups, 'style': rows})

  arguments = (
      batch, *(table_rows or {'content': None, 'style': None}).values())
  spec = jax.sharding.PartitionSpec
  mesh = jax.sharding.Mesh(np.array(jax.local_devices()[:4]), (DEVICES,))
  sharded = jax.jit(jax.shard_map(
      step, mesh=mesh, in_specs=(spec(), spec(DEVICES), spec(), spec(DEVICES)),
      out_specs=spec(), check_vma=check_vma))
  mapped = jax.pmap(
      step, axis_name=DEVICES, in_axes=(None, 0, None, 0), out_axes=None,
      devices=jax.local_devices()[:4])
  split = jax.tree.map(
      lambda v: v.reshape(4, -1, *v.shape[1:]), arguments)
  found, expected = sharded(state, *arguments), mapped(
      state, split[0], arguments[1], split[2])
  # Adam's first moment, in proportion to the gradient; tables.
  for a, b in zip(*(
      jax.tree.leaves((metrics, state.opt_state[0].mu, state.tables))
      for state, metrics in (found, expected))):
    np.testing.assert_allclose(
        a, b, rtol=0, atol=1e-5 * np.max(np.abs(b), initial=0.0))


@pytest.mark.slow
def test_shard_map_infers_what_one_device_does():
  model = dataclasses.replace(MODEL, group_posterior=Free())
  params = jax.jit(model.init)(jax.random.key(0))
  batch = _batch(_PADDED.batch(1))
  spec = jax.sharding.PartitionSpec
  mesh = jax.sharding.Mesh(np.array(jax.local_devices()), (DEVICES,))

  def fit(params, batch, axis_name=None):
    return free.fit(model, params, jax.random.key(0), batch, (('content', 4),),
                   num_steps=10, axis_name=axis_name)

  sharded = jax.jit(jax.shard_map(
      functools.partial(fit, axis_name=DEVICES), mesh=mesh,
      in_specs=(spec(), spec(DEVICES)),
      out_specs={'content': spec(), 'style': spec(DEVICES)}))
  jax.tree.map(
      functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
      sharded(params, batch), fit(params, batch))
  images = batch.x[:2 * jax.local_device_count()]
  apart = jax.jit(jax.shard_map(
      lambda params, x: mlvae_jax.posteriors(model, params, x), mesh=mesh,
      in_specs=(spec(), spec(DEVICES)), out_specs=spec(DEVICES)))
  assert apart(params, images)['style'].mean.shape == (len(images), 2)


@pytest.mark.slow
def test_devices_follow_the_curve_of_one_step_after_the_other():
  state, stream, elbos = _initial_state(), _PADDED, []
  for i in range(NUM_STEPS):
    state, metrics = _step(CONFIG, state, _batch(stream.batch(i)))
    elbos.append(metrics.sums.elbo() / metrics.sums.num_groups)
  # Rounding differs, and twenty steps of Adam amplify it.
  np.testing.assert_allclose(_expected()[0], elbos, rtol=1e-4)


def _run_as_users_do(name, num_devices):
  """What a function of this file prints, in a process of its own.

  Its programs are optimised, and made by the newest code generator.
  """
  tests = pathlib.Path(__file__).parent
  done = subprocess.run(
      [sys.executable, '-W', 'error', '-c',
       f'import test_step; test_step.{name}()'],
      env={**os.environ, 'JAX_PLATFORMS': 'cpu',
           'JAX_DISABLE_MOST_OPTIMIZATIONS': '0',
           'PYTHONPATH': os.pathsep.join([str(tests), *filter(None, sys.path)]),
           'XLA_FLAGS':
           f'--xla_force_host_platform_device_count={num_devices}'},
      cwd=ROOT, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize('num_devices', [1, 8])
def test_other_numbers_of_devices_give_the_same_curve(num_devices):
  # As above: rounding, amplified by twenty steps.
  np.testing.assert_allclose(
      _run_as_users_do('print_curve', num_devices), _expected()[0], rtol=1e-4)


def print_differences():
  """Prints as JSON which of several ways to train change any bit."""
  first, state = _train(num_steps=9)
  second, state = _train(state)
  found = {
      'in chunks of 1': _train(chunk_steps=1),
      'in chunks of 4': _train(chunk_steps=4),
      'in two parts': (np.concatenate([first, second]), state),
      'pixels from the host': _train(feed=_feed(on_device=False))}
  print(json.dumps([
      name for name, run in found.items() if not jax.tree.all(
          jax.tree.map(np.array_equal, run, _expected()))]))


@pytest.mark.slow
def test_chunks_parts_and_pixels_from_the_host_do_not_change_a_bit():
  # Not in this process: XLA's older code generator, which tests use, rounds
  # programs of several lengths differently.
  assert not _run_as_users_do('print_differences', 4)


@pytest.mark.slow
def test_penalties_and_augmentation_resume_without_changing_a_bit():
  run = functools.partial(
      _train, feed=_feed(visit='groups', min_group_size=3, on_device=False),
      chunk=make_chunk(MODEL, PENALISED, {'content': 4}),
      chunk_steps=2)
  whole = run(num_steps=6)
  first, state = run(num_steps=4)
  assert int(state.step) == 4
  second, state = run(state, num_steps=6)
  _assert_same_bits((np.concatenate([first, second]), state), whole)


@pytest.mark.slow
def test_a_convolutional_model_learns():
  model = Model(
      ml_vae(3, 2), (8, 8, 1), network=Conv((4, 6), (8,), norm_groups=2))
  elbos, _ = _train(
      _initial_state(model), _feed(model=model), num_steps=40, chunk_steps=10,
      chunk=make_chunk(model, AUGMENTED, {'content': 4}))
  # train() has checked that every one is finite.
  per_image = elbos * 4 / _feed().stream.rows_per_batch
  assert per_image[-5:].mean() > per_image[:5].mean() + 5.0


def test_chunks_end_at_multiples_and_the_last_step():

  def count_steps(state, images, index, pixels):
    """Takes the place of a chunk, and trains nothing."""
    del images, pixels
    num_steps = index.rows.shape[1]
    ones = np.ones(num_steps, np.float32)
    sums = ElboTerms(ones, {'content': ones}, ones, ones, {})
    return (state._replace(step=state.step + num_steps),
            Metrics(sums, ones, ones))

  def ends(start, num_steps):
    state = _initial_state()._replace(step=np.int32(start))
    return [int(state.step) for state, _ in train(
        state, _feed(), count_steps, num_steps=num_steps, chunk_steps=5)]

  assert ends(0, 12) == [5, 10, 12]
  assert ends(3, 10) == [5, 10]
  assert ends(10, 10) == []


@pytest.mark.slow
def test_only_the_first_chunk_compiles(compilations):
  # Of settings that no other test has, whose program would be there already.
  config = dataclasses.replace(CONFIG, learning_rate=0.0123)
  chunk = make_chunk(MODEL, config, {'content': 4})
  counts = []
  with compilations() as names:
    for _ in train(
        _initial_state(), _feed(), chunk, num_steps=16,
        chunk_steps=4):
      counts.append(len(names))
  assert len(counts) == 4 and counts[0] > 0
  assert counts[1:] == counts[:1] * 3, names


@pytest.mark.slow
def test_runs_that_differ_in_their_seed_share_programs(compilations):

  def log_liks(**changes):
    config = dataclasses.replace(CONFIG, **changes)
    (_, metrics), = train(
        init_state(MODEL, config), _feed(),
        make_chunk(MODEL, config, {'content': 4}), num_steps=2, chunk_steps=2)
    return metrics.sums.log_lik

  first = log_liks(seed=1)
  with compilations() as names:
    other = log_liks(seed=2 ** 31 - 1, num_steps=9)
    np.testing.assert_array_equal(log_liks(seed=1), first)
  assert not names
  assert np.all(other != first)


@pytest.mark.parametrize('row', [7, 30])
def test_a_nan_stops_training_and_names_the_step(row):
  data = _data()
  images = np.float32(data.x / 255.0)
  images[row, 3, 3, 0] = np.nan
  object.__setattr__(data, 'x', images)  # Which a store itself refuses.
  feed = _feed(data)
  index = feed.stream.batches(0, feed.stream.steps_per_epoch)
  step = int(np.argmax(np.any((index.rows == row) & index.mask, axis=1)))
  states = []
  with pytest.raises(
      DivergedError, match=rf'not finite at step {step + 1}$'):
    for state, _ in train(
        _initial_state(), feed, _CHUNK, num_steps=20,
        chunk_steps=1):
      states.append(jax.device_get(state.params))
  assert len(states) == step
  assert all(np.all(np.isfinite(v)) for v in jax.tree.leaves(states))


def test_rows_that_do_not_divide_over_devices_are_refused():
  num_devices = jax.local_device_count()
  if num_devices == 1:
    pytest.skip('one device takes any number of rows')
  with pytest.raises(ValueError, match=f'over {num_devices} devices; pass'):
    _feed(groups_per_batch=1, max_group_size=3, row_multiple=1)
