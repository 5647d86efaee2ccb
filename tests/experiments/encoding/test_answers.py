"""Images are asked about, and answered in words and in a figure."""

import os

import numpy as np
from PIL import Image
import pytest

from experiments.cli import UserError
from experiments.encoding import answers, data_set
from tests.helpers import runs

NAMES = ('anna, b.', 'Zoë', '李')


@pytest.fixture(name='root')
def _root(tmp_path):
  """A run, its gallery of three groups, and images to ask about."""
  rng = np.random.default_rng(0)
  for folder, number in (('photos', 8), ('query', 2)):
    for name in NAMES:
      (tmp_path / folder / name).mkdir(parents=True)
      for i in range(number):
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(
            tmp_path / folder / name / f'{i}.png')
  runs.untrained(tmp_path / 'run', runs.config(
      data_dir=str(tmp_path / 'photos'), store_dir=str(tmp_path / 'store')),
                 (8, 8, 1))
  data_set.encode_run(str(tmp_path / 'run'), str(tmp_path / 'codes'))
  return tmp_path


def _ask(root, query='query', output=None, k=2, run='run', gallery='codes'):
  return answers.find_nearest(
      str(root / run), str(root / query), str(root / gallery), k,
      output and str(root / output))


def test_a_folder_is_asked_about(root, capsys):
  (root / 'query' / 'notes.txt').write_text('not an image')
  Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(
      root / 'query' / 'colour.png')
  capsys.readouterr()
  paths = _ask(root, output='nearest.png')
  assert paths == [str(root / 'nearest.png')]
  assert Image.open(paths[0]).text['Description'].startswith('Images (green)')
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == ('warning: colour.png: is in colour, but the run was '
                      'trained on grey images; convert it to grey')
  assert lines[1].startswith('warning: notes.txt: is not an image')
  assert lines[2].startswith(
      'content: 3 groups; probabilities calibrated on 24 images')
  assert len(lines) == 9
  assert lines[-1].startswith('李/1.png') and ' content: ' in lines[-1]
  assert sum(name in lines[3] for name in NAMES) >= 2
  assert lines[3].count('%, ') == 1 and '; known ' in lines[3]


def test_one_image_is_asked_about(root, capsys):
  _ask(root, query='query/Zoë/1.png', k=9)
  line = capsys.readouterr().out.splitlines()[-1]
  assert line.startswith('1.png  content: ') and line.count(' %') == 3
  assert not list(root.glob('*.png'))


def test_images_of_the_gallery_are_found(root, capsys):
  """With the group's own images: even random weights recognise these."""
  answers.find_nearest(str(root / 'run'), str(root / 'photos'),
                       str(root / 'codes'), 1, None)
  lines = capsys.readouterr().out.splitlines()[-24:]
  right = sum(line.split('content: ')[1].startswith(line.split('/')[0])
              for line in lines)
  assert right > 8  # Chance.


@pytest.mark.slow
def test_grey_images_for_a_run_of_colours(root):
  runs.untrained(root / 'rgb', runs.config(
      data_dir=str(root / 'photos'), store_dir=str(root / 'store')),
                 (8, 8, 3))
  data_set.encode_run(str(root / 'rgb'), str(root / 'rgb_codes'))
  _ask(root, run='rgb', gallery='rgb_codes', output='n.png')


@pytest.mark.slow
def test_several_factors_have_a_figure_each(tmp_path):
  runs.untrained(tmp_path / 'run', runs.config(
      'shapes', factors='content:3:shape,hue:2:colour,style:2',
      num_images=200, image_size=16), (16, 16, 3))
  data_set.encode_run(str(tmp_path / 'run'), str(tmp_path / 'codes'))
  Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / 'query.jpg')
  paths = _ask(tmp_path, query='query.jpg', output='n.png')
  assert [os.path.basename(path) for path in paths] == [
      'n_content.png', 'n_hue.png']
  with pytest.raises(UserError, match='n_content.png exists already'):
    _ask(tmp_path, query='query.jpg', output='n.png')


@pytest.mark.parametrize('arguments, message', [
    ({'query': 'none'}, 'no file or folder .*--query'),
    ({'query': 'empty'}, 'no usable image in .*empty'),
    ({'query': 'bad.png'}, 'bad.png: is not an image'),
    ({'gallery': 'photos'}, 'photos has no about.json'),
    ({'output': 'n.jpg'}, 'must end in .png'),
    ({'run': 'other'}, 'not encoded with the model that .*other'),
])
def test_what_cannot_be_asked(root, arguments, message):
  (root / 'empty').mkdir()
  (root / 'bad.png').write_bytes(b'no')
  runs.untrained(root / 'other', runs.config(seed=1), (8, 8, 1))
  with pytest.raises(UserError, match=message):
    _ask(root, **arguments)


def test_a_vae_has_no_groups(root):
  runs.untrained(root / 'vae', runs.config(
      model='vae', data_dir=str(root / 'photos'),
      store_dir=str(root / 'store')), (8, 8, 1))
  data_set.encode_run(str(root / 'vae'), str(root / 'vae_codes'))
  with pytest.raises(UserError, match='no grouped factor'):
    _ask(root, run='vae', gallery='vae_codes')
