"""Figures of several factors, groupings and strategies; what is new in test."""

import dataclasses
import types

from absl import flags
import numpy as np
import pytest

from experiments import figures, report
from experiments.cli import UserError
from experiments.config import library, presets
from experiments.datasets.splits import Splits
from experiments.pictures import generalisation, groups, shown, swaps
from experiments.pictures.subject import Subject, groups_of, variants
import mlvae_jax
from mlvae_jax.data.grouped import GroupedData, Labels
from mlvae_jax.model.factors import parse_factors
from tests.helpers import pictures

_CONFIG = dataclasses.replace(presets.PRESETS['folder'], hidden_sizes=(8,))
_FACTORS = 'who:2:who,lamp:3:lamp,how:2'
_WHO, _LAMP = ('ann', 'bob', 'eve'), ('red', 'sun')
_STRATEGY_1 = ('', '_strategy_1')


def _images(who, lamp, others=('lamp',), seed=0):
  rng = np.random.default_rng(seed)
  return GroupedData.from_labels(
      rng.integers(0, 256, (len(who), 4, 4, 1), np.uint8),
      np.array(who, int), _WHO, 'who',
      {name: Labels(np.array(lamp, int), _LAMP) for name in others})


def _splits(**changes):
  """Ann and Bob by red light and in the sun; Eve is new in the sun."""
  train = _images([0, 1, 2] * 4 + [0, 1] * 4, [0] * 12 + [1] * 8, seed=1)
  test = _images([0] * 5 + [1] * 15 + [2] * 2, [0, 1] * 10 + [1] * 2)
  return dataclasses.replace(Splits(train, test, test, True), **changes)


def _subject(factors=_FACTORS, data=None, **fields):
  data = data or _splits()
  model = library.make_model(
      dataclasses.replace(_CONFIG, factors=factors),
      data.train.x.shape[1:])
  values = {'model': model, 'params': pictures.init(model), 'data': data,
            'factor': model.grouped[0].name if model.grouped else None}
  return Subject(**values | fields)


@pytest.fixture(scope='module', autouse=True)
def _fast():
  with pictures.fast():
    yield


@pytest.fixture
def draw(tmp_path, monkeypatch):
  """Function that draws an untrained model: images by name."""
  def call(factors=_FACTORS, data=None, only=None):
    subject = _subject(factors, data)
    monkeypatch.setattr(
        figures, 'load_model',
        lambda workdir, step: (subject.model, subject.params))
    return pictures.read(
        figures.draw_all(str(tmp_path), subject.data, only=only))
  return call


@pytest.mark.slow
def test_a_figure_for_every_factor_and_strategy(draw, compilations):
  drawn = draw()
  assert set(drawn) == {
      *(f'swap{f}{s}' for f in ('', '_lamp', '_how') for s in _STRATEGY_1),
      *(f'{name}{f}{s}' for name in ('generation', 'interpolation')
        for f in ('', '_lamp') for s in _STRATEGY_1),
      'reconstruction', 'reconstruction_lamp', 'generalisation', 'ambiguity',
      'ambiguity_lamp'}
  for name, image in drawn.items():
    caption = image.text['Description']
    other = 'Strategy 2:' if 'strategy_1' in name else 'Strategy 1:'
    assert other not in caption and 'trategy' in caption, name
    assert ('lamp' in caption) == (name not in (
        'reconstruction', 'ambiguity', 'generation_strategy_1')) or (
            'gen' in name), name
  with compilations() as compiled:
    draw()
  assert not compiled


def test_two_factors_leave_out_the_same_pictures_again(draw):
  drawn = draw('who:2:who,how:2', only=['swap', 'reconstruction'])
  assert set(drawn) == {'swap', 'swap_strategy_1', 'reconstruction'}


@pytest.mark.parametrize('factor, seen', [
    ('who', {0, 1, 2, 3, 4}),  # Ann's.
    ('lamp', {0, 2, 4, 6, 8, 10, 12, 14, 16, 18}),  # Those by red light.
    ('how', {2}),
])
def test_each_code_has_the_evidence_of_its_own_grouping(factor, seen):
  subject, row = _subject(), np.array([2])
  before = shown.infer_codes(subject, row)[factor]
  test, changed = subject.images, set()
  for i in range(len(test)):
    pixels = test.x.copy()
    pixels[i] = 255 - pixels[i]
    other = subject._replace(data=_splits(
        test=dataclasses.replace(test, x=pixels)))
    if not np.allclose(
        before, shown.infer_codes(other, row)[factor], atol=1e-6):
      changed.add(i)
  assert changed == seen


