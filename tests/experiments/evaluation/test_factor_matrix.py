"""Which code tells which label: what is read, off which images, and shown."""

import dataclasses
import json
import types

import jax
import matplotlib
import numpy as np
from PIL import Image
import pytest

from experiments import evaluate, report
from experiments.datasets.splits import Splits, split_images
from experiments.evaluation import (
    encoding,
    factor_chart,
    factor_matrix,
    factor_tables,
    label_sets,
    probe_rows,
    strategies,
)
from experiments.evaluation.encoding import Encoded, encode_rows
from experiments.evaluation.results import read_evaluation
from experiments.pictures import sheets
import mlvae_jax
from mlvae_jax.data.grouped import GroupedImages, Labels
from mlvae_jax.grouping.normal import Normal, kl_divergence
from mlvae_jax.model.factors import parse_factors
from mlvae_jax.model.model import Model
from mlvae_jax.model.networks import MLP

_MODEL = Model(parse_factors('who:2:who,light:2:light,style:2'), (4, 4, 1),
               network=MLP((8,)))
_LIGHTS = ('dim', 'bright')


@pytest.fixture(scope='module', autouse=True)
def compile_fast():
  """Next to nothing is computed here: compiling takes the time."""
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)


@pytest.fixture(scope='module')
def params():
  return _MODEL.init(jax.random.key(0))


def _images(who, light, names=None, lights=_LIGHTS):
  """Dark images, of which two pixels say who it is and how it is lit."""
  who, light = np.asarray(who), np.asarray(light)
  pixels = np.zeros((len(who), 4, 4, 1), np.uint8)
  pixels[:, 0, 0, 0], pixels[:, 3, 3, 0] = 40 * who, 100 * (light + 1)
  return GroupedImages.from_labels(
      pixels, who, names or [f'p{i}' for i in range(who.max() + 1)], 'who',
      {'light': Labels(light, lights)})


def _random(count=200, people=3, **names):
  rng = np.random.default_rng(0)
  return _images(
      rng.integers(0, people, count), rng.integers(0, 2, count), **names)


def _splits(**changes):
  splits = split_images(_random(), (0.2, 0.2))
  return dataclasses.replace(splits, **changes)


# Which images.


def test_labels_met_in_training_are_matched_by_name():
  test = _images([0, 1] * 10, [1, -1, 0, 0] * 5, ['p2', 'p0'],
                 ('bright', 'dim'))
  chosen = label_sets.choose(_splits(test=test), 'light')
  assert [p.split for p in chosen.parts] == list(label_sets.SPLITS)
  part = chosen.parts[2]
  assert len(part.rows) == 15  # Not those that are not known.
  ids = test.labels_of('light').ids[part.rows]
  np.testing.assert_array_equal(part.labels, 1 - ids)
  first = label_sets.choose(_splits(test=test), 'who')
  assert first.num_classes == 3
  np.testing.assert_array_equal(
      first.parts[2].labels, np.array([2, 0])[test.labels[first.parts[2].rows]])


def test_new_labels_are_learned_from_test_images():
  test = _random(names=['p0', 'p1', 'new'])
  chosen = label_sets.choose(_splits(test=test), 'who')
  assert {p.split for p in chosen.parts} == {'test'}
  rows = np.concatenate([p.rows for p in chosen.parts])
  assert sorted(rows) == list(range(200))  # Each in one part.
  for part, share in zip(chosen.parts, (0.6, 0.2, 0.2)):
    np.testing.assert_array_equal(part.labels, test.labels[part.rows])
    np.testing.assert_allclose(
        np.bincount(part.labels) / np.bincount(test.labels), share, atol=0.05)
  # Lights are the same as in training.
  chosen = label_sets.choose(_splits(test=test), 'light')
  assert chosen.parts[0].split == 'train'


@pytest.mark.parametrize('choose', [
    label_sets.first,
    lambda data, split: label_sets.choose(data, 'light', split)])
@pytest.mark.parametrize('shares_groups', [True, False])
def test_validation_is_scored_on_what_nothing_was_chosen_by(
    choose, shares_groups):
  data = _splits(shares_groups=shares_groups, test=_images([0], [0]))
  train, choice, score = choose(data, 'validation').parts
  assert choice.split == score.split == 'validation'
  assert train.split in ('train', 'validation')
  assert not set(choice.rows) & set(score.rows)
  if train.split == 'train':
    # Half of the images of each label.
    together = np.sort(np.concatenate([choice.rows, score.rows]))
    np.testing.assert_array_equal(together, np.arange(len(data.validation)))
    assert np.all(np.abs(
        np.bincount(choice.labels) - np.bincount(score.labels)) <= 1)
  else:
    assert not set(train.rows) & {*choice.rows, *score.rows}
  for part in (choice, score):
    assert len(np.unique(part.labels)) >= 2


