"""The training job: workdirs, resuming, logging, errors."""

import contextlib
import dataclasses
import json

import jax
import numpy as np
import pytest

from experiments import datasets, train
from experiments.cli import UserError
from experiments.config import library, presets
from experiments.config.settings import Config, from_json, to_json
from experiments.datasets import splits
from experiments.runs import loop
from experiments.runs.build import make_model
from experiments.runs.reading import check_vae
from experiments.runs.workdir import open_workdir
import mlvae_jax
from mlvae_jax.data.augment import Augment
from mlvae_jax.data.grouped import GroupedData
from mlvae_jax.model.networks.conv import Conv
from mlvae_jax.objective.penalties.registry import Penalty
from mlvae_jax.training import loading
from mlvae_jax.training.history import read_metrics

_CONFIG = dataclasses.replace(
    presets.PRESETS['folder'], factors='content:3:group,style:2',
    hidden_sizes=(8,), steps=6, groups_per_batch=2, max_group_size=4,
    chunk_steps=2, eval_every=2, checkpoint_every=2)


def _data(num_groups=3, per_group=20):
  rng = np.random.default_rng(0)
  labels = np.repeat(np.arange(num_groups), per_group)
  images = rng.integers(0, 256, (len(labels), 4, 4, 1), np.uint8)
  return splits.split_images(GroupedData.from_labels(
      images, labels, [f'g{i}' for i in range(num_groups)]))


def _train(workdir, **changes):
  config = dataclasses.replace(_CONFIG, **changes)
  data = _data()
  model = make_model(config, data)
  with open_workdir(str(workdir), config, model, resume=True):
    loop.train(str(workdir), config, model, data)
  return loading.load(workdir)


def _assert_equal(first, second):
  jax.tree.map(np.testing.assert_array_equal, first, second)


def _without_speed(workdir):
  records = read_metrics(str(workdir))
  return [{k: v for k, v in r.items() if k != 'images_per_second'}
          for r in records]


@pytest.mark.slow
@pytest.mark.parametrize('model', ['mlvae', 'vae'])
def test_resumed_run_equals_uninterrupted_bit_for_bit(tmp_path, model):
  _, whole = _train(tmp_path / 'whole', model=model)
  _train(tmp_path / 'parts', model=model, steps=2)
  _, resumed = _train(tmp_path / 'parts', model=model)
  _assert_equal(whole, resumed)
  assert _without_speed(tmp_path / 'whole') == _without_speed(
      tmp_path / 'parts')


@pytest.mark.slow
def test_resume_drops_what_was_logged_after_the_checkpoint(tmp_path):
  _train(tmp_path, steps=2)
  log = tmp_path / 'metrics.jsonl'
  log.write_text(log.read_text() + '{"step": 4, "split": "train"}\n{"ste')
  _train(tmp_path, steps=4)
  steps = [r['step'] for r in read_metrics(str(tmp_path))
           if r['split'] == 'train']
  assert steps == [2, 4]
  assert all(json.loads(line) for line in log.read_text().splitlines())


def test_complete_run_trains_no_further(tmp_path):
  _, before = _train(tmp_path)
  _, after = _train(tmp_path)
  _assert_equal(before, after)


def test_fewer_steps_than_there_are_train_nothing(tmp_path, capsys):
  _, before = _train(tmp_path)
  config = (tmp_path / 'config.json').read_bytes()
  capsys.readouterr()
  _, after = _train(tmp_path, steps=4)
  _assert_equal(before, after)
  assert (tmp_path / 'config.json').read_bytes() == config
  assert capsys.readouterr().out == (
      f'{tmp_path} has 6 steps already; nothing to train\n')


def test_metrics_have_their_fields(tmp_path):
  _train(tmp_path)
  records = read_metrics(str(tmp_path))
  trained = [r for r in records if r['split'] == 'train']
  assert {'step', 'epoch', 'elbo', 'log_lik', 'kl', 'images_per_second',
          'split'} <= set(trained[0])
  assert set(trained[0]['kl']) == {'content', 'style'}
  assert [r['step'] for r in records if r['split'] == 'validation'] == [
      2, 4, 6]
  assert list(tmp_path.glob('events.out.tfevents.*'))


@pytest.mark.slow
def test_penalties_are_logged_of_training_images(tmp_path):
  model, _ = _train(
      tmp_path, steps=2, network='conv', channels=(4,), visit='groups',
      min_group_size=2, augment='flip,shift:1',
      penalties='contrast/content:3,adversary/style:2,mean_leakage/style:1')
  assert model.network == Conv((4,), (8,), 'silu')
  (train_record,), (validation,) = (
      [r for r in read_metrics(str(tmp_path)) if r['split'] == s]
      for s in ('train', 'validation'))
  assert set(train_record['penalties']) == {
      'contrast/content', 'adversary/style', 'mean_leakage/style'}
  assert 'penalties' not in validation


