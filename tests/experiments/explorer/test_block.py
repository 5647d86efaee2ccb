"""The explorer's data: chosen images, their codes, and when there are none."""

import base64
import dataclasses
import json

import jax
import numpy as np
import pytest

from experiments import figures
from experiments.datasets.splits import Splits
from experiments.explorer import block, decoder, page
from experiments.pictures.subject import Subject
import mlvae_jax as ml
from mlvae_jax.data.grouped import GroupedData, Labels
from mlvae_jax.model.factors import parse_factors
from tests.helpers import lit_people, pictures
from tests.helpers.explored import subject_of

_EVIL = '</script><script>alert("1")</script>'


def _array(text, dtype):
  return np.frombuffer(base64.b64decode(text), dtype)


@pytest.mark.slow
def test_images_of_each_group_are_together():
  subject = subject_of()
  found = block.make(subject)
  labels = found['groupings']['group']
  assert labels['names'] == ['g0', 'g1', 'g2', 'g3']
  assert labels['ids'] == 6 * [0] + 4 * [1] + [2] + 6 * [3]
  images = _array(found['pixels'], np.uint8).reshape(-1, 8, 8, 1)
  of_group = np.split(subject.images.x, np.cumsum((9, 4, 1)))
  for image, group in zip(images, labels['ids'], strict=True):
    assert (of_group[group] == image).all((1, 2, 3)).sum() == 1


@pytest.mark.slow
def test_codes_are_the_model_s():
  subject = subject_of()
  found = block.make(subject)
  ids = np.array(found['groupings']['group']['ids'])
  x = _array(found['pixels'], np.uint8).reshape(-1, 8, 8, 1)
  who, how = found['factors']
  assert (who['name'], who['dim'], who['grouping']) == ('who', 3, 'group')
  assert (how['name'], how['dim'], how['grouping']) == ('how', 2, None)
  alone = subject.model.encode(subject.params, x)['who']
  together = ml.posteriors(subject.model, subject.params, x, ids, 4)['how']
  for factor, q in ((who, alone), (how, together)):
    for part in ('mean', 'logvar'):
      np.testing.assert_allclose(
          _array(factor[part], '<f4').reshape(q.mean.shape), getattr(q, part),
          rtol=1e-5, atol=1e-6)
    assert sorted(factor['dimensions']) == list(range(factor['dim']))
  assert 'does not change how' in found['given']
  assert found['group_posterior'] == 'product'


@pytest.mark.slow
def test_weights_are_those_of_the_decoder():
  subject = subject_of(likelihood=ml.LearnedGaussian())
  made = decoder.of_model(subject.model, subject.params)
  layers = subject.params['decoder']
  # Of the likelihood's two numbers per pixel only the means are there.
  expected = [layers['hidden_0']['kernel'], layers['hidden_0']['bias'],
              layers['pixels']['kernel'][:, :64], layers['pixels']['bias'][:64]]
  np.testing.assert_array_equal(made.weights, np.concatenate(
      [np.ravel(part) for part in expected]).astype(np.float16))
  assert made.output == 'linear'


@pytest.mark.slow
def test_evidence_is_chosen_in_every_grouping():
  rng = np.random.default_rng(0)
  who, lamp = rng.integers(0, 5, 400), rng.integers(0, 40, 400)
  images = GroupedData.from_labels(
      rng.integers(0, 256, (400, 4, 4, 1), np.uint8), who, list('abcde'),
      'who', {'lamp': Labels(lamp, tuple(map(str, range(40))))})
  model = ml.Model(parse_factors('who:2:who,lamp:2:lamp,how:2'), (4, 4, 1),
                   network=ml.MLP((8,)))
  found = block.make(Subject(
      model, pictures.init(model), Splits(images, images, images, True),
      'who'))
  shared = np.bincount(found['groupings']['lamp']['ids'])
  assert len(found['groupings']['who']['ids']) == 30
  assert (shared > 1).mean() > 0.5
  assert not found['given']


@pytest.mark.slow
def test_images_of_unknown_groups_are_alone():
  data = lit_people.splits()
  labels = dict(data.test.others)
  labels['light'] = Labels(
      np.full(len(data.test), -1), labels['light'].names)
  test = dataclasses.replace(data.test, others=labels)
  found = block.make(Subject(
      lit_people.MODEL, pictures.init(lit_people.MODEL),
      dataclasses.replace(data, test=test), 'who'))
  ids = found['groupings']['light']['ids']
  assert len(set(ids)) == len(ids)
  assert set(found['groupings']['light']['names']) == {'?'}


@pytest.mark.parametrize('changes', [
    {'factors': 'z:3'}, {'factors': 'who:3:group'},  # Nothing to exchange.
    {'group_posterior': ml.Free(), 'factors': 'who:3:group,how:2'},
    {'shape': (8, 8, 2)}, {'shape': (16,)},
    {'likelihood': ml.Poisson()},
    {'decoder': (lambda key, z: jax.random.normal(key, (5, 64)),
                 lambda kernel, z: z @ kernel)}])
def test_no_explorer(changes, tmp_path):
  subject = subject_of(**changes)
  (tmp_path / block.FILE).write_text('of another model')
  assert block.write(subject, str(tmp_path)) is None
  assert not list(tmp_path.iterdir())


def test_decoder_that_is_too_large_is_left_out(tmp_path, monkeypatch):
  monkeypatch.setattr(block, '_MAX_WEIGHT_BYTES', 1000)
  (tmp_path / 'figures').mkdir()
  block.write(subject_of(), str(tmp_path / 'figures'))
  found = page.read(str(tmp_path))
  assert 'weights of this decoder take 0.0 MB' in found.body
  assert not found.script


@pytest.mark.slow
def test_large_images_are_few():
  found = block.make(subject_of(
      sizes=(9, 9, 9, 9), shape=(256, 256, 3), network=ml.MLP((8,))))
  assert len(found['groupings']['group']['ids']) == 12


def test_names_cannot_end_the_data(tmp_path):
  (tmp_path / 'figures').mkdir()
  block.write(subject_of(names=[_EVIL, '\udcff', '<!--', 'd']),
              str(tmp_path / 'figures'))
  found = page.read(str(tmp_path))
  text = found.body.partition('explorer-data">')[2]
  data = json.loads(text[:text.index('</script>')])
  assert data['groupings']['group']['names'][0] == _EVIL
  assert '<' not in text[:text.index('</script>')]


@pytest.mark.parametrize('text', ['', '{"shape"', '[]', '\x00'])
def test_damaged_data(tmp_path, text):
  assert page.read(str(tmp_path)) == page.Explorer()
  (tmp_path / 'figures').mkdir()
  (tmp_path / 'figures' / block.FILE).write_text(text)
  found = page.read(str(tmp_path))
  assert 'is damaged' in found.body and not found.script


def test_figures_write_the_data(tmp_path, monkeypatch):
  subject = subject_of()
  monkeypatch.setattr(figures, 'load_model', lambda workdir, step: (
      subject.model, subject.params))
  path = str(tmp_path / 'figures' / block.FILE)
  assert figures.draw_all(
      str(tmp_path), subject.data, only=['explorer']) == [path]
  with open(path, encoding='utf-8') as file:
    before = file.read()
  assert json.loads(before) == block.make(subject)