def test_labels_of_few_images_are_left_out():
  who = np.repeat([0, 1, 2], [30, label_sets.MIN_ROWS, label_sets.MIN_ROWS - 1])
  data = _images(who, who % 2)
  chosen = label_sets.choose(Splits(data, data, data, True), 'who')
  assert chosen.num_classes == 2
  assert len(chosen.parts[2].rows) == 30 + label_sets.MIN_ROWS


@pytest.mark.parametrize('light', [
    np.zeros(60, int), np.full(60, -1), np.repeat([0, 1], [57, 3])])
def test_one_label_is_no_question(light):
  data = _images(np.arange(60) % 3, light)
  assert label_sets.choose(Splits(data, data, data, True), 'light') is None
  unseen = _images(np.arange(60) % 3, light, lights=('new', 'newer'))
  assert label_sets.choose(Splits(data, data, unseen, True), 'light') is None


def test_a_grouping_that_is_not_there():
  with pytest.raises(ValueError, match="no grouping 'age'"):
    label_sets.choose(_splits(), 'age')


def test_large_data_sets_are_cut_at_random(monkeypatch):
  monkeypatch.setattr(label_sets, 'MAX_TRAIN', 50)
  monkeypatch.setattr(label_sets, 'MAX_HELD_OUT', 10)
  who, light = (label_sets.choose(_splits(), name) for name in ('who', 'light'))
  assert [len(p.rows) for p in who.parts] == [50, 10, 10]
  assert len(np.unique(who.parts[0].labels)) == 3
  # Both ask for the same images, which are encoded once.
  rows = factor_matrix.rows_to_encode([who, light])
  assert {name: len(found) for name, found in rows.items()} == {
      'train': 50, 'validation': 10, 'test': 10}
  monkeypatch.setattr(label_sets, 'MAX_CLASSES', 2)
  assert label_sets.choose(_splits(), 'who').num_classes == 2


def test_windows_are_of_one_label_of_the_grouping():
  data = _random()
  part = label_sets.choose(Splits(data, data, data, True), 'light').parts[0]
  rows, labels = part.windows(3, seed=0)
  assert rows.shape == (200, 3)
  np.testing.assert_array_equal(
      data.labels_of('light').ids[rows], np.repeat(labels[:, None], 3, axis=1))
  assert all(len(set(row)) == 3 for row in rows)
  # Whoever it is: these are not the groups that the images are sorted by.
  assert (np.ptp(data.labels[rows], axis=1) > 0).any()


# Which codes.


def test_rows_are_encoded_as_if_all_were(params):
  images = _random().images
  rows = np.array([3, 5, 40, 199])
  whole, some = encode_rows(_MODEL, params, images), encode_rows(
      _MODEL, params, images, rows)
  for name, q in whole.items():
    np.testing.assert_allclose(some[name].mean, q.mean[rows], rtol=1e-5)
  encoded = Encoded(_MODEL, params, {'test': images}, {'test': rows})
  np.testing.assert_array_equal(
      encoded.alone('test', 'who', np.array([199, 3])).logvar,
      some['who'].logvar[[3, 0]])


def test_sets_accumulate_the_evidence_of_their_images(params):
  images = _random().images
  encoded = Encoded(_MODEL, params, {'test': images})
  rows = np.array([[0, 7], [7, 9], [3, 0]])
  codes = probe_rows.code_features(encoded, 'light', 'mean')('test', rows)
  expected = mlvae_jax.encode_group(
      _MODEL, params, images[rows.ravel()], np.repeat(np.arange(3), 2), 3,
      factor='light')
  np.testing.assert_allclose(codes, expected.mean, rtol=1e-4)


