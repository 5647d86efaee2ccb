"""`fit`: the loop of a run, on arrays; resuming and early stopping."""

import json
import sys

import jax
import numpy as np
import pytest

from experiments.config import library, presets
from experiments.config.settings import Config
from experiments.datasets.splits import Splits
from experiments.runs import loop
import mlvae_jax
from mlvae_jax.data.augment import Augment
from mlvae_jax.data.content import fingerprint
from mlvae_jax.data.plan import Settings
from mlvae_jax.objective.penalties.registry import PENALTIES, Kind
from mlvae_jax.training.history import flatten, read_metrics
from mlvae_jax.training.loop import DivergedError
from mlvae_jax.training.run import Schedule
from mlvae_jax.training.step import init_state
from mlvae_jax.training.workdir import open_workdir

MODEL = mlvae_jax.Model(
    mlvae_jax.ml_vae(2, 2), (3,), network=mlvae_jax.MLP((4,)))
VAE = mlvae_jax.Model(mlvae_jax.vae(2), (3,), network=mlvae_jax.MLP((4,)))
SVI = mlvae_jax.Model(MODEL.factors, (3,), network=MODEL.network,
                      group_posterior=mlvae_jax.Free())
PENALTY = mlvae_jax.Penalty('contrast', 'content', 1.0)
# One device, because it compiles faster.
SMALL = {'steps': 8, 'chunk_steps': 2, 'eval_every': 4, 'groups_per_batch': 3,
         'max_group_size': 4, 'devices': jax.devices()[:1]}


def _data(num_rows=30, num_groups=5, seed=0):
  rng = np.random.default_rng(seed)
  labels = rng.permutation(np.arange(num_rows) % num_groups)
  x = rng.normal(size=(num_rows, 3)).astype(np.float32) + labels[:, None] / 4
  return mlvae_jax.GroupedData.from_labels(x, labels)


DATA, VALIDATION = _data(), _data(12, 4, seed=1)


def _fit(data=DATA, model=MODEL, **settings):
  return mlvae_jax.fit(model, data, **SMALL | settings)


def _assert_equal(first, second):
  jax.tree.map(np.testing.assert_array_equal, first, second)


def _without_speed(records):
  return [{k: v for k, v in r.items() if k != 'images_per_second'}
          for r in records]


def _of(history, split='validation'):
  return [record['step'] for record in history if record['split'] == split]


@pytest.mark.slow
@pytest.mark.parametrize('model', ['mlvae', 'vae', 'svi'])
def test_fit_is_the_loop_of_a_run(tmp_path, model):
  preset = presets.without_extras(presets.PRESETS['folder'])
  config = Config(**{**preset.__dict__, **{
      'model': model, 'factors': 'content:2:group,style:2', 'batch_size': 3,
      'steps': 8, 'chunk_steps': 2, 'eval_every': 4, 'checkpoint_every': 4,
      'groups_per_batch': 3, 'max_group_size': 4, 'hidden_sizes': (4,),
      'network': 'mlp', 'seed': 3, 'learning_rate': 0.01}})
  model = library.make_model(config, (3,))
  workdir = tmp_path / 'run'
  workdir.mkdir()
  (workdir / 'config.json').write_text(json.dumps({'model': model.to_dict()}))
  loop.train(str(workdir), config, model,
             Splits(DATA, VALIDATION, VALIDATION, True))
  settings = library.make_train_config(config, model)
  params, history = _fit(model=model, validation=VALIDATION, config=settings,
                         devices=None)
  _assert_equal(params, mlvae_jax.load(workdir, 'best')[1])
  assert _without_speed(history) == _without_speed(read_metrics(str(workdir)))


def test_history_and_parameters():
  params, history = _fit()
  assert _of(history, 'train') == [2, 4, 6, 8] and not _of(history)
  record = history[-1]
  assert set(record) == {
      'step', 'epoch', 'split', 'elbo', 'elbo_per_image', 'log_lik', 'kl',
      'grad_norm', 'images_per_second'}
  assert set(record['kl']) == {'content', 'style'}
  assert flatten(record).keys() >= {
      'train/elbo', 'train/kl/content', 'train/kl/style', 'train/grad_norm'}
  q = mlvae_jax.encode_group(MODEL, params, DATA.x, DATA.labels, 5)
  assert q.mean.shape == (5, 2) and np.all(np.isfinite(q.mean))
  # Without validation the last; the same again, and in a workdir.
  _assert_equal(params, _fit()[0])


