"""Reports: one self-contained, well-formed file, whatever is there."""

import dataclasses
import html.parser
import json
import re
import types

from absl import flags
import numpy as np
from PIL import Image, PngImagePlugin
import pytest

from experiments import presets, report, runs
from experiments.cli import UserError

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


_EVALUATION = {
    'probes': [
        _probe('who', 'mean', 1, 0.5), _probe('who', 'mean', 2, 0.75),
        _probe('who', 'mean', 10, 1.0, 0.0), _probe('who', 'sample', 1, 0.25),
        _probe('how', 'mean', 1, 0.131), _probe('how', 'mean', 10, 0.131),
        _probe('an_extraordinarily_long_name_of_some_control', 'mean', 1, 0.6)],
    'elbo': {'train': _terms(-10.0), 'test': _terms(-12.25)},
    'verification': [{'code': 'who', 'auc': 0.8125, 'seen': False}],
    'protocol': {'probe_steps': 2000, 'vae_workdir': None},
}


class _Page(html.parser.HTMLParser):
  """What a browser would make of a report."""

  def __init__(self, text):
    super().__init__()
    self.tags, self.attributes, self.text, self._open = [], [], '', []
    self.feed(text)
    assert not self._open, f'not closed: {self._open}'

  def handle_starttag(self, tag, attrs):
    self.tags.append(tag)
    self.attributes += [(tag, *pair) for pair in attrs]
    if tag not in _VOID:
      self._open.append(tag)

  def handle_endtag(self, tag):
    assert self._open.pop() == tag

  def handle_data(self, data):
    if self._open and self._open[-1] != 'style':
      self.text += data


def _workdir(folder, evaluation=None, **changes):
  config = dataclasses.replace(_CONFIG, **changes)
  model = presets.make_model(config, (4, 4, 3))
  runs.open_workdir(str(folder), config, model, resume=False)
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
  top = page.text[:page.text.index('What each code tells')]
  assert 'Multi-Level VAE on folder' in top
  assert '4×4 RGB images' in top
  for number in ('k\xa0=\xa0150.0\xa0%', 'k\xa0=\xa010100.0\xa0%',
                 'how accuracy, k\xa0=\xa0113.1\xa0%', 'chance12.5\xa0%',
                 'image-12.2', 'images/s2,000', 'steps4,000'):
    assert number in top, number


def test_tables_have_every_number(page):
  for text in ('who', 'sample', 'k=10', '75.0', '0.250', '-12.25', '-49.00',
               'KL of who', '3.00', '0.8125', 'Verification',
               'probe steps: 2000', 'vae workdir: –'):
    assert text in page.text, text


def test_configuration_usage_and_versions(page):
  for text in ('groups_per_batch', 'who:3:group,how:2', 'learning_rate',
               f'mlvae_jax.load({page.workdir!r})', 'encode_group', 'Python',
               'orbax-checkpoint'):
    assert text in page.text, text


def test_figures_have_their_captions_in_order(page):
  places = [page.text.index(f'How to read {name}.')
            for name in ('evidence', 'curves', 'swap', 'zebra')]
  assert places == sorted(places)
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
  assert 'curves are not drawn' in text and 'no metrics.jsonl' not in text


def test_text_from_the_disk_is_escaped(tmp_path):
  evaluation = json.loads(json.dumps(_EVALUATION).replace('how', 'h<b>w'))
  evaluation['probes'].append(_probe(_EVIL, 'mean', 1, 0.5))
  evaluation[_EVIL] = [{_EVIL: _EVIL}]
  evaluation['protocol'] = {_EVIL: _EVIL}
  folder = tmp_path / f'{_EVIL[:8]}&'
  workdir = _workdir(folder, evaluation, data_dir=f'/data/{_EVIL}\udcff',
                     factors=f'who:3:{_EVIL},how:2')
  _add_figure(folder, 'swap', f'Of {_EVIL}.')
  _add_figure(folder, '<b>', 'Of the user.')
  page = _read(workdir)
  assert 'script' not in page.tags and 'b' not in page.tags
  assert page.text.count(_EVIL) >= 8
  assert f'/data/{_EVIL}?' in page.text


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
  for text, message in (('{"pro', 'not JSON'), ('[]', 'not an evaluation')):
    (tmp_path / 'evaluation.json').write_text(text)
    with pytest.raises(UserError, match=message):
      report.write(workdir)
  assert not (tmp_path / 'report.html').exists()


def test_summary_is_a_narrow_table(tmp_path):
  lines = report.summary(_workdir(tmp_path, _EVALUATION)).splitlines()
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
  lines = report.summary(_workdir(tmp_path, {'probes': rows})).splitlines()
  assert lines[0].split()[-4:] == ['k=1', 'k=2', 'k=5', 'k=10']
  assert max(map(len, lines)) <= 79


def test_summary_without_evaluation(tmp_path):
  assert report.summary(str(tmp_path)) == 'not evaluated yet'


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