def test_sets_are_inferred_once_where_there_is_no_encoder(monkeypatch):
  model = dataclasses.replace(_MODEL, inference='svi')
  images = {'train': _random().images[:3], 'test': _random().images[3:6]}
  encoded = Encoded(model, model.init(jax.random.key(0)), images)
  asked = []

  def infer(model, params, factor, images, rows, set_ids, num_sets):
    asked.append(len(rows))
    return Normal(*np.ones((2, num_sets, 2), np.float32))

  monkeypatch.setattr(encoding, '_infer_sets', infer)
  for source in ('mean', 'sample'):
    features = probe_rows.code_features(encoded, 'who', source)
    for split in images:
      assert features(split, np.array([[0, 1], [2, 0]])).shape == (2, 2)
      # An image alone is inferred as such, with its other codes.
      np.testing.assert_array_equal(
          encoded.together(split, 'who', np.array([2, 0]), np.arange(2),
                           2).mean,
          encoded.alone(split, 'who', np.array([2, 0])).mean)
  assert asked == [4, 4]


class _HandMade(Encoded):
  """Knows who it is in one code and the light in another; style is noise."""

  def __init__(self, data):
    super().__init__(_MODEL, {}, {})
    self._data = data

  def alone(self, split, factor, rows):
    data = getattr(self._data, split)
    rng = np.random.default_rng(len(rows))
    if factor == 'style':
      mean = rng.normal(size=(len(rows), 2))
    else:
      labels = data.labels_of(factor).ids[rows]
      mean = np.eye(len(data.labels_of(factor).names))[labels]
      mean = mean + 0.1 * rng.normal(size=mean.shape)
    mean = mean.astype(np.float32)
    return Normal(mean, np.full_like(mean, -6))


@pytest.fixture(scope='module')
def hand_made(params):
  """Codes that are as they should be, the labels, and the images."""
  # As many people as lights: one shape of probe, to compile little.
  data = split_images(_random(people=2), (0.2, 0.2))
  images = {name: getattr(data, name).images for name in label_sets.SPLITS}
  return types.SimpleNamespace(
      codes={'trained': _HandMade(data),
             'untrained': Encoded(_MODEL, params, images)},
      groupings=[label_sets.choose(data, name) for name in ('who', 'light')],
      images=images)


@pytest.fixture(scope='module')
def factor_rows(hand_made):
  return factor_matrix.factor_rows(
      hand_made.codes, hand_made.images, hand_made.groupings, 60)


def test_each_code_tells_its_own_label_only(factor_rows):
  found = factor_tables.by_cell(factor_rows, 'accuracy')
  for source in ('mean', 'sample'):
    assert found['who', source]['who'] > 0.9
    assert found['light', source]['light'] > 0.9
    for code, label in (('light', 'who'), ('who', 'light'), ('style', 'who'),
                        ('style', 'light')):
      assert found[code, source][label] == pytest.approx(0.5, abs=0.3)
  assert found['pixels', 'mean']['light'] > 0.9


def test_rows_of_the_matrix_have_the_plain_form(factor_rows):
  assert [(r['code'], r['source']) for r in factor_rows if r['label'] == 'who'
          ] == [(code, source) for name in ('who', 'light', 'style')
                for code, source in ((name, 'mean'), (name, 'sample'),
                                     (f'untrained_{name}', 'mean'))
                ] + [('pixels', 'mean')]
  assert len(factor_rows) == 20
  for row in factor_rows:
    assert set(row) == {'code', 'label', 'strategy', 'source', 'accuracy',
                        'conditional_entropy', 'chance', 'examples',
                        'labels'}
    assert row['strategy'] == 1
  json.dumps(factor_rows)


def test_a_further_factor_has_probes_of_its_own_label(hand_made):
  rows = list(factor_matrix.further_probes(
      hand_made.codes, hand_made.groupings[1:], (1, 3, 1000), 60))
  assert {(r['code'], r['label'], r['k'], r['strategy']) for r in rows} == {
      (code, 'light', k, strategy) for code in ('light', 'untrained_light')
      for k, strategy in ((1, 1), (3, 2))}


def test_first_probes_leave_out_factors_of_another_grouping(hand_made):
  names = {code.name for code in probe_rows.first_codes(
      hand_made.codes, hand_made.images, 'who', (1, 2))}
  assert names == {'who', 'untrained_who', 'style', 'untrained_style',
                   'style_accumulated', 'pixels'}


def test_one_grouping_has_no_matrix():
  data = split_images(GroupedImages.from_labels(
      np.zeros((20, 4, 4, 1), np.uint8), np.arange(20) % 2, ['a', 'b']))
  assert evaluate._further({}, data, 'test', (1,), 10) == ([], {})


