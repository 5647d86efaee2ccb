"""Runs and scores that mean nothing say so, and end well."""

import dataclasses
import json

import numpy as np
import pytest

from experiments import evaluate, figures, report
from experiments.cli import UserError
from experiments.config import library, presets
from experiments.datasets.sources.one_shot_runs import OneShotRun
from experiments.datasets.splits import Splits
from experiments.evaluation import meaning
from experiments.evaluation.context import OneShotRuns
from experiments.evaluation.factors import tables as factors
from experiments.evaluation.probes import tables as probes
from experiments.evaluation.section import Results
from experiments.runs import loop
from experiments.runs.build import make_model
from experiments.runs.workdir import open_workdir
from mlvae_jax.data.grouped import GroupedData, Labels

_CONFIG = dataclasses.replace(
    presets.without_extras(presets.PRESETS['folder']),
    factors='who:2:group,how:2', hidden_sizes=(4,), steps=2,
    groups_per_batch=2, max_group_size=4, chunk_steps=2, eval_every=2,
    checkpoint_every=2)


def _images(*sizes, first=0, light=None):
  """Groups of these sizes."""
  labels = np.repeat(np.arange(len(sizes)), sizes)
  images = np.random.default_rng(first).integers(
      0, 256, (len(labels), 4, 4, 1), np.uint8)
  others = {} if light is None else {
      'light': Labels(np.asarray(light), tuple('abcdefgh'))}
  return GroupedData.from_labels(
      images, labels, [f'g{first + i}' for i in range(len(sizes))], 'group',
      others)


def _shared(train, validation, test):
  return Splits(*(_images(*sizes) for sizes in (train, validation, test)), True)


_GOOD = _shared([30, 30], [9, 9], [20, 20])


def _warnings(data, scored='test', **changes):
  config = dataclasses.replace(_CONFIG, **changes)
  return meaning.find_warnings(
      config, library.make_model(config, (4, 4, 1)), data, scored)


@pytest.mark.parametrize('model', ['mlvae', 'vae', 'svi'])
def test_where_all_is_well_nothing_is_said(model):
  assert _warnings(_GOOD, model=model) == []


@pytest.mark.parametrize('model, count', [('mlvae', 1), ('svi', 0), ('vae', 0)])
def test_groups_of_a_single_image_in_a_step(model, count):
  found = _warnings(_GOOD, model=model, max_group_size=1)
  assert len(found) == count
  assert all('--max_group_size=1' in text and 'give 2 or more' in text
             for text in found)


@pytest.mark.parametrize('model, count', [('mlvae', 1), ('svi', 1), ('vae', 0)])
def test_no_grouped_factor(model, count):
  found = _warnings(_GOOD, model=model, factors='a:2,b:2')
  assert len(found) == count
  assert all('no factor is grouped' in line and f'--model={model}' in line
             and 'content:10:group' in line for line in found)


def test_no_group_of_two():
  data = _shared([1] * 8, [9, 9, 0, 0, 0, 0, 0, 0], [20, 20] + [0] * 6)
  line, = _warnings(data)
  assert line == (
      "no group by 'group' has two images in the training split (8 groups): "
      'content cannot be separated from style; choose another grouping in '
      '--factors')
  assert _warnings(data, model='vae') == []


@pytest.mark.parametrize('light', [
    [-1] * 6, [0, 1, 2, 3, -1, -1]])
def test_a_grouping_of_single_images(light):
  parts = [_images(3, 3, light=light), _images(20, 20, light=[0, 1] * 20),
           _images(20, 20, light=[0, 1] * 20)]
  line, *_ = _warnings(
      Splits(*parts, True), factors='w:1:group,l:1:light,h:1')
  assert line.startswith("no group by 'light' has two images in the training "
                         'split (6 groups): ')


def test_one_group_only():
  found = _warnings(_shared([30], [9], [40]))
  assert found == [
      "the training split has only one group by 'group': the model cannot "
      'learn what distinguishes groups; add groups or choose another grouping '
      'in --factors',
      "probes for 'group' are scored on 40 images with only 1 label in the "
      'test split: their scores mean nothing']


def test_few_examples_are_counted_in_the_split_that_is_scored():
  data = _shared([30, 30], [9, 10], [3, 4])
  line, = _warnings(data)
  assert line == (
      "probes for 'group' are scored on only 7 images with 2 labels in the "
      'test split: their scores mean little')
  line, = _warnings(data, 'validation')  # Of which half is chosen by.
  assert 'on only 10 images with 2 labels in the validation split' in line


