"""Drawn shapes: every factor shows, what is held out stays out."""

import dataclasses
import itertools
import os
import re
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

from experiments import cli, datasets, train
from experiments.config import presets
from experiments.datasets import drawing, load, shapes
from experiments.pictures import all_shapes
from experiments.runs.build import make_model

_PRESET = presets.PRESETS['shapes']


def _config(**changes):
  return dataclasses.replace(
      _PRESET, **{'num_images': 3000, 'image_size': 8} | changes)


def _scenes(jitter=(0.0, 0.0), **values):
  """One scene; the factors that are not named have their first value."""
  row = [drawing.FACTORS[f].index(values.get(f, names[0]))
         for f, names in drawing.FACTORS.items()]
  return drawing.Scenes(np.array([row], np.int32), np.array([jitter]))


def _all_scenes():
  """Every shape in every size, position and rotation, in black."""
  numbers = [range(len(names)) for names in drawing.FACTORS.values()]
  numbers[1] = [drawing.FACTORS['colour'].index('black')]
  values = np.array(list(itertools.product(*numbers)), np.int32)
  return drawing.Scenes(values, np.zeros((len(values), 2)))


def _ink(scenes, size):
  """How much of each pixel a shape covers, `[N, S, S]`."""
  ink = 255.0 - np.array(list(drawing.COLOURS.values()))[scenes.values[:, 1]]
  return ((255.0 - drawing.draw(scenes, size)) / ink[:, None, None]).mean(-1)


def _moments(ink):
  """Area and centre of mass `[N]`, `[N, 2]` (x, y), in sides of the image."""
  size = ink.shape[1]
  place = (np.arange(size) + 0.5) / size
  total = ink.sum((1, 2))
  x, y = ((ink.sum(axis) * place).sum(1) / total for axis in (1, 2))
  return total / size ** 2, np.stack([x, y], axis=1)


def _values(data, name):
  """Names of a factor's values, row by row."""
  ids, names = data.labels_of(name)
  return np.array(names)[ids]


def _combinations(data):
  return set(zip(_values(data, 'shape'), _values(data, 'colour')))


# Pictures.


@pytest.mark.parametrize('size', [16, 32, 33, 64])
def test_area_is_the_size_and_centre_of_mass_the_position(size):
  scenes = _all_scenes()
  area, centre = _moments(_ink(scenes, size))
  # What is left is rounding to 8 bits.
  np.testing.assert_allclose(
      area, np.array(list(drawing.AREAS.values()))[scenes.values[:, 2]],
      rtol=3e-3)
  np.testing.assert_allclose(
      centre, np.array(list(drawing.POSITIONS.values()))[scenes.values[:, 3]],
      atol=2e-3)


def test_no_jitter_pushes_a_shape_over_the_edge():
  scenes = _all_scenes()
  corners = itertools.product((-1, 1), repeat=2)
  for corner in corners:  # Of the four ways to be off by the most.
    moved = scenes._replace(
        jitter=np.full((len(scenes.values), 2), drawing.JITTER) * corner)
    share = _ink(moved, 33)
    frame = np.ones((33, 33), bool)
    frame[1:-1, 1:-1] = False
    # A corner may just reach the outermost pixels; nothing is cut off.
    np.testing.assert_allclose(
        _moments(share)[0],
        np.array(list(drawing.AREAS.values()))[scenes.values[:, 2]], rtol=3e-3)
    assert share[:, frame].sum(1).max() < 2


def test_jitter_moves_the_shape_by_that_much():
  still, moved = (
      _moments(_ink(_scenes(jitter, shape='star', position='centre'), 32))[1]
      for jitter in ((0, 0), (0.03, -0.017)))
  np.testing.assert_allclose(moved - still, [[0.03, -0.017]], atol=1e-3)


