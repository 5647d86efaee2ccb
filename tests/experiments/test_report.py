"""Reports: one self-contained, well-formed file, whatever is there."""

import dataclasses
import html.parser
import json
import math
import re
import types

from absl import flags
import numpy as np
from PIL import Image, PngImagePlugin
import pytest

from experiments import report
from experiments.cli import UserError
from experiments.config import library, presets
from experiments.evaluation.results import read_evaluation
from experiments.evaluation.section import Section
from experiments.runs.workdir import open_workdir

_CONFIG = dataclasses.replace(
    presets.PRESETS['folder'], factors='who:3:group,how:2', hidden_sizes=(8,))
_EVIL = '<script>alert("1")</script>'
_VOID = {'meta', 'img'}


def _probe(code, source, k, accuracy, entropy=0.25):
  return {'code': code, 'source': source, 'k': k, 'accuracy': accuracy,
          'conditional_entropy': entropy, 'chance': 0.125}


def _terms(elbo):
  return {'elbo': 4 * elbo, 'elbo_per_image': elbo, 'log_lik': 4 * elbo + 9,
          'kl': {'who': 3.0, 'how': 6.0}}


def _verified(code, auc, score='cosine', accuracy=0.75):
  return {'code': code, 'score': score, 'auc': auc,
          'equal_error_accuracy': accuracy, 'num_same': 1234,
          'num_different': 20000}


def _few_shot(code, ways, shots, accuracy, fused=False, error=0.0123):
  return {'code': code, 'ways': ways, 'shots': shots, 'fused': fused,
          'accuracy': accuracy, 'chance': 1 / ways, 'standard_error': error,
          'margin': error and 1.96 * error}


_RECOGNITION = {
    'verification': [
        _verified('who', 0.875), _verified('who', 0.9, 'evidence_ratio'),
        _verified('how', 0.5625), _verified('pixels', 0.625)],
    'few_shot': [
        *(_few_shot(code, ways, 1, accuracy) for ways in (20, 40)
          for code, accuracy in (('who', 0.5), ('pixels', 0.25))),
        *(_few_shot(code, ways, 5, accuracy, fused) for ways in (20, 32)
          for code, accuracy in (('who', 0.75), ('pixels', 0.375))
          for fused in (False, True))],
}
_EVALUATION = {
    'probes': [
        _probe('who', 'mean', 1, 0.5), _probe('who', 'mean', 2, 0.75),
        _probe('who', 'mean', 10, 1.0, 0.0), _probe('who', 'sample', 1, 0.25),
        _probe('how', 'mean', 1, 0.131), _probe('how', 'mean', 10, 0.131),
        _probe('an_extraordinarily_long_name_of_some_control', 'mean', 1, 0.6)],
    'elbo': {'train': _terms(-10.0), 'test': _terms(-12.25)},
    'robustness': [{'code': 'who', 'auc': 0.8125, 'seen': False}],
    'protocol': {'probe_steps': 2000, 'vae_workdir': None},
}