def test_labels_without_training_images():
  line, = _warnings(_shared([9, 0, 9], [9, 9, 9], [20, 20, 9]))
  assert line == ("1 of 3 labels by 'group' in the test split have no training "
                  'images: no probe can get them right')


def test_empty_splits():
  line, = _warnings(_shared([9, 9], [9, 9], [0, 0]))
  remedy = 'raise --split_fractions or add images'
  assert line == (
      f'the test split has no images, so there is nothing to score; {remedy}')
  line, = _warnings(_shared([9, 9], [0, 0], [20, 20]))
  assert line == (
      'the validation split has no images, so the best checkpoint is unknown '
      f'and no probe can be chosen; {remedy}')
  line, = _warnings(_shared([9, 9], [0, 0], [20, 20]), 'validation')
  assert line.startswith('the validation split has no images, so there is no')


def test_groups_never_seen():
  def data(*sizes):
    return Splits(_images(9, 9), _images(9, 9, first=2),
                  _images(*sizes, first=4), False)

  assert _warnings(data(100, 100)) == []
  line, = _warnings(data(9, 9))
  assert 'scored on only 2 images with 2 labels' in line
  first, second = _warnings(data(1, 1, 1, 1))
  assert "no group by 'group' has at least 5 images in the test split" in first
  assert 'no group has two images in the test split' in second


def test_labels_of_a_further_grouping():
  train, validation = (_images(30, 30, light=[0, 1] * 30) for _ in range(2))
  factors = 'w:1:group,l:1:light,h:1'
  test = _images(20, 20, light=[0] * 40)
  line, = _warnings(Splits(train, validation, test, True), factors=factors)
  assert "not have enough images of two labels of 'light'" in line
  test = _images(20, 20, light=[0, 1, -1, -1] * 10)
  line, = _warnings(Splits(train, validation, test, True), factors=factors)
  assert "probes for 'light' are scored on only 20 images with 2 labels" in line


def test_what_cannot_be_trained_on_is_one_error():
  model = library.make_model(_CONFIG, (4, 4, 1))
  meaning.check_trainable(_CONFIG, model, _images(3, 5, 0))
  with pytest.raises(UserError, match='training split has no images.*--split'):
    meaning.check_trainable(_CONFIG, model, _images(0, 0))
  config = dataclasses.replace(_CONFIG, min_group_size=9)
  with pytest.raises(UserError, match='^folder: no group.*--min_group_size=9 '
                     '.*largest has 5, so give --min_group_size=5 or less'):
    meaning.check_trainable(config, model, _images(3, 5, 0))


@pytest.mark.parametrize('examples, labels, said', [
    (30, 2, None), (29, 2, 'only 29 examples, so these scores mean little'),
    (1, 2, 'only 1 example, so these scores mean little'),
    (500, 1, 'only 1 label, so these scores mean nothing')])
def test_caveats(examples, labels, said):
  assert meaning.caveat(examples, labels) == said


def test_a_column_has_the_worst_caveat_of_its_rows():
  rows = [{'k': 1, 'examples': 50, 'labels': 2},
          {'k': 2, 'examples': 50, 'labels': 2},
          {'k': 2, 'examples': 7, 'labels': 2}, {'k': 3}]
  found = meaning.caveats(rows, 'k')
  assert found == {2: 'only 7 examples, so these scores mean little'}
  assert meaning.footnotes({'a': 'x', 'b': 'y', 'c': 'x'}) == [
      '* a, c: x', '* b: y']


# The run to its end.


def _run(workdir, data, ks=(1,), **arguments):
  model = make_model(_CONFIG, data)
  with open_workdir(str(workdir), _CONFIG, model, resume=True):
    loop.train(str(workdir), _CONFIG, model, data)
  found = evaluate.evaluate(str(workdir), data, ks=ks, probe_steps=1,
                            **arguments)
  report.write(str(workdir))
  return found, (workdir / 'report.html').read_text()


@pytest.mark.slow
@pytest.mark.parametrize('validation, test', [
    ([0, 0, 0], [4, 3, 0]), ([4, 0, 0], [0, 0, 0]), ([0, 0, 0], [0, 0, 0])])
