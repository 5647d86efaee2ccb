"""The benchmark: its PyTorch twin is the same function, and its table reads.

Speeds are not tested, for they are the machine's.
"""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import speed
from experiments.benchmarks.speed import Row
from mlvae_jax.grouping import posterior
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.grouping.product import product_of_normals
from mlvae_jax.model.factors import Batch, Factor, ml_vae
from mlvae_jax.model.likelihoods import Bernoulli, Gaussian, LearnedGaussian
from mlvae_jax.model.model import Model
from mlvae_jax.model.networks import MLP, Conv
from mlvae_jax.objective.elbo import elbo_terms, sum_terms
from mlvae_jax.training.loop import make_chunk, train
from mlvae_jax.training.step import TrainConfig, init_state
from tests.helpers import ROOT

# Sides and channels that differ, for a layout that is mixed up to show.
_MODELS = {
    'conv': Model(
        ml_vae(3, 2), (8, 4, 3), Gaussian(0.15), Conv((5, 4), (6,))),
    'conv of two outputs': Model(
        (Factor('style', 2), Factor('content', 3, 'group')), (4, 6, 2),
        LearnedGaussian(), Conv((4,), (8, 5))),
    'mlp': Model(
        ml_vae(3, 2), (4, 6, 3), LearnedGaussian(), MLP((16, 8))),
}
_IDS = np.array([2, 0, 1, 1, 0, 2, 2], np.int32)
_NUM_GROUPS = 3

each_model = pytest.mark.parametrize('name', list(_MODELS))


@pytest.fixture(scope='module')
def torch_twin():
  """The module that needs PyTorch."""
  pytest.importorskip(
      'torch', reason='PyTorch is not installed; it is optional')
  from experiments.benchmarks import torch_twin
  return torch_twin


def _params(model):
  """Random parameters, biases among them."""
  rng = np.random.default_rng(1)
  return jax.tree.map(
      lambda p: np.float32(0.2 * rng.normal(size=p.shape)),
      jax.eval_shape(model.init, jax.random.key(0)))


def _images(model):
  return np.random.default_rng(0).integers(
      0, 256, (len(_IDS), *model.image_shape), np.uint8)


def _tensor(torch_twin, value):
  return torch_twin.torch.tensor(np.asarray(value))


def _assert_close(found, expected):
  # Sums in another order, of numbers whose scale the largest one tells.
  expected = np.asarray(expected)
  np.testing.assert_allclose(
      found.detach().numpy(), expected, rtol=1e-5,
      atol=1e-5 * np.abs(expected).max())


@each_model
def test_the_twin_encodes_and_decodes_the_same(torch_twin, name):
  model, params = _MODELS[name], _params(_MODELS[name])
  images = _images(model)
  twin = torch_twin.Twin(model, params)
  x = torch_twin.to_float(_tensor(torch_twin, images))

  @jax.jit
  def ours(params, images):
    q = model.encode(params, images)
    logits = model.decode(params, {key: q[key].mean for key in q})
    return q, logits, model.likelihood.log_prob(
        logits, model.to_float(images))

  expected, logits, log_prob = ours(params, images)
  found = twin.encode(x)
  assert set(found) == set(expected)
  for factor, q in expected.items():
    for our, their in zip(q, found[factor]):
      _assert_close(their, our)
  found = twin.decode({key: mean for key, (mean, _) in found.items()})
  _assert_close(found.movedim(2, -1), logits)
  _assert_close(twin.log_prob(found, x), log_prob)


def _zero_noise(monkeypatch):
  monkeypatch.setattr(
      posterior, 'row_noise', lambda key, rows, dim: jnp.zeros(
          (len(rows), dim)))


@each_model
def test_the_twin_has_the_same_elbo_and_gradient(
    torch_twin, name, monkeypatch):
  _zero_noise(monkeypatch)
  model, params = _MODELS[name], _params(_MODELS[name])
  images = _images(model)
  batch = Batch(images, {'content': _IDS}, np.ones(len(_IDS), bool),
                np.arange(len(_IDS)))

  def elbo(params):
    return sum_terms(elbo_terms(
        model, params, jax.random.key(0), batch,
        {'content': _NUM_GROUPS})).elbo()

  expected, gradient = jax.jit(jax.value_and_grad(elbo))(params)
  twin = torch_twin.Twin(model, params)
  found = twin.elbo(
      torch_twin.to_float(_tensor(torch_twin, images)),
      _tensor(torch_twin, _IDS).long(), _NUM_GROUPS,
      torch_twin.torch.zeros_like)
  _assert_close(found, expected)
  found.backward()
  # A twin of the gradient has its numbers where the twin's own are.
  of_gradient = dict(torch_twin.Twin(model, gradient).named_parameters())
  assert of_gradient
  for key, parameter in twin.named_parameters():
    _assert_close(parameter.grad, of_gradient[key].detach().numpy())