@pytest.mark.slow
def test_mixture_posteriors_are_drawn(draw, monkeypatch):
  make_model = library.make_model
  monkeypatch.setattr(library, 'make_model', lambda *args: dataclasses.replace(
      make_model(*args), group_posterior=mlvae_jax.Mixture()))
  only = ['swap', 'reconstruction', 'generalisation']
  assert 'swap_lamp' in draw(only=only)


def test_strategy_1_takes_each_image_alone():
  subject = _subject(strategy=1)
  rows = np.array([0, 7, 21])
  expected = mlvae_jax.infer(
      subject.model, subject.params, subject.images.x[rows])
  for name, codes in shown.infer_codes(subject, rows).items():
    np.testing.assert_allclose(codes, expected[name], rtol=1e-5, atol=1e-6)


def test_an_image_of_no_known_group_is_its_own():
  data = _splits(test=_images([0, 0, 1, 1], [-1, 0, -1, 0]))
  groups = groups_of(data.test, 'lamp')
  assert groups.ids.tolist() == [2, 0, 4, 0]
  assert groups.name(4) == '?' and groups.name(0) == 'red'
  rows = np.array([0, 2])
  alone, together = (
      shown.infer_codes(_subject(data=data, strategy=s), rows)
      for s in (1, 2))
  np.testing.assert_allclose(together['lamp'], alone['lamp'], rtol=1e-5)
  assert not np.allclose(together['who'], alone['who'])


def test_images_differ_in_every_grouping():
  test = _images([0] * 4 + [1] * 4, [0, 0, 0, 1] * 2)
  for factor in ('who', 'lamp'):
    subject = _subject(data=_splits(test=test), factor=factor)
    first, second = shown.choose_images(subject, 2)
    assert test.labels[first] != test.labels[second]
    lamps = test.labels_of('lamp').ids
    assert lamps[first] != lamps[second]


def test_generation_says_how_far_codes_are_from_the_prior():
  x = np.random.default_rng(0).normal(size=(2000, 1))
  codes = {'who': x, 'lamp': np.hstack([x, 2 * x, -3 * x]), 'how': 0.5 * x}
  said = groups._describe_spread(_subject(), codes)
  assert 'lamp has standard deviations of 1.0 to 3.0 and correlations of up '\
      'to 1.0' in said
  assert 'how has standard deviations of 0.5 to 0.5' in said
  assert 'who' not in said
  few = {name: code[:2] for name, code in codes.items()}
  assert not groups._describe_spread(_subject(), few)


def test_variants_name_what_is_not_the_first():
  found = dict(variants(_subject(), ['who', 'lamp']))
  assert list(found) == ['', '_lamp', '_strategy_1', '_lamp_strategy_1']
  assert found['_lamp_strategy_1'].factor == 'lamp'
  assert found['_lamp_strategy_1'].strategy == 1


@pytest.mark.parametrize('factors, expected', [
    ('a:1:x,b:1', True), ('a:1:x,b:1:x', True), ('a:1:x', False),
    ('a:1,b:1', False)])
def test_what_can_be_swapped(factors, expected):
  model = mlvae_jax.Model(parse_factors(factors), (4, 4, 1))
  assert swaps.can_swap(model) == expected


# Combinations that training never saw.


def test_unseen_combinations_are_found_by_name():
  train = GroupedData.from_labels(
      np.zeros((5, 4, 4, 1), np.uint8), np.array([0, 0, 1, 2, 1]),
      ('triangle', 'star', 'ring'), 'shape',
      {'colour': Labels(np.array([0, 1, 0, -1, 2]), ('red', 'blue', 'pink'))})
  # Numbers differ from training's; green and ring's colours are unknown there.
  test = GroupedData.from_labels(
      np.zeros((7, 4, 4, 1), np.uint8), np.array([0, 0, 0, 1, 1, 2, 3]),
      ('star', 'triangle', 'ring', 'moon'), 'shape',
      {'colour': Labels(np.array([0, 1, 2, 0, -1, 0, 0]),
                        ('blue', 'red', 'green'))})
  found = generalisation.find_unseen(train, test, ('shape', 'colour'))
  # Star and ring in blue; not star in red (seen) or green (no such part),
  # triangle in blue (seen) or unknown, nor the moon (no such part).
  assert found.tolist() == [0, 5]
  swapped = generalisation.find_unseen(train, test, ('colour', 'shape'))
  assert swapped.tolist() == [0, 5]


def test_a_combination_is_composed_of_training_images():
  subject = _subject()
  rows = generalisation.choose_unseen(
      subject.data.train, subject.images, ('who', 'lamp'))
  assert rows.tolist() in ([20, 21], [21, 20])  # Eve in the sun.
  codes, evidence = generalisation.compose(subject, rows, ['who', 'lamp'])
  train = subject.data.train
  for name, group in (('who', 2), ('lamp', 1)):
    ids = train.labels_of(name).ids
    used = evidence[name][0]
    assert (ids[used] == group).all() and len(used) == (ids == group).sum()
    expected = mlvae_jax.encode_group(
        subject.model, subject.params, train.x[used],
        np.zeros(len(used), np.int32), 1, factor=name).mean
    np.testing.assert_allclose(codes[name][:1], expected, rtol=1e-4, atol=1e-6)
  alone = mlvae_jax.infer(
      subject.model, subject.params, subject.images.x[rows])
  np.testing.assert_allclose(codes['how'], alone['how'], rtol=1e-4, atol=1e-6)