# Strategies.


def test_sets_are_balanced_and_of_one_group():
  ids = np.random.default_rng(0).permutation(
      np.repeat([0, 2, 5, -1], [23, 11, 1, 4]))
  sets = strategies.split_into_sets(ids, 11, seed=0)
  sizes = np.bincount(sets)
  assert sorted(sizes) == [1, 1, 1, 1, 1, 7, 8, 8, 11]
  assert all(len(set(ids[sets == s])) == 1 for s in range(len(sizes)))
  np.testing.assert_array_equal(sets, strategies.split_into_sets(ids, 11, 0))


def test_strategies_by_hand(params):
  test = _random(60)
  one, two = strategies.strategy_rows(_MODEL, params, test)
  assert (one['strategy'], two['strategy']) == (1, 2)
  assert one['images'] == two['images'] == 60
  encoded = encode_rows(_MODEL, params, test.images)
  for name, q in encoded.items():
    assert one['kl'][name] == pytest.approx(
        float(kl_divergence(q).mean()), rel=1e-4)
  logits = _MODEL.decode(params, {n: q.mean for n, q in encoded.items()})
  log_lik = _MODEL.likelihood.log_prob(logits, _MODEL.to_float(test.images))
  assert one['log_lik_of_means'] == pytest.approx(
      float(log_lik.mean()), rel=1e-4)
  ids = strategies.split_into_sets(test.labels_of('light').ids, 11, 0)
  group = mlvae_jax.encode_group(
      _MODEL, params, test.images, ids, ids.max() + 1, factor='light')
  assert two['kl']['light'] == pytest.approx(
      float(kl_divergence(group).sum()) / 60, rel=1e-4)
  assert two['kl']['style'] == one['kl']['style']
  for row in (one, two):
    assert row['elbo_per_image'] == pytest.approx(
        row['log_lik'] - sum(row['kl'].values()))
    assert row['squared_error'] > 0


def test_strategies_agree_where_groups_are_single_images(params):
  test = _images(np.arange(5), np.full(5, -1))
  one, two = strategies.strategy_rows(_MODEL, params, test)
  for name in ('elbo_per_image', 'log_lik_of_means', 'squared_error'):
    assert one[name] == pytest.approx(two[name], rel=1e-5)


def test_of_many_images_whole_sets_are_looked_at(monkeypatch):
  monkeypatch.setattr(strategies, '_MAX_IMAGES', 50)
  test = _random()
  rows = strategies._choose_rows(test)
  sets = strategies.split_into_sets(test.labels, 11, 0)
  assert 39 <= len(rows) <= 50
  assert not set(sets[rows]) & set(np.delete(sets, rows))


def test_a_vae_has_one_strategy(params):
  vae = Model(parse_factors('z:2'), (4, 4, 1), network=MLP((8,)))
  assert strategies.strategy_rows(
      vae, vae.init(jax.random.key(0)), _random()) == []
  assert strategies.strategy_rows(_MODEL, params, _random().take([])) == []


# What is shown.


def _row(code, label, accuracy, source='mean'):
  return {'code': code, 'label': label, 'strategy': 1, 'source': source,
          'accuracy': accuracy, 'conditional_entropy': 0.5, 'chance': 0.25}


def _strategy(number, **kl):
  return {'strategy': number, 'split': 'test', 'images': 1234, 'set_size': 11,
          'elbo_per_image': -50.5, 'log_lik': -40.25, 'kl': kl,
          'log_lik_of_means': -39.0, 'squared_error': 0.015625}


_SECTIONS = {
    'factors': [
        _row(code, label, accuracy) for code, label, accuracy in (
            ('who', 'who', 1.0), ('who', 'light', 0.3), ('style', 'who', 0.2),
            ('style', 'light', 0.9), ('pixels', 'who', 0.7))
    ] + [_row('who', 'who', 0.875, 'sample')],
    'disentanglement': [
        {'code': 'all', 'label': None, 'mig': 0.5, 'disentanglement': 0.25,
         'completeness': 0.125, 'error': 0.0625},
        {'code': 'all', 'label': 'who', 'mig': 0.75, 'completeness': 0.125,
         'error': 0.0625, 'dimension': 'who[2]', 'information': 0.5}],
    'strategies': [_strategy(1, who=8.0, style=2.25),
                   _strategy(2, who=1.0, style=2.25)],
}