def test_groups_that_are_all_too_small_are_one_error(tmp_path):
  with pytest.raises(
      UserError, match='^folder: no group has the 99 rows that min_group_'):
    _train(tmp_path, min_group_size=99)


def test_another_penalty_or_augmentation_is_another_run(tmp_path):
  model = library.make_model(_CONFIG, (4, 4, 1))
  with open_workdir(str(tmp_path), _CONFIG, model, resume=True):
    pass
  for name, value in (
      ('penalties', 'contrast/content:1'),
      ('penalties', 'mean_leakage/style:1'), ('augment', 'flip'),
      ('visit', 'groups'), ('min_group_size', 2)):
    with pytest.raises(UserError, match=f'with {name}=.*, not {value}; choo'):
      _train(tmp_path, **{name: value})


def test_another_batch_size_is_named_as_the_user_gave_it(tmp_path):
  _train(tmp_path, steps=2)
  with pytest.raises(UserError, match='with batch_size=256, not 12; choose'):
    _train(tmp_path, batch_size=12, groups_per_batch=3)


@pytest.mark.slow
def test_a_vae_to_compare_with_is_one_of_the_same_images(tmp_path):
  _train(tmp_path / 'vae', steps=2, model='vae')
  _train(tmp_path / 'mlvae', steps=2)
  check_vae(str(tmp_path / 'vae'), (4, 4, 1))
  with pytest.raises(UserError, match='--vae_workdir=.*mlvae is a run of '
                     '--model=mlvae, not of a VAE'):
    check_vae(str(tmp_path / 'mlvae'), (4, 4, 1))
  with pytest.raises(
      UserError, match=r'shape \[4, 4, 1\], but these have \[8,'):
    check_vae(str(tmp_path / 'vae'), (8, 8, 3))


def test_a_flag_without_effect_and_warnings_are_said(
    tmp_path, monkeypatch, capsys):
  data, config = _data(per_group=1), dataclasses.replace(
      _CONFIG, data_dir='photos', celeb_top_k=3)
  model = make_model(config, data)
  kept = {'top_k': 0}
  monkeypatch.setattr(train.folder, 'store_manifest', lambda config: kept)
  for top_k, said in ((None, 0), (0, 0), (3, 1)):
    train._warn(config, model, data, {'celeb_top_k': top_k})
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith('warning: no group by \'group\' has two images')
    assert lines.count('warning: --celeb_top_k=3 has no effect: the images of '
                       'photos have no search ranks') == said
  kept['top_k'] = 3
  train._warn(config, model, data, {'celeb_top_k': 3})
  assert 'has no effect' not in capsys.readouterr().err


def test_seed_changes_the_run(tmp_path):
  _, first = _train(tmp_path / 'a', steps=2)
  _, second = _train(tmp_path / 'b', steps=2, seed=1)
  assert not np.array_equal(
      first['encoder']['heads']['kernel'],
      second['encoder']['heads']['kernel'])


@pytest.mark.slow
def test_divergence_keeps_the_last_checkpoint(tmp_path):
  _, before = _train(tmp_path, steps=2)
  config_file = tmp_path / 'config.json'
  config_file.write_text(config_file.read_text().replace(
      '"learning_rate": 0.001', '"learning_rate": 1e+30'))
  with pytest.raises(UserError, match='step 2 is kept'):
    _train(tmp_path, learning_rate=1e30)
  _, after = loading.load(tmp_path)
  _assert_equal(before, after)


@pytest.mark.slow
def test_divergence_before_any_checkpoint(tmp_path):
  with pytest.raises(UserError, match='not finite.*no checkpoint yet'):
    _train(tmp_path, learning_rate=1e30)


def test_workdir_of_another_configuration_is_refused(tmp_path):
  _train(tmp_path, steps=2)
  with pytest.raises(UserError, match='seed=0, not 5; choose another'):
    _train(tmp_path, seed=5)


def test_workdir_of_other_images_is_refused(tmp_path):
  _train(tmp_path, steps=2)
  model = library.make_model(_CONFIG, (5, 5, 1))
  with pytest.raises(
      UserError, match=r'another model, for observations of shape \[4, 4'):
    with open_workdir(str(tmp_path), _CONFIG, model, resume=True):
      pass