def test_jitter_keeps_positions_apart():
  scenes = shapes.sample(2000)
  assert np.abs(scenes.jitter).max() <= drawing.JITTER
  assert np.abs(scenes.jitter).max() > 0.9 * drawing.JITTER
  places = np.array(list(drawing.POSITIONS.values()))
  gaps = np.abs(places[:, None] - places).max(-1)[~np.eye(9, dtype=bool)]
  assert gaps.min() > 4 * drawing.JITTER


@pytest.mark.parametrize('size', [8, 32])
def test_inside_is_the_colour_and_outside_white(size):
  for name, rgb in drawing.COLOURS.items():
    scenes = _scenes(
        shape='square', colour=name, size='large', position='centre')
    image = drawing.draw(scenes, size)[0]
    np.testing.assert_array_equal(image[size // 2, size // 2], rgb)
    np.testing.assert_array_equal(image[0, 0], [255, 255, 255])
    np.testing.assert_allclose(  # The mean is a mixture, by the area.
        image.mean((0, 1)), 255 + 0.09 * (np.array(rgb) - 255.0), atol=0.2)


def test_colours_are_far_apart():
  rgb = np.array([*drawing.COLOURS.values(), (255, 255, 255)], float)
  distance = np.linalg.norm(rgb[:, None] - rgb, axis=-1)
  assert distance[~np.eye(len(rgb), dtype=bool)].min() > 90


def test_shapes_differ_whatever_their_rotations():
  def draw(angle, outline):
    outline = drawing.rotated(0.3 * outline, angle)
    (_, share), = drawing.coverage(outline, np.full((1, 2), 0.5), 32)
    return share[0]

  turned = {name: np.stack([draw(a, outline) for a in range(0, 360, 6)])
            for name, outline in drawing.OUTLINES.items()}
  area = 0.09 * 32 ** 2
  for (a, first), (b, second) in itertools.combinations(turned.items(), 2):
    apart = np.abs(first[0] - second).sum((1, 2)).min() / area
    assert apart > 0.2, (a, b)


@pytest.mark.parametrize('size', [16, 32])
def test_every_rotation_of_every_shape_shows(size):
  for shape, area in itertools.product(drawing.OUTLINES, drawing.AREAS):
    turned = [_ink(_scenes(shape=shape, size=area, position='centre',
                           rotation=rotation), size)[0]
              for rotation in drawing.ANGLES]
    for first, second in itertools.combinations(turned, 2):
      assert np.abs(first - second).sum() > 0.05 * first.sum(), (shape, area)
      assert np.abs(first - second).max() > 0.1, (shape, area)


def test_rotation_is_clockwise():
  up = np.array([[0.0, -1.0]])
  np.testing.assert_allclose(drawing.rotated(up, 90), [[1, 0]], atol=1e-12)


def test_edges_are_mixtures_and_exact():
  # A square of 3.5 pixels, from 1.25 to 4.75 along both axes.
  outline = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (1.75 / 6)
  (_, share), = drawing.coverage(outline, np.full((1, 2), 0.5), 6)
  side = np.array([0, 0.75, 1, 1, 0.75, 0])
  np.testing.assert_allclose(share[0], np.outer(side, side), atol=1e-3)


def test_outlines_have_area_one_around_their_centre():
  for outline in drawing.OUTLINES.values():
    area, centroid = drawing.area_and_centroid(outline)
    assert area == pytest.approx(1)
    np.testing.assert_allclose(centroid, 0, atol=1e-12)


def test_one_image_is_drawn_as_among_many():
  scenes = shapes.sample(300)
  many = drawing.draw(scenes, 31)
  assert many.shape == (300, 31, 31, 3) and many.dtype == np.uint8
  for row in (0, 7, 299):
    one = drawing.draw(scenes.take(np.array([row])), 31)
    np.testing.assert_array_equal(one[0], many[row])
  assert drawing.draw(scenes.take(np.zeros(0, int)), 31).shape == (0, 31, 31, 3)


def test_scenes_are_uniform_and_the_same_however_many():
  scenes = shapes.sample(20_000)
  np.testing.assert_array_equal(scenes.values[:50], shapes.sample(50).values)
  np.testing.assert_array_equal(scenes.jitter[:50], shapes.sample(50).jitter)
  for column, names in zip(scenes.values.T, drawing.FACTORS.values()):
    share = np.bincount(column) / len(column) * len(names)
    assert len(share) == len(names) and np.abs(share - 1).max() < 0.1


# Splits.


def test_preset_holds_out_the_purple_triangle_and_its_like():
  data = load(_config())
  held = _combinations(data.test)
  assert ('triangle', 'purple') in held and len(held) == 10
  seen = _combinations(data.train)
  assert len(seen) == 90 and not seen & held
  assert _combinations(data.validation) <= seen
  for names in zip(*held):  # Each shape and each colour is held out once.
    assert len(set(names)) == 10
  assert data.shares_groups
  assert len(data.train) + len(data.validation) + len(data.test) == 3000
  sizes = [len(data.train), len(data.validation), len(data.test)]
  np.testing.assert_allclose(sizes, [2430, 270, 300], atol=60)


def test_all_factors_are_groupings():
  data = load(_config())
  for split in (data.train, data.validation, data.test):
    assert split.groupings == (
        'shape', 'colour', 'size', 'position', 'rotation')
    for name in split.groupings:
      assert split.labels_of(name).names == drawing.FACTORS[name]
    assert np.all(np.diff(split.labels) >= 0)


def test_labels_say_what_the_images_show():
  data = load(_config(image_size=32)).test
  rows = np.arange(0, len(data), 3)
  rgb = np.array([drawing.COLOURS[v] for v in _values(data, 'colour')[rows]])
  images = 255.0 - data.x[rows]
  area, centre = _moments(images.sum(-1) / (255.0 - rgb).sum(1)[:, None, None])
  sizes, places = (
      [table[v] for v in _values(data, name)[rows]]
      for name, table in (('size', drawing.AREAS),
                          ('position', drawing.POSITIONS)))
  np.testing.assert_allclose(area, sizes, rtol=0.02)
  assert np.abs(centre - places).max() < drawing.JITTER + 2e-3
  ink = images.sum((1, 2))
  np.testing.assert_allclose(
      ink / ink.sum(1, keepdims=True),
      (255 - rgb) / (255 - rgb).sum(1, keepdims=True), atol=0.01)


def test_data_do_not_change_with_the_seed_and_splits_not_with_the_factors():
  first, again, other = (
      load(_config(**changes)) for changes in (
          {'seed': 1}, {'seed': 2}, {'factors': 'c:4:colour,s:4:shape,z:8'}))
  np.testing.assert_array_equal(first.test.x, again.test.x)
  np.testing.assert_array_equal(first.train.x, again.train.x)
  assert other.grouping == 'colour'
  assert other.train.groupings == (
      'colour', 'shape', 'size', 'position', 'rotation')
  for split in ('train', 'validation', 'test'):
    pixels = [sorted(image.tobytes() for image in getattr(d, split).x)
              for d in (first, other)]
    assert pixels[0] == pixels[1]


def test_nothing_held_out_is_an_ordinary_split():
  data = load(_config(hold_out=''))
  assert data.shares_groups
  assert [len(s) for s in (data.train, data.validation, data.test)] == [
      2400, 300, 300]
  assert ('triangle', 'purple') in _combinations(data.train)


def test_one_combination():
  data = load(_config(hold_out=' triangle + purple '))
  assert _combinations(data.test) == {('triangle', 'purple')}
  assert data.shares_groups and data.test.num_groups == 10


def test_a_value_of_the_grouping_gives_groups_never_seen():
  data = load(_config(hold_out='triangle,moon'))
  assert not data.shares_groups
  assert data.test.names == ('triangle', 'moon')
  assert not set(data.test.names) & set(data.train.names)
  assert set(_values(data.test, 'shape')) == {'triangle', 'moon'}
  np.testing.assert_array_equal(np.diff(data.test.offsets) > 0, True)


def test_a_value_of_another_factor_shares_groups():
  data = load(_config(hold_out='purple'))
  assert data.shares_groups and set(_values(data.test, 'colour')) == {'purple'}
  assert 'purple' not in _values(data.train, 'colour')
  assert not load(_config(
      hold_out='purple', factors='colour:8:colour,style:8')).shares_groups


def test_combinations_of_three_factors():
  data = load(_config(hold_out='small+top-left+18deg,heart+large'))
  for split, wanted in ((data.train, False), (data.test, True)):
    held = ((_values(split, 'size') == 'small')
            & (_values(split, 'position') == 'top-left')
            & (_values(split, 'rotation') == '18deg'))
    held |= ((_values(split, 'shape') == 'heart')
             & (_values(split, 'size') == 'large'))
    np.testing.assert_array_equal(held, wanted)


def test_a_value_says_of_which_factor_it_is():
  names = sum(drawing.FACTORS.values(), ())
  assert len(set(names)) == len(names)
  assert not set(''.join(names)) & set('+, ')


def test_preset_makes_a_model_and_so_does_a_vae():
  for changes in ({}, {'factors': 'z:8', 'model': 'vae'}):
    config = _config(**changes)
    data = load(config)
    assert data.grouping == 'shape'
    assert make_model(config, data).observation_shape == (8, 8, 3)


# Mistakes.


@pytest.mark.parametrize('changes, message', [
    ({'hold_out': 'triangel+purple'}, r'got .triangel\+purple.*shape: circle'),
    ({'hold_out': 'triangle+'}, 'expected --hold_out as VALUE'),
    ({'hold_out': 'shape=star'}, 'expected --hold_out as VALUE'),
    ({'hold_out': 'red+blue'}, 'no image has two values of colour'),
    ({'hold_out': ','.join(drawing.COLOURS)}, 'leaves nothing to train on'),
    ({'hold_out': 'star+red+small+top+0deg', 'num_images': 90},
     'for test; raise --num_images'),
    ({'num_images': 1, 'hold_out': ''}, 'raise --num_images'),
    ({'num_images': 5_000_000, 'image_size': 64}, 'lower --num_images'),
    ({'factors': 'c:8:color,s:8'}, 'no grouping .color.* one of shape, col'),
    ({'factors': 'a:8:shape,b:8:person'}, 'no grouping .person.'),
])
def test_bad_flags_get_one_line(capsys, changes, message):
  with pytest.raises(cli.UserError, match=message):
    load(_config(**changes))
  with pytest.raises(SystemExit) as info, cli.checked_flags():
    datasets.check(_config(**changes))
  assert info.value.code == 2
  error = capsys.readouterr().err
  assert error.startswith('error: ') and error.count('\n') == 1
  assert re.search(message, error)


def test_command_line_knows_the_flags():
  values = {'dataset': 'shapes', 'steps': None, 'epochs': None}
  assert train.config_from_flags(
      values | {'hold_out': None, 'num_images': None}) == _PRESET
  config = train.config_from_flags(
      values | {'hold_out': '', 'num_images': 1000})
  assert (config.hold_out, config.num_images) == ('', 1000)
  result = subprocess.run(
      [sys.executable, '-W', 'error', '-m', 'experiments.train',
       '--dataset=shapes', '--hold_out=purple+triangel'],
      capture_output=True, text=True, check=False, timeout=120)
  assert result.returncode == 2
  assert result.stderr.startswith("error: expected --hold_out")
  assert result.stderr.count('\n') == 1


def test_sheet_shows_all(tmp_path):
  path = tmp_path / 'shapes.png'
  all_shapes.save(str(path))
  with Image.open(path) as image:
    assert min(image.size) > 800
  assert os.listdir(tmp_path) == ['shapes.png']