@pytest.mark.slow
def test_with_validation_the_best_parameters_are_returned(tmp_path):
  # Data unlike those of training, whose ELBO soon gets worse.
  settings = {'steps': 40, 'config': mlvae_jax.TrainConfig(learning_rate=0.1),
              'validation': mlvae_jax.GroupedData.from_labels(
                  -2 * VALIDATION.x, VALIDATION.labels)}
  params, history = _fit(**settings)
  validations = [r for r in history if r['split'] == 'validation']
  best = max(validations, key=lambda r: r['elbo'])
  assert best['step'] < 40
  last, _ = _fit(**settings | {'steps': best['step']})
  _assert_equal(params, last)
  saved, found = _fit(**settings, workdir=tmp_path)
  _assert_equal(params, saved)
  assert _without_speed(found) == _without_speed(history)
  _assert_equal(params, mlvae_jax.load(tmp_path, 'best')[1])


@pytest.mark.slow
@pytest.mark.parametrize('model', [MODEL, VAE, SVI])
def test_more_steps_resume_as_if_uninterrupted(tmp_path, model):
  whole, history = _fit(model=model, validation=VALIDATION)
  _fit(model=model, validation=VALIDATION, workdir=tmp_path, steps=4)
  found, resumed = _fit(model=model, validation=VALIDATION, workdir=tmp_path)
  _assert_equal(whole, found)
  assert _without_speed(history) == _without_speed(resumed)
  assert read_metrics(str(tmp_path)) == resumed
  loaded, params = mlvae_jax.load(tmp_path)
  assert loaded == model
  # There is nothing left to train.
  again, same = _fit(model=model, validation=VALIDATION, workdir=tmp_path)
  _assert_equal(found, again)
  assert same == resumed


@pytest.mark.slow
def test_patience_ends_a_run_early_also_when_it_resumes(tmp_path):
  settings = {'validation': VALIDATION, 'patience': 2, 'steps': 400,
              'config': mlvae_jax.TrainConfig(learning_rate=0.3)}
  _, history = _fit(**settings)
  elbos = [r['elbo'] for r in history if r['split'] == 'validation']
  assert len(elbos) - 1 - int(np.argmax(elbos)) == 2 and len(elbos) < 100
  end = history[-1]['step']
  params, found = _fit(**settings | {'steps': end - 4}, workdir=tmp_path)
  assert found[-1]['step'] == end - 4
  for _ in range(2):  # The second time nothing is trained.
    params, found = _fit(**settings, workdir=tmp_path)
    assert _without_speed(found) == _without_speed(history)
  _assert_equal(params, mlvae_jax.load(tmp_path, 'best')[1])
  # It was saved where it ended, so more patience can resume it.
  _, found = _fit(**settings | {'patience': 3}, workdir=tmp_path)
  assert found[-1]['step'] > end


def test_schedule_counts_validations_since_the_best():
  schedule = Schedule(100, 10, 10, 10, patience=2)
  def ends(*elbos):
    return schedule.ends_early([
        {'split': split, 'elbo': elbo} for elbo in elbos
        for split in ('train', 'validation')])
  assert not ends() and not ends(1.0) and not ends(2.0, 1.0)
  assert ends(2.0, 1.0, 1.0) and ends(2.0, 2.0, 2.0)
  assert not ends(2.0, 1.0, 3.0) and ends(2.0, float('nan'), float('nan'))
  with pytest.raises(ValueError, match='patience >= 1, got 0'):
    Schedule(100, 10, 10, 10, patience=0)


def test_callbacks_see_every_record_and_cannot_change_it():
  seen = []

  def callback(step, record):
    assert step == record['step']
    seen.append(dict(record))
    record.clear()

  _, history = _fit(validation=VALIDATION, callbacks=[callback])
  assert seen == history