def test_workdir_is_not_resumed_when_told_not_to(tmp_path):
  _train(tmp_path, steps=2)
  model = library.make_model(_CONFIG, (4, 4, 1))
  with pytest.raises(UserError, match='already holds a run'):
    with open_workdir(str(tmp_path), _CONFIG, model, resume=False):
      pass


def test_damaged_config_is_one_error(tmp_path):
  (tmp_path / 'config.json').write_text('{"mod')
  with pytest.raises(UserError, match='not JSON'):
    _train(tmp_path)


def test_config_round_trip():
  config = dataclasses.replace(_CONFIG, hidden_sizes=(3, 4), data_dir='x')
  text = json.dumps(to_json(config))
  assert from_json(json.loads(text)) == config


def _flags(**values):
  names = [f.name for f in dataclasses.fields(Config)]
  return {name: None for name in names} | {
      'dataset': 'mnist5k', 'epochs': None} | values


def test_flags_override_the_preset():
  config = train.config_from_flags(_flags(seed=3, hidden_sizes=['7', '5']))
  assert config == dataclasses.replace(
      presets.PRESETS['mnist5k'], seed=3, hidden_sizes=(7, 5))


def test_the_papers_objective_is_one_flag():
  config = train.config_from_flags(_flags(objective='paper'))
  # Steps and batches are the preset's; all else is what the code began with.
  assert config == Config(objective='paper', steps=4000)
  shapes = train.config_from_flags(_flags(dataset='shapes', objective='paper'))
  assert (shapes.factors, shapes.penalties, shapes.evidence) == (
      'shape:8:shape,colour:4:colour,style:4', '', 'all')
  given = {'evidence': 'random', 'penalties': 'contrast/content:1'}
  assert train.config_from_flags(_flags(objective='paper', **given)) == (
      dataclasses.replace(config, **given))


@pytest.mark.parametrize('model', ['vae', 'svi'])
def test_models_without_groups_or_encoder_have_no_extras(model):
  config = train.config_from_flags(_flags(model=model))
  assert (config.penalties, config.evidence) == ('', 'all')
  assert '|' not in config.factors
  library.make_model(config, (28, 28, 1))


def test_flags_of_networks_penalties_and_augmentation():
  given = {
      'network': 'conv', 'channels': ['8', '12'], 'norm_groups': 4,
      'penalties':
          'contrast/content:2.5,adversary/style:3,mean_leakage/style:4',
      'visit': 'groups',
      'augment': 'flip,shift:1', 'min_group_size': 2}
  config = train.config_from_flags(_flags(**given))
  assert config == dataclasses.replace(
      presets.PRESETS['mnist5k'], **given | {'channels': (8, 12)})
  model = library.make_model(config, (28, 28, 1))
  assert model.network == Conv((8, 12), (500, 500), 'tanh', 4)
  settings = library.make_train_config(config, model)
  assert settings.penalties == (
      Penalty('contrast', 'content', 2.5), Penalty('adversary', 'style', 3.0),
      Penalty('mean_leakage', 'style', 4.0))
  assert settings.augment == Augment(flip=True, shift=1)


@pytest.mark.parametrize('name', list(presets.PRESETS))
@pytest.mark.parametrize('model', ['mlvae', 'vae'])
def test_every_preset_makes_a_model_and_its_settings(name, model):
  where = {'data_dir': 'x.npz'} if name == 'arrays' else {}
  config = train.config_from_flags(_flags(dataset=name, model=model, **where))
  observation_shape = (config.image_size, config.image_size, 3)
  found = library.make_model(config, observation_shape)
  settings = library.make_train_config(config, found)
  assert bool(found.grouped) == (model == 'mlvae')
  if model == 'vae':
    assert settings.penalties == ()


def test_batch_size_means_groups_for_grouped_models():
  config = train.config_from_flags(_flags(batch_size=100, max_group_size=20))
  assert config.groups_per_batch == 5
  config = train.config_from_flags(_flags(batch_size=100, model='vae'))
  assert (config.groups_per_batch, config.batch_size) == (10, 100)


