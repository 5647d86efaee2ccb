"""Checkpoints: what is saved comes back, and what is missing is named."""

import functools
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mlvae_jax
from mlvae_jax.data.feed import Feed
from mlvae_jax.data.grouped import GroupedData
from mlvae_jax.data.index_stream import IndexStream
from mlvae_jax.model.factors import ml_vae
from mlvae_jax.model.model import Model
from mlvae_jax.model.networks.mlp import MLP
from mlvae_jax.training import checkpoint, loading
from mlvae_jax.training.loop import make_chunk, train
from mlvae_jax.training.step import TrainConfig, init_state

MODEL = Model(ml_vae(3, 2), (8, 8, 1), network=MLP((16,)))
CONFIG = TrainConfig(learning_rate=1e-2)


@functools.cache
def _initial_state(model=MODEL, seed=0):
  """The state before the first step, on the host so that none donates it."""
  return jax.device_get(
      init_state(model, TrainConfig(learning_rate=1e-2, seed=seed)))


def _state(step):
  """A state of random numbers, the optimiser's too."""
  rng = np.random.default_rng(step)
  state = jax.tree.map(
      lambda v: jnp.asarray(100.0 * rng.normal(size=v.shape), v.dtype),
      _initial_state())
  return state._replace(step=jnp.asarray(step, jnp.int32))


def _save(workdir, *states, **arguments):
  checkpoints = checkpoint.Checkpoints(workdir, **arguments)
  for state in states:
    checkpoints.save(state)
  checkpoints.close()


def _write_config(workdir, model=MODEL):
  (workdir / 'config.json').write_text(
      json.dumps({'config': {}, 'model': model.to_dict()}))


def _assert_same_bits(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
    np.testing.assert_array_equal(a, b)
    assert a.dtype == b.dtype


def _restore(workdir, like):
  checkpoints = checkpoint.Checkpoints(workdir)
  state = checkpoints.restore(like)
  checkpoints.close()
  return state


def test_a_saved_state_comes_back(tmp_path):
  _save(tmp_path, _state(12))
  restored = _restore(tmp_path, _initial_state())
  _assert_same_bits(restored, jax.device_get(_state(12)))


def test_the_newest_of_several_is_restored_and_old_ones_go(tmp_path):
  _save(tmp_path, _state(5), _state(10), _state(15), max_to_keep=2)
  checkpoints = checkpoint.Checkpoints(tmp_path)
  assert checkpoints.latest_step == 15
  params = checkpoints.restore_params(_state(0).params)
  checkpoints.close()
  _assert_same_bits(params, _state(15).params)
  kept = {path.name for path in (tmp_path / 'checkpoints').iterdir()}
  assert {'10', '15'} <= kept and '5' not in kept


def test_there_is_no_step_before_the_first_save(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path)
  assert checkpoints.latest_step is None
  checkpoints.close()


def test_a_state_may_change_once_it_is_being_saved(tmp_path):
  # Training goes on with the arrays of a state that is still being written.
  state = jax.tree.map(np.array, _state(3))
  checkpoints = checkpoint.Checkpoints(tmp_path)
  checkpoints.save(jax.tree.map(jnp.asarray, state))
  for value in jax.tree.leaves(state.params):
    value[...] = np.nan
  checkpoints.close()
  restored = _restore(tmp_path, _initial_state())
  _assert_same_bits(restored.params, _state(3).params)


@pytest.mark.slow
def test_a_restored_run_equals_the_uninterrupted_one_bit_for_bit(tmp_path):
  data = GroupedData(
      np.random.default_rng(0).integers(0, 256, (24, 8, 8, 1), np.uint8),
      np.array([0, 4, 5, 14, 24]), tuple('abcd'))
  stream = IndexStream(
      data, ('group',), groups_per_batch=3, max_group_size=4,
      row_multiple=jax.local_device_count())
  feed = Feed(MODEL, data, stream)
  chunk = make_chunk(MODEL, CONFIG, feed.num_groups)

  def train_until(state, num_steps):
    *_, (last, _) = train(
        state, feed, chunk, num_steps=num_steps, chunk_steps=4)
    return jax.device_get(last)

  whole = train_until(_initial_state(), 12)
  _save(tmp_path, train_until(_initial_state(), 8))
  other_seed = _initial_state(seed=9)
  resumed = train_until(_restore(tmp_path, other_seed), 12)
  _assert_same_bits(resumed, whole)


@pytest.mark.slow
def test_another_models_state_is_refused(tmp_path):
  _save(tmp_path, _state(3))
  other = Model(ml_vae(4, 2), (8, 8, 1), network=MLP((16,)))
  checkpoints = checkpoint.Checkpoints(tmp_path)
  with pytest.raises(ValueError):
    checkpoints.restore(_initial_state(other))
  checkpoints.close()


# load


def test_load_gives_the_model_and_its_newest_params(tmp_path):
  _write_config(tmp_path)
  _save(tmp_path, _state(5), _state(10))
  model, params = mlvae_jax.load(tmp_path)
  assert model == MODEL
  _assert_same_bits(params, _state(10).params)
  images = np.zeros((3, 8, 8, 1), np.uint8)
  q = mlvae_jax.encode_group(
      model, params, images, np.array([1, 0, 1]), num_groups=2)
  assert q.mean.shape == (2, 3)
  again, params = mlvae_jax.load(str(tmp_path))  # A str will do.
  assert again == MODEL
  _assert_same_bits(params, _state(10).params)


def test_load_expands_home_and_variables(tmp_path, monkeypatch):
  run = tmp_path / 'runs' / 'x'
  run.mkdir(parents=True)
  _write_config(run)
  _save(run, _state(60))
  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.setenv('RUNS', str(tmp_path / 'runs'))
  monkeypatch.chdir(tmp_path)
  for workdir in ('~/runs/x', '$RUNS/x', pathlib.Path('~/runs/x'), 'runs/x'):
    _, params = mlvae_jax.load(workdir, '60')
    _assert_same_bits(params, _state(60).params)
    assert loading.find_step(workdir, '60') == 60
    assert loading.find_step(workdir, 'latest') == 60
  for step in ('newest', 6.5, None):
    with pytest.raises(ValueError, match="'latest', 'best' or a number, got"):
      mlvae_jax.load(run, step)
  with pytest.raises(ValueError, match='no checkpoint of step 7; .* 60'):
    mlvae_jax.load(run, '7')


def test_load_leaves_the_workdir_as_it_is(tmp_path):
  _write_config(tmp_path)
  _save(tmp_path, _state(5))
  before = sorted(tmp_path.rglob('*'))
  mlvae_jax.load(tmp_path)
  assert sorted(tmp_path.rglob('*')) == before


def test_a_missing_run_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match='no config.json in .*absent'):
    mlvae_jax.load(tmp_path / 'absent')
  assert not (tmp_path / 'absent').exists()