@pytest.mark.parametrize('error', [KeyboardInterrupt, ZeroDivisionError])
def test_an_interrupted_run_loses_nothing_before_its_checkpoint(
    tmp_path, error):
  def callback(step, record):
    if step == 6:
      raise error

  whole, history = _fit(validation=VALIDATION)
  with pytest.raises(error):
    _fit(validation=VALIDATION, workdir=tmp_path, callbacks=[callback])
  steps = []
  params, found = _fit(
      validation=VALIDATION, workdir=tmp_path,
      callbacks=[lambda step, record: steps.append(step)])
  assert steps == [6, 8, 8]
  _assert_equal(whole, params)
  assert _without_speed(found) == _without_speed(history)


@pytest.mark.slow
@pytest.mark.parametrize('num_rows, num_groups', [
    (1, 1), (7, 1), (7, 7), (13, 5)])
@pytest.mark.parametrize('model', [MODEL, VAE])
def test_odd_sizes(num_rows, num_groups, model):
  data = _data(num_rows, num_groups)
  params, history = _fit(data, model, steps=3, validation=data)
  assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(params))
  assert _of(history) == [3] and _of(history, 'train') == [2, 3]


@pytest.mark.slow
def test_several_groupings_and_penalties():
  data = mlvae_jax.GroupedData.from_labels(DATA.x, {
      'who': ['ann', 'bob', 'cy'] * 10, 'lit': np.arange(30) // 6})
  model = mlvae_jax.Model(
      mlvae_jax.parse_factors('who:2:who,lit:2:lit,style:2'), (3,),
      network=mlvae_jax.MLP((4,)))
  config = mlvae_jax.TrainConfig(
      penalties=(mlvae_jax.Penalty('contrast', 'who', 2.0),))
  _, history = _fit(data, model, config=config)
  assert set(history[-1]['penalties']) == {'contrast/who'}
  config = mlvae_jax.TrainConfig(kl_weights=(('nobody', 2.0),))
  with pytest.raises(ValueError, match="no factor 'nobody'"):
    _fit(data, model, config=config)
  config = mlvae_jax.TrainConfig(
      penalties=(mlvae_jax.Penalty('contrast', 'style', 2.0),))
  with pytest.raises(ValueError, match='needs a grouped factor'):
    _fit(data, model, config=config)


def test_a_file_is_checked_in_blocks_and_the_row_is_named(
    tmp_path, monkeypatch):
  monkeypatch.setattr('mlvae_jax.data.content._BLOCK', 12)
  x = np.lib.format.open_memmap(
      tmp_path / 'x.npy', 'w+', np.float32, (30, 3))
  x[:] = DATA.x
  data = mlvae_jax.GroupedData.from_labels(x, DATA.labels[::-1].copy())
  _assert_equal(_fit(data)[0], _fit(mlvae_jax.GroupedData.from_labels(
      np.array(x), DATA.labels[::-1]))[0])
  x[2] = np.nan  # It belongs to the last group, and is in row 26.
  number = int(np.flatnonzero(np.isnan(np.asarray(data.x)[:, 0]))[0])
  with pytest.raises(ValueError, match=(
      rf"^validation: row {number} \(.* of group '4'\): LearnedGaussian: "
      'expected finite values')):
    _fit(validation=data)


@pytest.mark.parametrize('bad, message', [
    (np.full((4, 3), 300.0), "data: row 0 .*: .*standardise the data"),
    (np.ones((4, 3), int), 'data: LearnedGaussian: expected floats'),
    (np.ones((4, 2)), r'data: expected observations of \[3\], .* got \[2\]'),
    (np.ones((0, 3)), 'data: expected at least one row'),
])
def test_bad_values(bad, message):
  data = mlvae_jax.GroupedData.from_labels(bad, np.zeros(len(bad), int))
  with pytest.raises(ValueError, match=message):
    _fit(data)


def test_bad_settings():
  data = mlvae_jax.GroupedData.from_labels(
      DATA.x, DATA.labels, grouping='person')
  with pytest.raises(ValueError, match="'group', but the rows are grouped by "
                     'person'):
    _fit(data)
  with pytest.raises(ValueError, match='patience needs validation'):
    _fit(patience=2)
  with pytest.raises(ValueError, match='expected steps >= 1, got 0'):
    _fit(steps=0)
  with pytest.raises(ValueError, match='expected visit of'):
    _fit(visit='rows')
  with pytest.raises(ValueError, match='min_group_size'):
    _fit(min_group_size=99)


def test_another_workdir_is_refused_in_one_line(tmp_path):
  _fit(workdir=tmp_path, validation=VALIDATION, steps=2)
  before = (tmp_path / 'config.json').read_bytes()
  for settings, message in (
      ({'model': VAE}, 'another model, which differs in factors; choose'),
      ({'config': mlvae_jax.TrainConfig(learning_rate=0.1)},
       'with learning_rate=0.001, not 0.1; choose another'),
      ({'max_group_size': 3}, 'with max_group_size=4, not 3; choose another'),
      ({'data': _data(seed=2)}, 'different data: 30 rows of 5 groups then'),
      ({'validation': DATA},
       'different validation: 12 rows of 4 groups then, 30'),
      ({'resume': False}, 'already holds a run')):
    with pytest.raises(ValueError, match=message) as caught:
      _fit(workdir=tmp_path, **settings)
    assert '\n' not in str(caught.value)
  assert (tmp_path / 'config.json').read_bytes() == before
  (tmp_path / 'config.json').write_text(json.dumps(
      {'model': MODEL.to_dict(), 'config': {}}))
  with pytest.raises(ValueError, match='that mlvae_jax.fit did not make'):
    _fit(workdir=tmp_path)


def test_a_workdir_in_use_is_refused(tmp_path):
  def callback(step, record):
    _fit(workdir=tmp_path)

  with pytest.raises(ValueError, match='is in use by process .*choose another'):
    _fit(workdir=tmp_path, callbacks=[callback])


def test_validation_may_come_later(tmp_path):
  _fit(workdir=tmp_path)
  params, history = _fit(workdir=tmp_path, validation=VALIDATION)
  assert _of(history) == [8]
  _assert_equal(params, mlvae_jax.load(tmp_path)[1])
  params, history = _fit(workdir=tmp_path, validation=VALIDATION, steps=12)
  assert _of(history) == [8, 12]
  assert fingerprint(VALIDATION) == json.loads(
      (tmp_path / 'config.json').read_text())['data']['validation']


@pytest.mark.slow
def test_divergence_is_one_error_that_says_what_is_kept(tmp_path):
  config = mlvae_jax.TrainConfig(learning_rate=1e30)
  with pytest.raises(DivergedError, match='not finite at step .*; try a '
                     'smaller learning_rate$'):
    _fit(config=config)
  with pytest.raises(DivergedError, match='There was no checkpoint yet.$'):
    _fit(config=config, workdir=tmp_path)


def test_progress_bar(capsys, monkeypatch):
  _fit(progress=True)
  shown = capsys.readouterr().err
  assert '8/8' in shown and 'ELBO' in shown and 'rows/s' in shown
  monkeypatch.setitem(sys.modules, 'tqdm.auto', None)
  with pytest.raises(ImportError, match='pip install tqdm'):
    _fit(progress=True)


@pytest.mark.slow
def test_all_devices_or_some():
  found = _fit(devices=None, validation=VALIDATION)[1]
  for record, expected in zip(found, _fit(validation=VALIDATION)[1]):
    np.testing.assert_allclose(record['elbo'], expected['elbo'], rtol=1e-4)


@pytest.mark.parametrize('settings, message', [
    ({'learning_rate': -1e-3}, 'learning_rate > 0'),
    ({'learning_rate': float('nan')}, 'learning_rate > 0'),
    ({'table_learning_rate': 0.0}, 'table_learning_rate > 0'),
    ({'decay_fraction': 5.0}, r'decay_fraction in \[0, 1\]'),
    ({'learning_rate': '1e-3'}, "learning_rate as a number, got '1e-3'"),
    ({'seed': -1}, 'seed >= 0'),
    ({'seed': None}, 'seed as a static integer, got None'),
    ({'kl_weights': {'style': np.nan}}, "at least 0 for 'style', got nan"),
    ({'kl_weights': {'style': 'a'}}, "KL weight of 'style' as a number"),
    ({'kl_weights': 2.0}, 'kl_weights as a dict .*, got 2.0'),
    ({'penalties': PENALTY}, 'penalties to be a tuple'),
    ({'penalties': None}, 'penalties to be a tuple'),
    ({'penalties': 'mean_leakage/style:1'}, 'penalties to be a tuple')])
def test_settings_out_of_range_are_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    mlvae_jax.TrainConfig(**settings)


@pytest.mark.parametrize('penalties', [[PENALTY], iter([PENALTY])])
def test_penalties_may_be_any_collection(penalties):
  config = mlvae_jax.TrainConfig(penalties=penalties)
  assert hash(config) == hash(mlvae_jax.TrainConfig(penalties=(PENALTY,)))


@pytest.mark.slow
def test_settings_may_be_numbers_of_numpy(tmp_path):
  config = mlvae_jax.TrainConfig(
      learning_rate=np.float32(1e-2), seed=np.random.default_rng(0).integers(9),
      kl_weights=[('style', np.float64(2.0))],
      penalties=[mlvae_jax.Penalty('contrast', 'content', np.float32(1.0))])
  arguments = {
      'steps': np.int64(2), 'groups_per_batch': np.int64(3), 'config': config}
  first, _ = _fit(workdir=tmp_path, **arguments)
  again, _ = _fit(workdir=tmp_path, **arguments)
  _assert_equal(again, first)


def test_kl_weights_may_be_a_dict():
  config = mlvae_jax.TrainConfig(kl_weights={'style': 2.0})
  assert config == mlvae_jax.TrainConfig(kl_weights=(('style', 2.0),))
  hash(config)


@pytest.mark.parametrize('settings, message', [
    ({'data': np.zeros((4, 3))}, 'data to be a GroupedData'),
    ({'validation': (1, 2)}, 'validation to be a GroupedData'),
    ({'steps': 1.5}, 'steps as a static integer'),
    ({'eval_every': 1.5}, 'eval_every as a static integer'),
    ({'groups_per_batch': 2.5}, 'groups_per_batch as a static integer'),
    ({'max_group_size': 'all'}, 'max_group_size as a static integer')])
def test_arguments_of_another_kind_are_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    _fit(**settings)


@pytest.mark.parametrize('offset', [2 ** 31, 2 ** 32])
def test_integers_that_would_wrap_around_are_refused(offset):
  counts = np.random.default_rng(0).poisson(3.0, (30, 3)) + offset
  model = mlvae_jax.Model(
      MODEL.factors, (3,), mlvae_jax.Poisson(library=False), MODEL.network)
  with pytest.raises(ValueError, match='integers of 32 bits.*as floats'):
    _fit(mlvae_jax.GroupedData.from_labels(counts, np.arange(30) % 5), model)


def test_a_workdir_of_fewer_augmentations_is_known_again(tmp_path):
  def opened(augment):
    return open_workdir(
        str(tmp_path), MODEL, {'train': DATA},
        mlvae_jax.TrainConfig(augment=augment), Settings(3), resume=True)

  with opened(Augment(shift=1)):
    pass
  path = tmp_path / 'config.json'
  values = json.loads(path.read_text())
  values['fit']['augment'] = {'flip': False, 'shift': 1}
  path.write_text(json.dumps(values))
  with opened(Augment(shift=1)):
    pass
  with pytest.raises(ValueError, match='holds a run with augment='):
    with opened(Augment(shift=1, rotate=5)):
      pass


def test_a_penalty_may_be_written_again_under_its_name(monkeypatch):
  """As in a notebook whose cell is edited and run once more."""
  found = []
  for sign in (1.0, -1.0):
    monkeypatch.setitem(PENALTIES, 'own', Kind(
        lambda rows, sign=sign: sign * rows.mask, lambda model, factor: '',
        'which is a constant'))
    config = mlvae_jax.TrainConfig(
        penalties=(mlvae_jax.Penalty('own', 'style', 1.0),))
    _, history = _fit(steps=2, config=config)
    found.append(history[-1]['penalties']['own/style'])
  assert found == [1.0, -1.0]


def test_so_may_the_critics_of_a_penalty(monkeypatch):
  config = mlvae_jax.TrainConfig(
      penalties=(mlvae_jax.Penalty('adversary', 'style', 1.0),))
  for size in (1, 2):
    monkeypatch.setitem(PENALTIES, 'adversary', PENALTIES['adversary']._replace(
        init_critics=lambda key, factor, others, size=size: np.zeros(size)))
    state = init_state(MODEL, config)
    assert state.critics.params['adversary/style'].shape == (size,)