@pytest.mark.parametrize('values, message', [
    ({'factors': 'content'}, 'NAME:DIM'),
    ({'factors': 'a:2,a:3'}, 'distinct names'),
    ({'hidden_sizes': ['x']}, 'comma-separated integers'),
    ({'kl_weights': 'style:1,nobody:1'}, "no factor 'nobody' for --kl_weights="
     'style:1,nobody:1; the factors are content, style'),
    ({'penalties': 'contrast/content:-1', 'factors': 'who:2:digit,style:2'},
     "no factor 'content' for --penalties=contrast/content:-1; the factors are "
     'who, style'),
    ({'kl_weights': 'style:much'}, 'NAME:WEIGHT'),
    ({'penalties': 'contrast/nobody:1'}, "no factor 'nobody'"),
    ({'penalties': 'contrast/content:-1'}, 'weight of at least 0'),
    ({'penalties': 'contrast/content:nan'}, 'weight of at least 0'),
    ({'penalties': 'contrast/content:-1'},
     "least 0 in --penalties, got 'contrast/content:-1'"),
    ({'penalties': 'contrast/content'},
     "expected --penalties as KIND/NAME:WEIGHT,..., got 'contrast/content'"),
    ({'penalties': 'content:1'}, 'expected --penalties as KIND/NAME:WEIGHT'),
    ({'penalties': 'contrest/content:1'},
     "no penalty 'contrest' for --penalties=contrest/content:1; penalties are "
     'contrast, mean_leakage, adversary'),
    ({'penalties': 'mean_leakage/style:1,contrast/style:1'},
     "--penalties=contrast/style: contrast needs a grouped factor, got "
     "'style'; leave it out"),
    ({'penalties': 'mean_leakage/nobody:1'}, "no factor 'nobody'"),
    ({'penalties': 'mean_leakage/content:1'},
     'mean_leakage needs some other factor with a different grouping, and '
     "'content' has none; leave it out"),
    ({'penalties': 'mean_leakage/z:1', 'model': 'vae'}, 'mean_leakage needs '
     "some other factor with a different grouping, and 'z' has none"),
    ({'penalties': 'contrast/z:1', 'model': 'vae'}, 'needs a grouped factor'),
    ({'penalties': 'contrast/content:1', 'model': 'svi'},
     'contrast needs an encoder, and an SVI model has none; leave it out'),
    ({'penalties': 'contrast/all:1', 'model': 'svi'},
     '--penalties=contrast/all: contrast needs an encoder'),
    ({'penalties': 'mean_leakage/a:1', 'model': 'svi',
      'factors': 'a:2:x,b:2:y'},
     'mean_leakage needs an encoder, and an SVI model has none; leave it out'),
    ({'subsampling': 'unbiased', 'model': 'vae'},
     '--subsampling=unbiased needs a grouped factor; name a grouping in --fac'),
    ({'subsampling': 'unbiased', 'factors': 'a:2:x,b:2:y'},
     '; use --subsampling=paper, or one grouping in --factors'),
    ({'subsampling': 'unbiased'}, '--subsampling=unbiased needs --visit=groups '
     'and a --max_group_size of at least 2'),
    ({'augment': 'spin'}, 'expected augment as flip,shift:PIXELS'),
    ({'network': 'conv'}, 'multiples of 16, got [28, 28]'),
    ({'network': 'conv', 'channels': ['x']}, 'comma-separated integers'),
    ({'network': 'conv', 'channels': []}, 'at least one convolution'),
    ({'network': 'conv', 'channels': ['4', '6'], 'norm_groups': 4},
     'norm_groups that divide the channels [4, 6], got 4'),
    ({'steps': 1, 'epochs': 1}, 'not both'),
    ({'batch_size': 1, 'groups_per_batch': 1}, 'not both'),
    ({'batch_size': 7, 'max_group_size': 8}, 'error: --batch_size=7 is too '
     'small for a group of --max_group_size=8 rows; give a larger'),
    ({'data_dir': 'photos'}, '--dataset=mnist5k reads no files; for data of '
     'your own give --dataset=folder or --dataset=arrays, or leave out'),
    ({'hold_out': ''},
     '--hold_out is for --dataset=shapes or fonts, not mnist5k'),
    ({'num_images': 9, 'dataset': 'celeb'}, '--num_images is for --dataset=sh'),
    ({'celeb_top_k': 3, 'dataset': 'shapes'}, '--celeb_top_k is for --dataset='
     'folder or celeb'),
])
def test_bad_flags_exit_with_2_and_one_line(capsys, values, message):
  with pytest.raises(SystemExit) as caught:
    train.config_from_flags(_flags(**values))
  assert caught.value.code == 2
  error = capsys.readouterr().err
  assert message in error and error.count('\n') == 1


def test_factor_of_an_unknown_grouping(capsys):
  config = dataclasses.replace(_CONFIG, factors='content:3:person,style:2')
  with pytest.raises(SystemExit, match='2'):
    train._make_model(config, _data())
  assert "grouped by 'person'" in capsys.readouterr().err