def test_splits_may_be_empty(tmp_path, validation, test):
  data = _shared([9, 0, 8], validation, test)
  found, text = _run(tmp_path, data)
  paths = figures.draw_all(str(tmp_path), data)
  assert found['probes'] == [] and found['warnings']
  assert set(found['elbo']) == {'train'} | {
      name for name, sizes in (('validation', validation), ('test', test))
      if any(sizes)}
  assert 'This run was evaluated, but no probe could be scored: ' in text
  assert 'split has no images' in text and 'not been evaluated' not in text
  assert any('swap' in path for path in paths) == any(test)
  said = report.summary(found)
  assert said.startswith('no probe could be scored\n')
  assert 'warning: the ' in said and max(map(len, said.splitlines())) <= 79


@pytest.mark.slow
def test_scores_of_few_examples_are_marked(tmp_path):
  found, text = _run(
      tmp_path, _shared([9, 9, 3], [2, 0, 2], [0, 4, 3]), ks=(1, 2))
  rows = {row['k']: row for row in found['probes']}
  assert (rows[1]['examples'], rows[1]['labels']) == (7, 2)
  said = report.summary(found).splitlines()
  assert said[0].split()[-2:] == ['k=1*', 'k=2*']
  note = '* k=1, k=2: only 7 examples, so these scores mean little'
  assert note in said
  assert '<th>k=1*</th>' in text
  assert f'{note}.</p>' in text
  assert 'accuracy, k\xa0=\xa01 (only 7 examples)' in text
  assert text.count('on only 7 images with 2 labels in the test split: th') == 1
  assert json.loads((tmp_path / 'evaluation.json').read_text()) == found


@pytest.mark.slow
def test_no_group_of_two_among_groups_never_seen(tmp_path):
  data = Splits(_images(*[1] * 9), _images(1, 1, 1, first=9),
                _images(1, 1, 1, 1, first=12), False)
  images = tuple(data.test.x[:2, ..., 0])
  found, text = _run(tmp_path, data, one_shot_runs=OneShotRuns(
      (OneShotRun('run01', images, images, np.arange(2)),), data.test.x,
      '--one_shot_runs: the folder does not exist'))
  assert found['probes'] == [] and found['verification'] == []
  assert len(found['warnings']) == 4
  for line in ('content cannot be separated', 'nothing to recognise',
               'the folder does not exist'):
    assert line in text


@pytest.mark.slow
def test_recognition_of_few_images_is_marked(tmp_path):
  data = Splits(_images(9, 9), _images(3, 3, first=2), _images(4, 3, first=4),
                False)
  found, text = _run(tmp_path, data)
  said = report.summary(found)
  why = 'only 7 examples, so these scores mean little'
  assert f'* AUC, 1 shot: {why}' in said
  assert 'unseen groups, 2-way in %*' in said
  assert f'* AUC, accuracy: {why}' in text
  assert f'* 1 shot, 2 shots: {why}' in text
  for heading in ('AUC, cosine', 'accuracy at equal error, cosine, %',
                  'AUC, evidence ratio', '1 shot', '2 shots'):
    assert f'<th>{heading}*</th>' in text


def test_the_matrix_is_marked_by_label():
  rows = [{'code': 'who', 'label': label, 'source': 'mean', 'accuracy': 0.5,
           'conditional_entropy': 1.0, 'chance': 0.5, 'labels': labels,
           'examples': 100} for label, labels in (('who', 2), ('light', 1))]
  lines = factors.summary({'factors': rows}, 24)
  assert lines[0].split()[-2:] == ['who', 'light*']
  assert lines[-1] == (
      '* light: only 1 label, so these scores mean nothing')
  model = library.make_model(_CONFIG, (4, 4, 1))
  text = factors.report(Results('run', model, {'factors': rows}, {}))
  assert 'light*</th>' in text and 'only 1 label, so' in text


def test_an_older_evaluation_has_no_marks():
  model = library.make_model(_CONFIG, (4, 4, 1))
  row = {'code': 'who', 'source': 'mean', 'k': 1, 'accuracy': 0.5,
         'conditional_entropy': 1.0, 'chance': 0.5}
  text = probes.report(Results('run', model, {'probes': [row]}, {}))
  assert 'who' in text and '*' not in text
  text = probes.report(Results('run', model, {}, {}))
  assert 'This run has not been evaluated' in text and 'who' not in text
