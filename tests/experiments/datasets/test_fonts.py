"""Letters in fonts: every letter shows, what is held out stays out."""

import dataclasses
import shutil

import matplotlib
import numpy as np
import pytest

from experiments import cli
from experiments.config import presets
from experiments.datasets import check, fonts, load, typefaces
from experiments.datasets.typefaces import LETTERS
from experiments.runs.build import make_model

_PRESET = presets.PRESETS['fonts']
_TTF = f'{matplotlib.get_data_path()}/fonts/ttf'
_STILL = np.full((len(LETTERS), 1, 4), 0.5)


@pytest.fixture(scope='module')
def found():
  return fonts.find_fonts()


@pytest.fixture
def few(monkeypatch, found):
  """Six of the fonts, because drawing takes time."""
  monkeypatch.setattr(fonts, 'find_fonts', lambda folder: found[::4])
  return found[::4]


def _load(**changes):
  return load(dataclasses.replace(_PRESET, **{'image_size': 8} | changes))


def _values(data, name):
  ids, names = data.labels_of(name)
  return np.array(names)[ids]


def _combinations(data):
  return set(zip(_values(data, 'letter'), _values(data, 'font')))


# Fonts.


def test_matplotlib_s_fonts_of_letters(found):
  names = [font.name for font in found]
  assert names == sorted(names) and len(names) >= 20
  assert {'DejaVuSans', 'STIXGeneralItalic', 'cmr10', 'cmtt10'} <= set(names)
  # Symbols, boxes, other alphabets and other sizes.
  assert not {'cmex10', 'cmsy10', 'cmmi10', 'LastResortHE-Regular',
              'STIXNonUni', 'DejaVuSansDisplay'} & set(names)


def test_further_fonts(tmp_path, found):
  (tmp_path / 'deep').mkdir()
  shutil.copy(f'{_TTF}/cmr10.ttf', tmp_path / 'deep' / 'Same.TTF')
  shutil.copy(f'{_TTF}/cmsy10.ttf', tmp_path)
  (tmp_path / 'broken.ttf').write_text('hello')
  (tmp_path / 'note.txt').write_text('hello')
  assert fonts.find_fonts(str(tmp_path)) == found  # Nothing new.
  assert [font.name for font in typefaces.find([str(tmp_path)])] == ['Same']
  with pytest.raises(cli.UserError, match='is not a folder'):
    fonts.find_fonts(str(tmp_path / 'note.txt'))


# Pictures.


@pytest.mark.parametrize('size', [16, 32])
def test_letters_fill_the_picture_and_stay_in_it(found, size):
  corners = np.array(np.meshgrid(*[[0, 0.999]] * 4)).reshape(4, -1).T
  ink = 255 - typefaces.draw(
      found[1], size, np.repeat(corners[None], len(LETTERS), 0))
  assert ink.shape == (52, 16, size, size) and ink.max() > 200
  # Nothing is cut off: the outermost pixels are white, up to a trace.
  edge = np.ones((size, size), bool)
  edge[1:-1, 1:-1] = False
  assert ink[..., edge].max() < 64
  extent = (ink > 128).any((0, 1, 2)).sum()
  assert extent > 0.75 * size


def test_letters_are_centred_and_keep_their_size(found):
  ink = 255.0 - typefaces.draw(found[0], 32, _STILL)[:, 0]
  covered = ink.sum(1) > 100  # Columns with ink.
  left = covered.argmax(1)
  right = 32 - covered[:, ::-1].argmax(1)
  np.testing.assert_allclose((left + right) / 2, 16, atol=1)
  height = (ink.sum(2) > 100).sum(1)
  assert height[LETTERS.index('C')] > 1.2 * height[LETTERS.index('c')]
  assert len({picture.tobytes() for picture in ink}) == 52


@pytest.mark.parametrize('column, moved', [(0, 2), (1, 1)])
def test_variations_shift(found, column, moved):
  variation = _STILL.copy()
  variation[..., column] = 1.0
  still, shifted = (255.0 - typefaces.draw(found[0], 32, v)[:, 0]
                    for v in (_STILL, variation))
  place = np.arange(32) + 0.5

  def centre(ink):
    return (ink.sum(3 - moved) * place).sum(1) / ink.sum((1, 2))

  np.testing.assert_allclose(
      centre(shifted) - centre(still), 32 * typefaces.MAX_SHIFT, atol=0.05)


def test_members_of_a_combination_differ(few):
  data = _load(image_size=16, hold_out='').train
  letter, font = (data.labels_of(name).ids for name in ('letter', 'font'))
  rows = data.x[(letter == 0) & (font == 0)]
  assert len(rows) == fonts.NUM_VARIATIONS - 2
  assert len({row.tobytes() for row in rows}) == len(rows)


# Splits.


def test_combinations_are_held_out_and_their_parts_are_not(few):
  found = _load()
  assert found.shares_groups and found.train.groupings == ('letter', 'font')
  assert found.grouping == 'letter' and found.train.names == tuple(LETTERS)
  assert not _combinations(found.test) & _combinations(found.train)
  assert _combinations(found.validation) == _combinations(found.train)
  for name in ('letter', 'font'):
    assert set(_values(found.test, name)) <= set(_values(found.train, name))
  assert 0.05 < len(found.test) / sum(map(len, found.parts)) < 0.15


@pytest.mark.parametrize('what', ['font', 'letter'])
def test_groups_never_seen(found, monkeypatch, what):
  monkeypatch.setattr(fonts, 'NUM_VARIATIONS', 2)
  data = _load(hold_out=f'{what}s')
  assert data.grouping == what and not data.shares_groups
  assert not set(data.test.names) & set(data.train.names)
  other = 'letter' if what == 'font' else 'font'
  assert set(_values(data.test, other)) == set(_values(data.train, other))
  assert len(data.test.names) >= 3


def test_nothing_held_out(few):
  found = _load(hold_out='')
  assert found.shares_groups
  assert _combinations(found.test) == _combinations(found.train)


def test_the_same_for_every_seed_and_sorted_by_the_first_factor(few):
  one, other = (_load(seed=seed) for seed in (0, 1))
  np.testing.assert_array_equal(one.train.x, other.train.x)
  turned = _load(factors='font:2:font,style:2')
  assert turned.grouping == 'font'
  assert turned.train.names == tuple(font.name for font in few)
  assert turned.content['pixels'] == one.content['pixels']


def test_another_font_changes_nothing_for_the_others(monkeypatch, found):
  monkeypatch.setattr(fonts, 'find_fonts', lambda folder: found[:3])
  small = _load()
  monkeypatch.setattr(fonts, 'find_fonts', lambda folder: found[:4])
  large = _load()
  for a, b in zip(small.parts, large.parts):
    keep = np.isin(_values(b, 'font'), [font.name for font in found[:3]])
    assert {x.tobytes() for x in a.x} == {x.tobytes() for x in b.x[keep]}
  assert small.content != large.content


@pytest.mark.parametrize('changes, message', [
    ({'hold_out': 'triangle+purple'}, 'combinations, fonts, letters'),
    ({'factors': 'content:2:digit,style:2'}, 'no grouping \'digit\''),
])
def test_bad_settings(changes, message):
  with pytest.raises(ValueError, match=message):
    check(dataclasses.replace(_PRESET, **changes))


def test_the_preset_makes_a_model(few):
  model = make_model(_PRESET, _load(image_size=32))
  assert model.groupings == ('letter', 'font')