def test_all_stands_for_the_factors_that_fit_and_the_last_weight_counts():
  config = dataclasses.replace(
      presets.PRESETS['folder'], factors='who:2:person,lit:2:light,style:2',
      kl_weights='all:2,lit:3', penalties='contrast/all:5,mean_leakage/all:1,'
      'mean_leakage/style:7,mean_leakage/who:0')
  model = library.make_model(config, (8, 8, 1))
  found = library.make_train_config(config, model)
  assert found.kl_weights == (('who', 2.0), ('lit', 3.0), ('style', 2.0))
  assert found.penalties == (
      Penalty('contrast', 'who', 5.0), Penalty('contrast', 'lit', 5.0),
      Penalty('mean_leakage', 'who', 0.0), Penalty('mean_leakage', 'lit', 1.0),
      Penalty('mean_leakage', 'style', 7.0))
  # Of a single grouping, only what is not grouped by it can leak.
  config = dataclasses.replace(
      config, factors='who:2:person,style:2', kl_weights='',
      penalties='mean_leakage/all:1')
  model = library.make_model(config, (8, 8, 1))
  found = library.make_train_config(config, model)
  assert found.penalties == (Penalty('mean_leakage', 'style', 1.0),)
  # Where 'all' fits nothing it stands for nothing.
  vae = dataclasses.replace(config, model='vae')
  found = library.make_train_config(vae, library.make_model(vae, (8, 8, 1)))
  assert found.penalties == ()


def _older(**values):
  """The config.json of when each kind of penalty was a setting of its own."""
  new = to_json(presets.PRESETS['shapes'])
  del new['penalties']
  return new | {'contrast': 'all:100', 'leakage': 'all:1000,style:5000',
                'mean_leakage': 'style:5000',
                'leakage_estimate': 'unbiased'} | values


def test_penalties_of_an_older_run_are_read():
  assert from_json(_older()) == dataclasses.replace(
      presets.PRESETS['shapes'], penalties='contrast/all:100,leakage/all:1000,'
      'leakage/style:5000,mean_leakage/style:5000')
  assert from_json(_older(
      leakage='style:1, shape:2', contrast='', leakage_estimate='nonnegative'
  )).penalties == ('nonnegative_leakage/style:1,nonnegative_leakage/shape:2,'
                   'nonnegative_mean_leakage/style:5000')
  older = _older(contrast='', leakage='', mean_leakage='')
  assert from_json(older).penalties == ''
  # Older still: it knew no leakage of means.
  del older['mean_leakage'], older['leakage_estimate']
  assert from_json(older | {'leakage': 'style:2'}).penalties == (
      'leakage/style:2')


def test_a_run_of_when_each_penalty_was_a_setting_goes_on(tmp_path):
  config = dataclasses.replace(
      presets.PRESETS['shapes'],
      penalties='contrast/all:100,mean_leakage/style:5000')
  model = library.make_model(config, (32, 32, 3))
  path = tmp_path / 'config.json'
  for contrast in 100, 1:
    path.write_text(json.dumps({
        'config': _older(contrast=f'all:{contrast}', leakage=''),
        'model': model.to_dict()}))
    expected = contextlib.nullcontext() if contrast == 100 else (
        pytest.raises(UserError, match='a run with penalties=contrast/all:1,'))
    with expected, open_workdir(str(tmp_path), config, model, resume=True):
      pass


def test_removed_penalties_are_refused_for_training():
  config = from_json(_older())
  with pytest.raises(ValueError, match="no penalty 'leakage' for --penalties"):
    library.make_train_config(config, library.make_model(config, (32, 32, 3)))


@pytest.mark.slow
def test_several_groupings_are_trained_saved_and_encoded(tmp_path):
  config = dataclasses.replace(
      presets.PRESETS['shapes'], num_images=400, image_size=8, network='mlp',
      hidden_sizes=(8,), factors='shape:3:shape,colour:2:colour,style:2',
      penalties='contrast/all:1,mean_leakage/all:1', steps=4, chunk_steps=2,
      eval_every=2, groups_per_batch=4, max_group_size=4)
  data = datasets.load(config)
  model = make_model(config, data)
  with open_workdir(str(tmp_path), config, model, resume=True):
    loop.train(str(tmp_path), config, model, data)
  record = read_metrics(str(tmp_path))[-1]
  assert set(record['kl']) == {'shape', 'colour', 'style'}
  assert all(np.isfinite(v) for v in record['kl'].values())
  model, params = loading.load(tmp_path)
  for factor, dim in (('shape', 3), ('colour', 2)):
    labels = data.test.labels_of(factor)
    q = mlvae_jax.encode_group(
        model, params, data.test.x, labels.ids, len(labels.names),
        factor=factor)
    assert q.mean.shape == (10, dim) and np.all(np.isfinite(q.logvar))