class _Page(html.parser.HTMLParser):
  """What a browser would make of a report."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.attributes, self.text, self._open = [], [], '', []
    self.rows = []
    self.feed(text)
    assert not self._open, f'not closed: {self._open}'

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += [(tag, *pair) for pair in attrs]
    if tag == 'tr':
      self.rows.append([])
    if tag in ('td', 'th'):
      self.rows[-1].append('')
    if tag not in _VOID:
      self._open.append(tag)

  def handle_endtag(self, tag):
    assert self._open.pop() == tag

  def handle_data(self, data):
    if self._open and self._open[-1] != 'style':
      self.text += data
      if self._open[-1] in ('td', 'th'):
        self.rows[-1][-1] += data


def _workdir(folder, evaluation=None, **changes):
  config = dataclasses.replace(_CONFIG, **changes)
  model = library.make_model(config, (4, 4, 3))
  with open_workdir(str(folder), config, model, resume=False):
    pass
  if evaluation is not None:
    (folder / 'evaluation.json').write_text(json.dumps(evaluation))
  return str(folder)


def _add_figure(folder, name, caption):
  (folder / 'figures').mkdir(exist_ok=True)
  chunks = PngImagePlugin.PngInfo()
  chunks.add_itxt('Description', caption)
  Image.fromarray(np.zeros((6, 8), np.uint8)).save(
      folder / 'figures' / f'{name}.png', pnginfo=chunks, dpi=(200, 200))


def _add_metrics(folder):
  lines = [{'step': step, 'split': split, 'images_per_second': 100.0 * step}
           if split == 'train' else {'step': step, 'split': split}
           for step in (10, 20, 4000) for split in ('train', 'validation')]
  (folder / 'metrics.jsonl').write_text(
      ''.join(json.dumps(line) + '\n' for line in lines))


def _read(workdir):
  path = report.write(workdir)
  with open(path, encoding='utf-8') as file:
    return _Page(file.read())


def _summary(workdir):
  return report.summary(read_evaluation(workdir))


@pytest.fixture(scope='module')
def page(tmp_path_factory):
  """The report of a complete run."""
  folder = tmp_path_factory.mktemp('complete')
  workdir = _workdir(folder, _EVALUATION, dataset='folder')
  for name in ('swap', 'evidence', 'curves', 'zebra'):
    _add_figure(folder, name, f'How to read {name}.')
  _add_metrics(folder)
  page = _read(workdir)
  assert not list(folder.glob('*.partial'))
  page.workdir = workdir
  return page


def test_report_loads_nothing(page):
  sources = [value for _, name, value in page.attributes
             if name in ('src', 'href', 'srcset', 'data', 'action')]
  assert len(sources) == 4
  assert all(value.startswith('data:image/png;base64,') for value in sources)
  assert not {'script', 'link', 'iframe', 'object', 'form'} & set(page.tags)
  with open(f'{page.workdir}/report.html', encoding='utf-8') as file:
    text = file.read()
  assert not re.search(r'https?:|file:|@import|url\(', text)


def test_key_numbers_come_first(page):
  top = page.text[:page.text.index('What each code predicts')]
  assert 'Multi-Level VAE on folder' in top
  assert '4×4 RGB images' in top
  for number in ('k\xa0=\xa0150.0\xa0%', 'k\xa0=\xa010100.0\xa0%',
                 'how accuracy, k\xa0=\xa0113.1\xa0%', 'chance12.5\xa0%',
                 'image-12.2', 'images/s2,000', 'steps4,000'):
    assert number in top, number


def test_tables_have_every_number(page):
  for text in ('who', 'sample', 'k=10', '75.0', '0.250', '-12.25', '-49.00',
               'KL of who', '3.00', '0.8125', 'Robustness',
               'probe steps: 2000', 'vae workdir: –'):
    assert text in page.text, text


def test_configuration_usage_and_versions(page):
  for text in ('groups_per_batch', 'who:3:group,how:2', 'learning_rate',
               f'mlvae_jax.load({page.workdir!r})', 'encode_group', 'Python',
               'orbax-checkpoint'):
    assert text in page.text, text


def test_figures_have_their_captions_in_order(page):
  places = [page.text.index(f'How to read {name}.')
            for name in ('swap', 'evidence', 'curves', 'zebra')]
  # The first of the pictures stands before everything but the verdict.
  assert places == sorted(places)
  assert page.text.index('Factors: who') > places[0]
  assert ('img', 'width', '5') in page.attributes  # 8 pixels at 200 dpi.


def test_usage_names_a_factor_where_there_are_two(tmp_path):
  text = _read(_workdir(tmp_path, factors='a:2:group,b:3:group,c:1')).text
  assert "num_groups, factor='a')" in text


def test_what_is_missing_is_named_with_its_command(tmp_path):
  folder = tmp_path / 'a run; rm'
  text = _read(_workdir(folder, model='vae')).text
  for module in ('evaluate', 'figures', 'report'):
    assert (f"python -m experiments.{module} --workdir='{folder}'"
            in text), module
  assert 'no metrics.jsonl' in text
  _add_metrics(folder)
  text = _read(str(folder)).text
  assert 'curves have not been drawn' in text and 'no metrics.jsonl' not in text


def test_text_from_the_disk_is_escaped(tmp_path):
  evaluation = json.loads(json.dumps(_EVALUATION).replace('how', 'h<b>w'))
  evaluation['probes'].append(_probe(_EVIL, 'mean', 1, 0.5))
  evaluation[_EVIL] = [{_EVIL: _EVIL}]
  evaluation['verification'] = [_verified(_EVIL, 0.5)]
  evaluation['few_shot'] = [_few_shot(_EVIL, 2, 1, 0.5)]
  evaluation['protocol'] = {_EVIL: _EVIL}
  folder = tmp_path / f'{_EVIL[:8]}&'
  workdir = _workdir(folder, evaluation, data_dir=f'/data/{_EVIL}\udcff',
                     factors=f'who:3:{_EVIL},how:2')
  _add_figure(folder, 'swap', f'Of {_EVIL}.')
  _add_figure(folder, '<b>', 'Of the user.')
  page = _read(workdir)
  assert 'script' not in page.tags and 'b' not in page.tags
  assert page.text.count(_EVIL) >= 10
  assert f'/data/{_EVIL}?' in page.text
  card = (folder / 'model_card.md').read_text()
  assert r'/data/\<script\>alert' in card and '?' in card
  assert not re.search(r'(?<!\\)[<>]', card)


@pytest.mark.parametrize('content', [b'', b'not a PNG', None])
def test_damaged_figure_is_named(tmp_path, content):
  workdir = _workdir(tmp_path)
  _add_figure(tmp_path, 'swap', 'cut off')
  path = tmp_path / 'figures' / 'swap.png'
  path.write_bytes(path.read_bytes()[:-30] if content is None else content)
  page = _read(workdir)
  assert 'img' not in page.tags
  assert 'swap.png is not a readable PNG' in page.text


def test_damaged_evaluation_is_one_error(tmp_path):
  workdir = _workdir(tmp_path)
  for text, message in (
      ('{"pro', 'not JSON'), ('[]', 'not an evaluation'),
      ('{"probes": 3}', 'not what experiments.evaluate writes'),
      ('{"probes": [{"code": "content"}]}', "KeyError: 'source'.*run again"),
      ('{"elbo": NaN}', 'not what experiments.evaluate writes')):
    (tmp_path / 'evaluation.json').write_text(text)
    with pytest.raises(UserError, match=message):
      report.write(workdir)
  assert not (tmp_path / 'report.html').exists()


def test_groups_never_seen_have_a_section(tmp_path):
  workdir = _workdir(tmp_path, _EVALUATION | _RECOGNITION)
  _add_figure(tmp_path, 'recognition', 'How to read recognition.')
  page = _read(workdir)
  section = page.text[page.text.index('Recognising groups never seen'):
                      page.text.index('All numbers are in nats.')]
  assert 'How to read recognition.' in section and '1,234 pairs' in section
  assert page.text.count('How to read recognition.') == 1
  assert 'evidence_ratio' not in page.text and 'Robustness' in page.text
  assert '95 % confidence interval' in page.text
  for row in (
      ['who', '0.875', '75.0', '0.900'], ['how', '0.562', '75.0', '–'],
      ['code', 'groups', 'method', '1 shot', '5 shots'],
      # A gallery of one is the same fused or not.
      ['who', '20', 'nearest', '50.0 ± 2.4', '75.0 ± 2.4'],
      ['who', '20', 'fused', '50.0 ± 2.4', '75.0 ± 2.4'],
      ['who', '32–40', 'nearest', '50.0 ± 2.4', '75.0 ± 2.4'],
      ['pixels', '32–40', 'fused', '25.0 ± 2.4', '37.5 ± 2.4'],
      ['chance', '20', '', '5.0', '5.0'],
      ['chance', '32–40', '', '2.5', '3.1']):
    assert page.rows.count(row) == 1, row


def test_a_model_card_goes_with_the_report(page):
  with open(f'{page.workdir}/model_card.md', encoding='utf-8') as file:
    text = file.read()
  headings = re.findall('^#+ .*', text, re.MULTILINE)
  assert headings == [
      '# Multi-Level VAE on folder', '## Model and data', '## Numbers',
      '## Limits', '## Software']
  assert '\n\nThe group of a single image can be recognised from who ' in text
  for row in ('| factor who | 3 dimensions, one code per group |',
              '| factor how | 2 dimensions, one code per image |',
              '| training | 4,000 steps, seed 0 |',
              '| who accuracy, k = 1 | 50.0 % |',
              '| test ELBO per image | -12.2 |'):
    assert f'\n{row}\n' in text, row
  assert 'people' not in text


def test_a_model_card_says_that_nothing_was_measured(tmp_path):
  report.write(_workdir(tmp_path))
  text = (tmp_path / 'model_card.md').read_text()
  assert 'has not been evaluated' in text and 'None were measured' in text


def test_a_model_card_of_too_few_examples_does_not_deny_the_evaluation(
    tmp_path):
  report.write(_workdir(tmp_path, {'elbo': _EVALUATION['elbo']}))
  text = (tmp_path / 'model_card.md').read_text()
  assert 'too few examples to tell' in text
  assert 'not been evaluated' not in text


def test_names_mean_nothing_to_markdown(tmp_path):
  report.write(_workdir(tmp_path, data_dir='/<b>&lt;\n# ~x~ $y$ [z](u)'))
  text = (tmp_path / 'model_card.md').read_text()
  assert r'/\<b\>\&lt; \# \~x\~ \$y\$ \[z\](u)' in text


def test_a_model_card_of_faces_says_what_they_are(tmp_path):
  report.write(_workdir(tmp_path, dataset='celeb'))
  assert 'groups are people' in (tmp_path / 'model_card.md').read_text()


def test_the_report_says_what_images_were_split_by(tmp_path):
  for by, shown in (('group', False), ('alphabet', True)):
    page = _read(_workdir(tmp_path / by, _EVALUATION | _RECOGNITION | {
        'protocol': {'split_by': by}}))
    assert ('images were split by alphabet' in page.text) == shown


def test_the_model_s_factors_are_bold(tmp_path):
  workdir = _workdir(tmp_path, _RECOGNITION)
  report.write(workdir)
  text = (tmp_path / 'report.html').read_text()
  own = re.findall('<tr class="own"><td>(.*?)</td>', text)
  assert own == ['who', 'how'] + 4 * ['who']


def test_verification_is_a_key_number(tmp_path):
  page = _read(_workdir(tmp_path, _EVALUATION | _RECOGNITION))
  top = page.text[:page.text.index('What each code predicts')]
  assert 'who verification AUC0.875' in top
  assert 'how verification AUC0.562' in top and 'pixels' not in top


@pytest.mark.parametrize('name, heading, absent', [
    ('verification', 'do two images show', 'Few-shot:'),
    ('few_shot', 'Few-shot:', 'do two images show')])
def test_one_section_on_recognition(tmp_path, name, heading, absent):
  workdir = _workdir(tmp_path, {name: _RECOGNITION[name]})
  text = _read(workdir).text
  assert 'Recognising groups' in text and heading in text
  assert absent not in text
  lines = _summary(workdir).splitlines()
  assert ('AUC' in lines[0]) == (name == 'verification')
  assert ('20-way' in lines[0]) == (name == 'few_shot')


@pytest.mark.parametrize('evaluation', [
    _EVALUATION, _EVALUATION | {'verification': [], 'few_shot': []},
    _EVALUATION | {'verification': None, 'few_shot': None}])
def test_nothing_on_recognition(tmp_path, evaluation):
  workdir = _workdir(tmp_path, evaluation)
  _add_figure(tmp_path, 'recognition', 'Of another evaluation.')
  text = _read(workdir).text
  assert 'Recognising' not in text and 'another evaluation' not in text
  assert 'verification AUC' not in text
  assert 'unseen groups' not in _summary(workdir)


@pytest.mark.parametrize('nothing', [None, math.nan])
def test_numbers_on_recognition_may_be_missing(tmp_path, nothing):
  workdir = _workdir(tmp_path, {
      'verification': [_verified('who', nothing, accuracy=nothing)],
      'few_shot': [_few_shot('who', 2, 1, 0.5, error=nothing),
                   _few_shot('who', 2, 5, nothing, error=nothing)]})
  page = _read(workdir)
  assert ['who', '–', '–', '–'] in page.rows
  assert ['who', '2', 'nearest', '50.0', '–'] in page.rows
  assert 'nan' not in page.text and 'confidence' not in page.text
  assert 'verification AUC' not in page.text
  assert [line.split() for line in _summary(workdir).splitlines()] == [
      ['unseen', 'groups,', '2-way', 'in', '%', '1', 'shot'],
      ['who', '50.0'], ['chance', '50.0']]


@pytest.mark.parametrize('lines, count, shown', [
    (1, '1 image was', 1), (20, '20 images were', 20),
    (1234, '1,234 images were', 20)])
def test_images_that_could_not_be_used(tmp_path, lines, count, shown):
  workdir = _workdir(tmp_path)
  (tmp_path / 'bad_images.jsonl').write_text(''.join(json.dumps({
      'where': f'{_EVIL}{i}.jpg', 'group': f'\udcff{_EVIL}',
      'problem': _EVIL}) + '\n' for i in range(lines)))
  page = _read(workdir)
  assert f'{count} skipped' in page.text
  assert ('The first 20:' in page.text) == (lines > 20)
  named = [row for row in page.rows if _EVIL in row[0]]
  assert [row[0] for row in named] == [f'{_EVIL}{i}.jpg' for i in range(shown)]
  assert named[0][1:] == [f'?{_EVIL}', _EVIL]
  assert 'script' not in page.tags


@pytest.mark.parametrize('text', [None, '', '\n \n'])
def test_no_image_was_bad(tmp_path, text):
  workdir = _workdir(tmp_path)
  if text is not None:
    (tmp_path / 'bad_images.jsonl').write_text(text)
  assert 'could not be used' not in _read(workdir).text


def test_damaged_line_of_bad_images_is_shown(tmp_path):
  workdir = _workdir(tmp_path)
  (tmp_path / 'bad_images.jsonl').write_bytes(
      b'[1]\n{"where": "a.jpg"}\n\xff{"wh')
  page = _read(workdir)
  assert '3 images were' in page.text
  for row in (['–', '–', '[1]'], ['a.jpg', '–', '–'],
              ['–', '–', '\ufffd{"wh']):
    assert row in page.rows


def test_summary_is_a_narrow_table(tmp_path):
  lines = _summary(_workdir(tmp_path, _EVALUATION)).splitlines()
  assert max(map(len, lines)) <= 79
  assert [line.split() for line in lines] == [
      ['test', 'accuracy', 'in', '%', 'k=1', 'k=2', 'k=10'],
      ['who', 'mean', '50.0', '75.0', '100.0'],
      ['who', 'sample', '25.0', '-', '-'],
      ['how', 'mean', '13.1', '-', '13.1'],
      ['an_extraordinarily_long_name_of_some', 'mean', '60.0', '-', '-'],
      ['chance', '12.5', '12.5', '12.5'],
      ['ELBO', 'per', 'image:', 'train', '-10.0,', 'test', '-12.2'],
  ]
  assert len({len(line) for line in lines[:-1]}) == 1


def test_summary_of_four_ks_fits_the_terminal(tmp_path):
  rows = [_probe('x' * 60, 'sample', k, 1.0) for k in range(1, 31)]
  lines = _summary(_workdir(tmp_path, {'probes': rows})).splitlines()
  assert lines[0].split()[-4:] == ['k=1', 'k=2', 'k=5', 'k=10']
  assert max(map(len, lines)) <= 79


def test_summary_tells_of_groups_never_seen(tmp_path):
  evaluation = _EVALUATION | json.loads(
      json.dumps(_RECOGNITION).replace('pixels', 'p' * 60))
  lines = _summary(_workdir(tmp_path, evaluation)).splitlines()
  assert max(map(len, lines)) <= 79
  assert len({len(line) for line in lines[6:11]}) == 1
  assert lines[6].endswith('     AUC  1 shot 5 shots 5 fused')
  assert [line.split() for line in lines[6:11]] == [
      'unseen groups, 20-way in % AUC 1 shot 5 shots 5 fused'.split(),
      ['who', '0.875', '50.0', '75.0', '75.0'],
      ['how', '0.562', '-', '-', '-'],
      ['p' * 36, '0.625', '25.0', '37.5', '37.5'],
      ['chance', '0.500', '5.0', '5.0', '5.0']]
  assert lines[11].startswith('ELBO')


def test_summary_of_few_groups(tmp_path):
  rows = [_few_shot('who', 12, 1, 0.5), _few_shot('who', 7, 5, 0.5),
          _few_shot('who', 3, 10, 0.5)]
  lines = _summary(_workdir(tmp_path, {'few_shot': rows})).splitlines()
  assert lines[0].startswith('unseen groups, 7-12-way in %')
  assert lines[-1].split() == ['chance', '8.3', '14.3']


def test_few_shots_by_posterior(tmp_path):
  rows = [
      _few_shot(code, ways, shots, accuracy, fused=shots > 1) | {'score': score}
      for ways in (5, 20, 40) for shots in (1, 5)
      for code in ('who', 'pixels')
      for score, accuracy in (('cosine', 0.5), ('posterior', 0.625))
      if code == 'who' and ways < 40 or score == 'cosine']
  workdir = _workdir(tmp_path, {'few_shot': rows})
  page = _read(workdir)
  for row in (
      ['who', '5', 'posterior', '62.5 ± 2.4', '62.5 ± 2.4'],
      ['who', '5', 'fused', '50.0 ± 2.4', '50.0 ± 2.4'],
      ['who', '20', 'posterior', '62.5 ± 2.4', '62.5 ± 2.4'],
      ['who', '40', 'nearest', '50.0 ± 2.4', '–'],
      ['chance', '5', '', '20.0', '20.0'], ['chance', '20', '', '5.0', '5.0']):
    assert page.rows.count(row) == 1, row
  lines = _summary(workdir).splitlines()
  assert lines[0].startswith('unseen groups, 20-way in %')
  assert max(map(len, lines)) < 80
  assert [line.split() for line in lines[-3:]] == [
      ['by', 'posterior;', 'WAYS:SHOTS', '5-way:1', '5-way:5', '20-way:1',
       '20-way:5'],
      ['who,', 'cosine'] + 4 * ['50.0'],
      ['who,', 'posterior'] + 4 * ['62.5']]


_TWO_LABELS = {
    'probes': [
        _probe('who', 'mean', 1, 0.5) | {'label': 'who', 'strategy': 1},
        _probe('who', 'mean', 5, 0.75) | {'label': 'who', 'strategy': 2},
        _probe('how', 'mean', 1, 0.25) | {'label': 'who', 'strategy': 1},
        _probe('light', 'mean', 1, 0.625) | {
            'label': _EVIL, 'strategy': 1, 'chance': 0.5}],
    'factors': [
        {'code': 'who', 'label': label, 'strategy': 1, 'source': 'mean',
         'accuracy': 0.5, 'conditional_entropy': 1.5, 'chance': 0.125}
        for label in ('who', _EVIL)],
    'disentanglement': [], 'strategies': [
        {'strategy': 2, 'split': 'test', 'images': 9, 'set_size': 11,
         'elbo_per_image': -5.25, 'log_lik': -4.5, 'kl': {'who': 0.75},
         'log_lik_of_means': -4.0, 'squared_error': 0.25}]}


def test_several_labels_are_told_apart(tmp_path):
  workdir = _workdir(
      tmp_path, _TWO_LABELS, factors=f'who:3:who,light:2:{_EVIL},how:2')
  for name in ('evidence', 'factors', 'swap'):
    _add_figure(tmp_path, name, f'How to read {name}.')
  page = _read(workdir)
  top = page.text[:page.text.index('What each code predicts')]
  for number in ('who accuracy, k\xa0=\xa0575.0', 'chance of who12.5',
                 'light accuracy, k\xa0=\xa0162.5',
                 f'chance of {_EVIL}50.0'):
    assert number in top, number
  assert f'Test accuracy in % of {_EVIL}' in page.text
  assert ['chance', '', '50.0'] in page.rows  # There is one k of that label.
  assert 'script' not in page.tags
  places = [page.text.index(text) for text in (
      'How to read swap.', 'How to read evidence.', 'Label accuracy by code',
      'How to read factors.', 'Two strategies', 'The picture is at the top.')]
  assert places == sorted(places)
  # Sections that have a table of their own are not shown twice.
  assert 'Factors' not in [row[0] for row in page.rows]
  assert page.text.count('Label accuracy by code') == 1
  assert '<h2>Strategies' not in page.text and '<h2>Factors' not in page.text


def test_chart_of_a_section_without_tables(tmp_path, monkeypatch):
  made_up = Section('made_up', rows=dict, charts={'bars': 'draw_bars'})
  for name, listed in (('SECTIONS', [*report.SECTIONS, made_up]),
                       ('CHARTS', [*report.CHARTS, 'bars'])):
    monkeypatch.setattr(report, name, listed)
  workdir = _workdir(tmp_path, {'made_up': [{'code': 'who', 'bar': 0.5}]})
  _add_figure(tmp_path, 'bars', 'How to read bars.')
  page = _read(workdir)
  assert ['who', '0.5'] in page.rows
  assert page.text.count('How to read bars.') == 1
  assert page.text.index('Made up') < page.text.index(
      'How to read bars.') < page.text.index('Training')


def test_summary_of_several_labels(tmp_path):
  lines = _summary(_workdir(tmp_path, _TWO_LABELS)).splitlines()
  assert max(map(len, lines)) <= 79
  assert [line.split() for line in lines[:4]] == [
      ['test', 'accuracy', 'in', '%', 'of', 'who', 'k=1', 'k=5'],
      ['who', 'mean', '50.0', '75.0'], ['how', 'mean', '25.0', '-'],
      ['chance', '12.5', '12.5']]
  assert lines[4].split()[-1] == 'k=1' and lines[4].startswith(
      'test accuracy in % of <script>')
  assert lines[7].startswith('label accuracy by code, %')


def test_summary_without_evaluation(tmp_path):
  assert _summary(str(tmp_path)) == 'not evaluated yet'


def test_main_prints_the_path(tmp_path, monkeypatch, capsys):
  values = types.SimpleNamespace(workdir=_workdir(tmp_path))
  monkeypatch.setattr(flags, 'FLAGS', values)
  report.main()
  assert capsys.readouterr().out == f'{tmp_path}/report.html\n'
  values.workdir = ''
  with pytest.raises(SystemExit) as caught:
    report.main()
  assert caught.value.code == 2


def test_folder_without_a_run(tmp_path):
  with pytest.raises(FileNotFoundError, match='no config.json'):
    report.write(str(tmp_path))
