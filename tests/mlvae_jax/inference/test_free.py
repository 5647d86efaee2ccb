"""SVI: free posteriors, in tables to train, by optimisation to test."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import evaluate
from experiments.config import library, presets
from experiments.datasets import splits
from experiments.runs import loop
from experiments.runs.build import make_feed, make_model
from experiments.runs.workdir import open_workdir
import mlvae_jax
from mlvae_jax.data.grouped import GroupedData, Labels
from mlvae_jax.data.index_stream import IndexStream
from mlvae_jax.grouping.free import Free
from mlvae_jax.inference import free
from mlvae_jax.model.factors import Batch, ml_vae
from mlvae_jax.model.likelihoods.gaussian import Gaussian
from mlvae_jax.model.model import Model
from mlvae_jax.model.networks.mlp import MLP
from mlvae_jax.objective.elbo import elbo_terms, sum_terms
from mlvae_jax.training import checkpoint
from mlvae_jax.training.loop import make_chunk
from mlvae_jax.training.step import TrainConfig, init_state, train_step
from tests.helpers.groups import sorted_groups

# x = W'z + 1/2 + noise with orthogonal rows of W: posteriors are diagonal.
_SIGMA = 0.3
_LINEAR = Model(ml_vae(1, 1), (2, 2, 1), Gaussian(_SIGMA), MLP(()),
                group_posterior=Free())
_W = 0.2 * np.array([[1.0, 1.0, 1.0, 1.0], [1.0, -1.0, 1.0, -1.0]])
_PARAMS = {'decoder': {'pixels': {
    'kernel': jnp.asarray(_W, jnp.float32), 'bias': jnp.full(4, 0.5)}}}
_IDS = np.array([0, 1, 0, 0, 2, 1])


def _images():
  rng = np.random.default_rng(1)
  z = np.stack([rng.normal(size=3)[_IDS], rng.normal(size=6)], axis=1)
  return np.clip(0.5 + z @ _W, 0, 1).reshape(6, 2, 2, 1).astype(np.float32)


def _exact(images):
  """Means and variances of content `[3]` and style `[6]`."""
  precision = np.square(_W).sum(axis=1) / _SIGMA ** 2
  eta = (images.reshape(6, 4) - 0.5) @ _W.T / _SIGMA ** 2
  content = 1 + precision[0] * np.bincount(_IDS)
  return ((np.bincount(_IDS, eta[:, 0]) / content, 1 / content),
          (eta[:, 1] / (1 + precision[1]), 1 / (1 + precision[1])))


def _assert_exact(found, images, atol, rtol):
  """Compares means, and variances, with the exact posteriors."""
  for name, (mean, var) in zip(('content', 'style'), _exact(images)):
    np.testing.assert_allclose(found[name].mean[:, 0], mean, atol=atol)
    np.testing.assert_allclose(
        jnp.exp(found[name].logvar[:, 0]), np.broadcast_to(
            var, mean.shape), rtol=rtol)


@pytest.mark.slow
def test_inference_finds_the_exact_posteriors():
  images = _images()
  found = free.infer(_LINEAR, _PARAMS, images, {'content': _IDS},
                    {'content': 3}, num_steps=2000)
  _assert_exact(found, images, atol=0.06, rtol=0.15)


@pytest.mark.slow
def test_from_the_posteriors_of_rows_few_steps_lead_to_those_of_groups():
  images, each = _images(), np.arange(6)
  alone = free.infer(
      _LINEAR, _PARAMS, images, {'content': each}, {'content': 6})
  start = alone | {'content': Free().combine(alone['content'], _IDS, 3)}
  found = free.infer(_LINEAR, _PARAMS, images, {'content': _IDS},
                     {'content': 3}, num_steps=50, learning_rate=0.05,
                     start=start)
  _assert_exact(found, images, atol=0.2, rtol=0.25)


@pytest.mark.parametrize('change, message', [
    ({'style': None}, 'the factors content, style, got content'),
    ({'more': (6, 1)}, 'got content, more, style'),
    ({'content': (1, 1)}, r"mean of the start of 'content' to be \[3, 1\], got "
                          r'\[1, 1\]'),
    ({'style': (6,)}, r"of 'style' to be \[6, 1\], got \[6\]"),
])
def test_a_start_of_another_form_is_refused(change, message):
  shapes = {'content': (3, 1), 'style': (6, 1)} | change
  start = {name: mlvae_jax.Normal(*np.zeros((2, *shape)))
           for name, shape in shapes.items() if shape}
  with pytest.raises(ValueError, match=message):
    free.infer(_LINEAR, _PARAMS, _images(), {'content': _IDS},
               {'content': 3}, start=start)


def test_a_start_is_of_normals():
  with pytest.raises(ValueError, match="'content' to be a Normal, got tuple"):
    free.infer(_LINEAR, _PARAMS, _images(), {'content': _IDS}, {'content': 3},
               start={'content': (np.zeros((3, 1)),),
                      'style': mlvae_jax.Normal(*np.zeros((2, 6, 1)))})


@pytest.mark.slow
def test_the_library_infers_where_there_is_no_encoder():
  images = _images()
  exact = _exact(images)[0][0]
  group = mlvae_jax.encode_group(_LINEAR, _PARAMS, images, _IDS, 3)
  np.testing.assert_allclose(group.mean[:, 0], exact, atol=0.2)
  both = mlvae_jax.infer(_LINEAR, _PARAMS, images, _IDS, 3)
  np.testing.assert_allclose(both['content'][:, 0], exact[_IDS], atol=0.2)
  alone = mlvae_jax.posteriors(_LINEAR, _PARAMS, images)['content']
  assert np.all(alone.logvar[:, 0] > group.logvar[_IDS, 0] - 0.05)
  with pytest.raises(ValueError, match='no encoder'):
    _LINEAR.encode(_PARAMS, images)


def test_rows_and_groups_that_are_not_there_are_the_prior():
  mask = _IDS != 1
  images = np.where(mask[:, None, None, None], _images(), np.nan)
  group = mlvae_jax.encode_group(
      _LINEAR, _PARAMS, images, _IDS, 4, mask=mask)
  for missing in (1, 3):
    assert group.mean[missing, 0] == 0 and group.logvar[missing, 0] == 0
  assert np.all(np.isfinite(group.mean)) and abs(group.mean[0, 0]) > 0.01


@pytest.mark.slow
def test_free_posteriors_give_the_elbo_of_those_posteriors():
  """With the exact ones the ELBO is the log evidence, whatever is drawn."""
  images = _images()
  found = {
      name: mlvae_jax.Normal(
          jnp.asarray(mean, jnp.float32)[:, None],
          jnp.log(jnp.broadcast_to(jnp.asarray(var), mean.shape))[:, None])
      for name, (mean, var) in zip(('content', 'style'), _exact(images))}
  batch = Batch(images, {'content': _IDS}, np.ones(6, bool), np.arange(6))

  def elbo(key, images):
    return sum_terms(elbo_terms(
        _LINEAR, _PARAMS, key, batch._replace(x=images), {'content': 3},
        free=found)).elbo()

  # One code per image is drawn: the average is the log evidence.
  draws = jax.vmap(elbo, in_axes=(0, None))(
      jax.random.split(jax.random.key(0), 3000), images)
  log_evidence = 0.0
  for group in range(3):
    x = images[_IDS == group].reshape(-1, 4) - 0.5
    n = len(x)
    covariance = (np.kron(np.ones((n, n)), np.outer(_W[0], _W[0]))
                  + np.kron(np.eye(n), np.outer(_W[1], _W[1]))
                  + _SIGMA ** 2 * np.eye(4 * n))
    log_evidence -= 0.5 * (
        np.linalg.slogdet(2 * np.pi * covariance)[1]
        + x.ravel() @ np.linalg.solve(covariance, x.ravel()))
  error = float(draws.std()) / np.sqrt(3000)
  assert abs(float(draws.mean()) - log_evidence) < 4 * error


@pytest.mark.slow
def test_the_learning_rate_of_tables_falls_too():
  config = TrainConfig(num_steps=8, decay_fraction=0.5)
  state = init_state(_LINEAR, config, {'content': 3, 'style': 6})
  state = state._replace(params=_PARAMS)
  batch = Batch(_images(), {'content': _IDS}, np.ones(6, bool), np.arange(6))
  table_rows = {'content': jnp.arange(3), 'style': jnp.arange(6)}
  moved = []
  for decay_fraction in (0.0, 0.5):
    settings = dataclasses.replace(config, decay_fraction=decay_fraction)
    after, _ = train_step(
        _LINEAR, settings, {'content': 3}, state._replace(step=np.int32(7)),
        batch, table_rows=table_rows)
    moved.append(after.tables['style'].value - state.tables['style'].value)
  np.testing.assert_allclose(moved[1], 0.25 * moved[0], rtol=1e-3, atol=1e-6)


_CONFIG = dataclasses.replace(
    presets.without_extras(presets.PRESETS['folder']),
    model='svi', factors='content:3:group,style:2', hidden_sizes=(8,),
    steps=6, groups_per_batch=2, max_group_size=4, chunk_steps=2,
    eval_every=6, checkpoint_every=2)


def _data(others=None, size=20):
  rng = np.random.default_rng(0)
  labels = np.repeat(np.arange(3), size)
  return splits.split_images(GroupedData.from_labels(
      rng.integers(0, 256, (3 * size, 4, 4, 1), np.uint8), labels, 'abc',
      others=others))


def _train(workdir, data, **changes):
  config = dataclasses.replace(_CONFIG, **changes)
  model = make_model(config, data)
  with open_workdir(str(workdir), config, model, resume=True):
    loop.train(str(workdir), config, model, data)
  settings = library.make_train_config(config, model)
  feed = make_feed(model, data.train, config)
  found = checkpoint.Checkpoints(workdir, read_only=True)
  return found.restore(
      init_state(model, settings, feed.table_sizes))


@pytest.mark.slow
def test_a_run_trains_tables_and_resumes_with_them(tmp_path):
  data = _data()
  whole = _train(tmp_path / 'whole', data)
  assert whole.tables['content'].value.shape == (3, 6)
  assert whole.tables['style'].value.shape == (48, 4)
  # Three groups, two a batch; no image twice in an epoch.
  assert whole.tables['content'].count.sum() == 12
  _train(tmp_path / 'halves', data, steps=4)
  resumed = _train(tmp_path / 'halves', data)
  jax.tree.map(np.testing.assert_array_equal, whole, resumed)
  model, params = mlvae_jax.load(tmp_path / 'whole')
  assert model.group_posterior == Free() and list(params) == ['decoder']


@pytest.mark.slow
def test_a_run_is_evaluated_with_few_numbers_of_images(tmp_path):
  data = _data(size=30)  # Three of a label to test, but k = 3 is left out.
  _train(tmp_path, data)
  found = evaluate.evaluate(str(tmp_path), data, probe_steps=1)
  ks = [{row['k'] for row in found['probes'] if row['code'] == code}
        for code in ('content', 'pixels')]
  assert ks == [{1, 2}, {1, 2}]
  assert [row['strategy'] for row in found['strategies']] == [1, 2]


@pytest.mark.slow
def test_tables_of_several_groupings(tmp_path):
  lamp = Labels(np.where(np.arange(60) % 5, np.arange(60) % 4, -1),
                tuple('wxyz'))
  data = _data({'lamp': lamp})
  state = _train(tmp_path, data, factors='who:2:group,light:2:lamp,style:1')
  unknown = int((data.train.labels_of('lamp').ids < 0).sum())
  assert len(state.tables['light'].value) == 4 + unknown
  assert state.tables['light'].count[:4].max() > 1


@pytest.mark.slow
def test_training_climbs(tmp_path):
  data = _data()
  config = dataclasses.replace(_CONFIG, groups_per_batch=3, max_group_size=16)
  model = make_model(config, data)
  settings = library.make_train_config(config, model)
  feed = make_feed(model, data.train, config)
  chunk = make_chunk(model, settings, feed.num_groups)
  _, metrics = chunk(
      init_state(model, settings, feed.table_sizes),
      *feed.chunk(0, 150))
  elbo = np.asarray(metrics.sums.elbo() / metrics.sums.num_rows)
  assert elbo[-10:].mean() > elbo[:10].mean() + 5
  # A group's KL is paid in shares: an epoch counts each group once.
  np.testing.assert_allclose(metrics.sums.num_groups[0], 3, rtol=1e-5)


def test_free_posteriors_are_not_subsampled():
  with pytest.raises(ValueError, match='--model=svi has one posterior per'):
    library.make_model(dataclasses.replace(
        presets.without_extras(presets.PRESETS['folder']),
        model='svi', subsampling='unbiased', visit='groups'), (8, 8, 1))
  with pytest.raises(ValueError, match='whole groups'):
    IndexStream(sorted_groups([9]), ('group',), groups_per_batch=1,
                max_group_size=4, visit='groups', subsampling='unbiased',
                share_of_whole_group=True)


@pytest.mark.parametrize('factor', ['content', 'all'])
def test_contrast_needs_an_encoder(factor):
  config = dataclasses.replace(_CONFIG, penalties=f'contrast/{factor}:1')
  model = library.make_model(config, (4, 4, 1))
  with pytest.raises(ValueError, match='encoder'):
    library.make_train_config(config, model)