@pytest.mark.parametrize('make_folder', [False, True])
def test_a_run_without_a_checkpoint_is_named(tmp_path, make_folder):
  _write_config(tmp_path)
  if make_folder:
    (tmp_path / 'checkpoints').mkdir()
  with pytest.raises(FileNotFoundError, match='no checkpoint in .*; train'):
    mlvae_jax.load(tmp_path)
  assert (tmp_path / 'checkpoints').exists() == make_folder


@pytest.mark.parametrize('content, match', [
    (b'', 'is not JSON'),
    (b'{"model": ', 'is not JSON'),
    (b'\xff\xfe{', 'is not JSON'),  # Not even UTF-8.
    (b'[1, 2]', 'is not the configuration of a run'),
    (b'{"config": {}}', 'is not the configuration of a run'),
    (b'{"model": {}}', ''),
    (b'{"model": 3}', ''),
])
def test_a_file_that_is_no_runs_config_is_named(tmp_path, content, match):
  (tmp_path / 'config.json').write_bytes(content)
  with pytest.raises(ValueError, match=f'config.json {match}'):
    mlvae_jax.load(tmp_path)


def test_load_refuses_the_params_of_another_model(tmp_path):
  _write_config(tmp_path, Model(ml_vae(4, 2), (8, 8, 1), network=MLP((16,))))
  _save(tmp_path, _state(5))
  with pytest.raises(ValueError):
    mlvae_jax.load(tmp_path)


# Damage.


def _data_file(workdir, step):
  """The largest file of a checkpoint's parameters: numbers."""
  folder = workdir / 'checkpoints' / str(step) / 'params'
  files = [path for path in folder.rglob('*') if path.is_file()]
  return max(files, key=lambda path: path.stat().st_size)


def _flip(path):
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 0x10
  path.write_bytes(data)


def _truncate(path):
  path.write_bytes(path.read_bytes()[:100])


def _break_seal(path):
  seal = next(p for p in path.parents if p.parent.name == 'checkpoints')
  next(p for p in (seal / 'seal').iterdir()
       if p.name == 'metadata').write_text('{"params": ')