def test_sections_of_the_report():
  text = factor_tables.section(_MODEL, _SECTIONS, '<figure>')
  places = [text.index(part) for part in (
      'Label accuracy by code', '<figure>', 'Test accuracy', 'MIG and DCI')]
  assert places == sorted(places)
  for cells in (
      ['code', 'source', 'who', 'light'], ['who', 'mean', '100.0', '30.0'],
      ['who', 'sample', '87.5', '–'], ['pixels', 'mean', '70.0', '–'],
      ['chance', '', '25.0', '25.0'],
      ['all', 'mean', '0.500', '0.250', '0.125', '6.2', '–', '–'],
      ['all', 'who', '0.750', '–', '0.125', '6.2', 'who[2]', '50.0']):
    tag = 'th' if cells[0] == 'code' else 'td'
    assert ''.join(f'<{tag}>{cell}</{tag}>' for cell in cells) in text, cells
  text = factor_tables.strategy_table(_SECTIONS)
  assert '1: each image alone' in text and '2: evidence of its group' in text
  for piece in ('1,234', 'up to 11', '<td>-50.50</td>', 'KL of style',
                '<td>0.01562</td>'):
    assert piece in text, piece


@pytest.mark.parametrize('evaluation', [
    {}, {name: [] for name in _SECTIONS}, dict.fromkeys(_SECTIONS)])
def test_nothing_to_show(tmp_path, evaluation):
  assert factor_tables.section(_MODEL, evaluation, '<figure>') == ''
  assert factor_tables.strategy_table(evaluation) == ''
  assert factor_tables.summary_lines(evaluation, 24) == []
  (tmp_path / 'evaluation.json').write_text(json.dumps(evaluation))
  assert factor_chart.draw_factors(str(tmp_path), _MODEL) is None


def test_names_are_escaped():
  evil = '<script>'
  text = factor_tables.section(_MODEL, json.loads(
      json.dumps(_SECTIONS).replace('light', evil).replace('pixels', evil)))
  assert evil not in text and '&lt;script&gt;' in text


@pytest.mark.parametrize('width', [24, 36])
def test_summary_fits_the_terminal(tmp_path, width):
  assert [line.split() for line in factor_tables.summary_lines(
      _SECTIONS, width)] == [
          'label accuracy by code, % who light'.split(),
          ['who', '100.0', '30.0'], ['style', '20.0', '90.0'],
          ['pixels', '70.0', '-'], ['chance', '25.0', '25.0']]
  rows = [_row('c' * 60, f'label_{i:02}', 1.0) for i in range(9)]
  lines = factor_tables.summary_lines({'factors': rows}, width)
  assert max(map(len, lines)) <= 79
  named = ' '.join(line for line in lines if line.startswith('label'))
  assert all(f'label_{i:02}' in named for i in range(9))
  (tmp_path / 'evaluation.json').write_text(json.dumps({'factors': rows}))
  assert 'label_08' in report.summary(read_evaluation(str(tmp_path)))


@pytest.mark.parametrize('rows', [
    _SECTIONS['factors'],
    [_row('pixels', '$a^', 0.5)],
    [_row(f'{"x" * 40}{i}', f'{j}{"y" * 30}', (i + j) / 30)
     for i in range(20) for j in range(8)]])
def test_heat_map(tmp_path, rows):
  (tmp_path / 'evaluation.json').write_text(json.dumps({'factors': rows}))
  with matplotlib.rc_context(sheets.STYLE):
    drawing = factor_chart.draw_factors(str(tmp_path), _MODEL)
    sheets.save(drawing, str(tmp_path / 'factors.png'))
  with Image.open(tmp_path / 'factors.png') as image:
    assert 100 < min(image.size) and max(image.size) < 3000
    assert 'chance' in image.text['Description']
  ax = drawing.figure.axes[0]
  numbers = [text.get_text() for text in ax.texts]
  assert numbers == [f'{100 * row["accuracy"]:.1f}' for row in rows
                     if row['source'] == 'mean']


def test_frames_are_around_a_factor_s_own_label(tmp_path):
  (tmp_path / 'evaluation.json').write_text(json.dumps(_SECTIONS))
  ax = factor_chart.draw_factors(str(tmp_path), _MODEL).figure.axes[0]
  assert [tuple(np.round(p.get_center())) for p in ax.patches] == [(0, 0)]
  assert [label.get_text() for label in ax.get_yticklabels()] == [
      'who', 'style', 'pixels']