def test_the_twin_trains_the_same(torch_twin, monkeypatch):
  _zero_noise(monkeypatch)
  monkeypatch.setattr(
      torch_twin.Twin.elbo, '__defaults__', (torch_twin.torch.zeros_like,))
  model = _MODELS['mlp']
  data = speed._noise_images(6, 4, model)
  feed = speed._feed(model, data, 3)
  config = TrainConfig(learning_rate=1e-2)
  state = init_state(model, config)
  twin = torch_twin.Twin(model, state.params)
  trainer = torch_twin.Trainer(twin, data.images, feed.stream, 1e-2)
  chunk = make_chunk(model, config, feed.num_groups)
  *_, (_, metrics) = train(
      state, feed, chunk, num_steps=4, chunk_steps=2)
  trainer.chunk(0, 2)
  # Four steps of Adam amplify rounding.
  np.testing.assert_allclose(
      trainer.chunk(2, 4),
      metrics.sums.elbo()[-1] / metrics.sums.num_groups[-1], rtol=1e-4)


def test_the_twin_multiplies_the_same_normals(torch_twin):
  rng = np.random.default_rng(3)
  q = Normal(*rng.normal(size=(2, len(_IDS), 4)).astype(np.float32))
  expected = product_of_normals(q, _IDS, _NUM_GROUPS)
  found = torch_twin.product_of_normals(
      tuple(_tensor(torch_twin, value) for value in q),
      _tensor(torch_twin, _IDS).long(), _NUM_GROUPS)
  for theirs, ours in zip(found, expected):
    _assert_close(theirs, ours)


@pytest.mark.parametrize('likelihood, network', [
    (Bernoulli(), Conv((4,))),
    (Gaussian(), Conv((4,), activation='relu')),
    (Gaussian(), Conv((4,), norm_groups=2)),
])
def test_a_model_without_a_twin_is_refused(torch_twin, likelihood, network):
  model = Model(ml_vae(3, 2), (8, 8, 1), likelihood, network)
  with pytest.raises(ValueError, match='no twin of'):
    torch_twin.Twin(model, {})


# The benchmark itself.


@pytest.mark.parametrize('measure', [
    lambda: speed.train_conv(1, (4,), 4, num_groups=4, steps=1),
    lambda: speed.train_mlp(1, num_groups=4, steps=1),
    lambda: speed.accumulate(1, num_rows=1000, num_groups=100),
    lambda: speed.multiply(1, size=16),
], ids=['conv', 'mlp', 'product', 'matrix'])
def test_rows_compare_where_pytorch_is_installed(measure):
  row = measure()
  assert row.jax > 0
  if speed.torch is None:
    assert row.pytorch is row.ratio is None
  else:
    # One measurement each: the ratio is that of the two.
    np.testing.assert_allclose(row.ratio, row.jax / row.pytorch, rtol=1e-6)


def test_without_pytorch_rows_stand_alone(monkeypatch):
  monkeypatch.setattr(speed, 'torch', None)
  row = speed.multiply(1, size=16)
  assert row.jax > 0 and row.pytorch is row.ratio is None
  assert speed.format_row(row).split()[-4:-1] == [
      speed.format_row(row).split()[-4], '-', '-']


def test_loading_is_also_told_in_terms_of_training(monkeypatch):
  conv = Row('conv 4', 50.0, None, None, 'images/s')
  loading = Row('gather', 400.0, None, None, 'rows/s')
  monkeypatch.setattr(speed, 'train_conv', lambda *_: conv)
  monkeypatch.setattr(speed, 'gather', lambda *_: loading)
  rows = list(speed.measure(['gather', 'conv'], 1))
  assert [row.jax for row in rows] == [50.0, 50.0, 400.0, 8.0, 8.0]
  assert len(list(speed.measure(['gather'], 1))) == 1


def test_gathering_reads_whole_batches():
  row = speed.gather(1, num_groups=64, steps=2)
  assert row.jax > 0 and row.unit == 'rows/s'


def test_columns_are_aligned():
  lines = [speed.format_row(row) for row in (
      Row._fields, Row('a', 12345.6, 2.0, 6172.8, 'rows/s'),
      Row('b', 1.234, None, None, 'GB/s'))]
  assert lines[1].split() == ['a', '12,346', '2', '6,173', 'rows/s']
  assert lines[2].split() == ['b', '1.23', '-', '-', 'GB/s']
  assert lines[0].index('unit') == lines[1].index('rows/s') == (
      lines[2].index('GB/s'))


# In its own process.


def _run(*args):
  return subprocess.run(
      [sys.executable, '-W', 'error', '-m', 'experiments.benchmark', *args],
      cwd=ROOT, text=True, capture_output=True,
      timeout=300, check=False, env=os.environ | {'JAX_PLATFORMS': 'cpu'})


def test_it_prints_a_table_and_writes_it(tmp_path):
  path = tmp_path / 'speed.json'
  result = _run('--only=machine', '--repeats=1', f'--json={path}')
  assert result.returncode == 0, result.stderr
  first, *lines = result.stdout.splitlines()
  assert first.startswith('jax ') and 'torch' in first
  hint = 'pip install torch' in result.stdout
  assert hint == (speed.torch is None)
  written = json.loads(path.read_text())
  assert first.startswith(written['machine'])
  assert lines[-len(written['rows']):] == [
      speed.format_row(Row(**row)) for row in written['rows']]
  assert set(written['rows'][0]) == set(Row._fields)


@pytest.mark.parametrize('args, code, message', [
    (['--only=conv,nope'], 2, '--only'),
    (['--json=/no/such/speed.json'], 1, '--json'),
])
def test_mistakes_get_one_line(args, code, message):
  result = _run(*args)
  assert result.returncode == code, result.stderr
  assert result.stderr.startswith('error: ') and message in result.stderr
  assert result.stderr.count('\n') == 1