def _empty(path):
  folder = next(p for p in path.parents if p.parent.name == 'checkpoints')
  for item in folder.iterdir():
    shutil.rmtree(item) if item.is_dir() else item.unlink()


# A reader that Orbax has given up may report its error again when collected.
@pytest.mark.filterwarnings(
    'ignore::pytest.PytestUnraisableExceptionWarning')
@pytest.mark.parametrize(
    'damage', [_flip, _truncate, _break_seal, _empty])
def test_a_damaged_checkpoint_gives_way_to_the_newest_good_one(
    tmp_path, damage):
  _save(tmp_path, _state(5), _state(10))
  damage(_data_file(tmp_path, 10))
  _write_config(tmp_path)
  _, params = mlvae_jax.load(tmp_path)
  _assert_same_bits(params, _state(5).params)
  checkpoints = checkpoint.Checkpoints(tmp_path)
  restored = checkpoints.restore(_initial_state())
  _assert_same_bits(restored, jax.device_get(_state(5)))
  assert list(checkpoints.damaged) == [10]
  # The step can be saved again.
  checkpoints.save(_state(10))
  checkpoints.close()
  _assert_same_bits(
      _restore(tmp_path, _initial_state()), jax.device_get(_state(10)))


def test_no_good_checkpoint_is_said_so(tmp_path):
  _save(tmp_path, _state(5), _state(10))
  for step in (5, 10):
    _flip(_data_file(tmp_path, step))
  checkpoints = checkpoint.Checkpoints(tmp_path)
  with pytest.raises(ValueError, match='step 10: .*checksum.*step 5: .*train'):
    checkpoints.restore(_initial_state())
  checkpoints.close()
  assert (tmp_path / 'checkpoints' / '10').exists()  # Nothing is deleted.


def test_checkpoints_of_before_seals_are_taken_as_they_are(tmp_path):
  _save(tmp_path, _state(5))
  shutil.rmtree(tmp_path / 'checkpoints' / '5' / 'seal')
  restored = _restore(tmp_path, _initial_state())
  _assert_same_bits(restored, jax.device_get(_state(5)))
  other = Model(ml_vae(4, 2), (8, 8, 1), network=MLP((16,)))
  with pytest.raises(ValueError):
    _restore(tmp_path, _initial_state(other))


def test_arrays_of_another_type_are_of_another_model(tmp_path):
  _save(tmp_path, _state(5))
  other = jax.tree.map(lambda v: v.astype(np.float16), _initial_state().params)
  checkpoints = checkpoint.Checkpoints(tmp_path)
  with pytest.raises(ValueError, match='of another model: its params'):
    checkpoints.restore_params(other)
  checkpoints.close()


def test_a_damaged_checkpoint_is_set_aside_never_deleted(tmp_path):
  for number in (1, 2):
    _save(tmp_path, _state(5), _state(10))
    _flip(_data_file(tmp_path, 10))
    _restore(tmp_path, _initial_state())
    assert not (tmp_path / 'checkpoints' / '10').exists()
    assert len(list((tmp_path / 'damaged').iterdir())) == number


# The best.


def test_the_best_by_validation_is_kept_beside_the_newest(tmp_path):
  _write_config(tmp_path)
  checkpoints = checkpoint.Checkpoints(tmp_path, max_to_keep=2)
  for step, elbo in ((1, -9.0), (2, -5.0), (3, -7.0), (4, None), (5, -8.0),
                     (6, -6.0)):
    checkpoints.save(_state(step), elbo)
  checkpoints.close()
  kept = sorted(path.name for path in (tmp_path / 'checkpoints').iterdir())
  assert kept == ['2', '5', '6']
  for step, number in (('latest', 6), ('best', 2), (5, 5)):
    _, params = mlvae_jax.load(tmp_path, step)
    _assert_same_bits(params, _state(number).params)
  with pytest.raises(ValueError, match='no checkpoint of step 3.* 2, 5, 6'):
    mlvae_jax.load(tmp_path, 3)
  _flip(_data_file(tmp_path, 2))
  with pytest.raises(ValueError, match='step 2 is damaged: the checksum'):
    mlvae_jax.load(tmp_path, 'best')


def test_without_validation_there_is_no_best(tmp_path):
  _write_config(tmp_path)
  _save(tmp_path, _state(5))
  with pytest.raises(ValueError, match='no best checkpoint'):
    mlvae_jax.load(tmp_path, 'best')