def test_many_images_of_few_combinations():
  test = _images([2] * 30, [1] * 30)
  rows = generalisation.choose_unseen(_splits().train, test, ('who', 'lamp'))
  assert len(set(rows)) == len(rows) == 10


@pytest.mark.parametrize('factors, words', [
    (_FACTORS, ['who is the mean', 'lamp is the mean', 'how is that']),
    ('who:2:who,lamp:3:lamp', ['who is the mean', 'lamp is the mean']),
    ('lamp:2:lamp,how:2', ['lamp is the mean', 'how is that']),
    ('who:2:who,how:2', ['who is the mean', 'how is that']),
])
def test_what_is_composed_is_said(draw, factors, words):
  drawn = draw(factors, only=['generalisation'])
  caption = drawn['generalisation'].text['Description']
  assert all(word in caption for word in words)
  assert ('is that of the test image' in caption) == ('how' in factors)


@pytest.mark.parametrize('factors, data', [
    ('who:2:who', _splits()),  # Nothing to go with it.
    ('a:2,b:2', _splits()),
    (_FACTORS, _splits(test=_splits().train)),
    ('who:2:who,how:2', _splits(test=_images([2], [1], others=()))),
])
def test_nothing_new_in_the_test_split(factors, data):
  subject = _subject(factors, data)
  assert not list(generalisation.generalisations(subject))


def test_the_report_has_pictures_of_a_kind_together():
  names = ['zebra', 'swap_strategy_1', 'curves', 'swap_lamp', 'samples',
           'generalisation', 'swap_lamp_strategy_1', 'swap', 'generation']
  shown = report._pictures('run', {name: name for name in names})
  assert shown.split() == [
      'swap', 'swap_lamp', 'swap_lamp_strategy_1', 'swap_strategy_1',
      'generation', 'generalisation', 'samples', 'zebra']


# Bad input.


@pytest.mark.slow
def test_test_split_with_labels_of_one_grouping_only(draw):
  data = _splits(test=_images([0, 0, 1], [-1, -1, -1]))
  drawn = draw(data=data)
  assert 'swap_lamp' in drawn and 'generalisation' not in drawn


def test_data_without_the_model_s_grouping_are_refused(draw):
  test = _images([0, 1], [0, 1], others=())
  with pytest.raises(UserError, match='groups by lamp, but the data only by '
                                      'who; check --data_dir'):
    draw(data=_splits(test=test))


def test_unknown_figures_are_refused(draw):
  with pytest.raises(ValueError, match='swap'):
    draw(only=['swop'])


@pytest.fixture
def main(monkeypatch, tmp_path):
  """Function that runs the entry point with --only."""
  data = _splits()

  def call(only):
    subject = _subject('who:2:who,how:2', data)
    monkeypatch.setattr(
        figures, 'load_model',
        lambda workdir, step: (subject.model, subject.params))
    monkeypatch.setattr(figures, 'load_data', lambda workdir, **moved: data)
    values = {'workdir': str(tmp_path), 'data_dir': None, 'store_dir': None,
              'data_changed': 'refuse', 'step': 'latest', 'only': only}
    monkeypatch.setattr(
        flags, 'FLAGS',
        types.SimpleNamespace(flag_values_dict=lambda: values))
    figures.main()
  return call


def test_only_draws_a_part(main, tmp_path, capsys):
  main(['reconstruction', 'swap', 'swap'])
  names = [line.rpartition('/')[2] for line in
           capsys.readouterr().out.split()]
  assert names == ['swap.png', 'swap_strategy_1.png', 'reconstruction.png']
  assert sorted(names) == sorted(
      path.name for path in (tmp_path / 'figures').iterdir())


@pytest.mark.parametrize('only, wrong', [
    (['swap', 'swop', '<b>'], "'swop', '<b>'"), ([], 'nothing'), ([''], "''")])
def test_only_takes_the_names_of_figures(main, capsys, only, wrong):
  with pytest.raises(SystemExit) as caught:
    main(only)
  assert caught.value.code == 2
  error = capsys.readouterr().err
  assert wrong in error and 'generalisation, samples' in error


def test_only_of_what_the_run_does_not_have(main):
  with pytest.raises(UserError, match='cannot draw samples, curves'):
    main(['samples', 'curves'])
