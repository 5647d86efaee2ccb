"""Splits that images and groups keep, and runs that know their data."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest

from experiments import datasets
from experiments.cli import UserError
from experiments.config import presets
from experiments.datasets import splits
from experiments.datasets.store import packed
from experiments.runs.build import make_model
from experiments.runs.reading import load_data
from experiments.runs.workdir import open_workdir
from mlvae_jax.data.grouped import GroupedData, Labels
from tests.helpers.made_up import write_folder


def _named(names, groups=7):
  """An image per name, whose pixels are its number."""
  number = np.arange(len(names), dtype=np.int64)
  pixels = np.stack([number // 256, number % 256], axis=1).astype(np.uint8)
  return GroupedData.from_labels(
      pixels.reshape(-1, 1, 2, 1), number % groups, tuple('abcdefg'[:groups]),
      row_names=np.array([name.encode() for name in names]))


def _parts(found):
  """Names in each split."""
  return [set(part.row_names.tolist())
          for part in (found.train, found.validation, found.test)]


_NAMES = [f'p{i % 7}/{i:04}.png' for i in range(3000)]


def test_an_image_keeps_its_split_when_others_come_and_go():
  parts = _parts(splits.split_images(_named(_NAMES)))
  assert sum(map(len, parts)) == len(set.union(*parts)) == 3000
  fewer = _parts(splits.split_images(_named(_NAMES[::3])))
  more = _parts(splits.split_images(_named(
      [f'new/{i}' for i in range(500)] + _NAMES)))
  for part, few, many in zip(parts, fewer, more):
    assert few == part & set(name.encode() for name in _NAMES[::3])
    assert part == many & set(name.encode() for name in _NAMES)


@pytest.mark.parametrize('fractions', [(0.1, 0.1), (0.3, 0.05)])
def test_shares_of_the_images_are_those_asked_for(fractions):
  found = splits.split_images(_named(_NAMES), fractions)
  for part, share in ((found.validation, fractions[0]),
                      (found.test, fractions[1])):
    error = np.sqrt(share * (1 - share) / 3000)
    assert abs(len(part) / 3000 - share) < 4 * error
    assert part.num_groups == 7


def test_larger_shares_only_add_to_the_test_split():
  small, large = (
      splits.split_images(_named(_NAMES), (0.1, share)).test
      for share in (0.1, 0.2))
  assert set(small.row_names) < set(large.row_names)


def test_a_group_keeps_its_split_when_others_come_and_go():
  def split(names):
    names = [names[i] for i in packed.group_order(names)]
    found = splits.split_groups(GroupedData(
        np.zeros((len(names), 1, 1, 1), np.uint8), np.arange(len(names) + 1),
        tuple(names)))
    return [set(part.names)
            for part in (found.train, found.validation, found.test)]

  names = [f'm.{i}' for i in range(400)]
  parts = split(names)
  for part, few in zip(parts, split(names[::2])):
    assert few == part & set(names[::2])


def test_groups_in_another_order_are_refused():
  names = tuple(f'm.{i}' for i in range(50))
  with pytest.raises(ValueError, match='order of a packed store'):
    splits.split_groups(GroupedData(
        np.zeros((50, 1, 1, 1), np.uint8), np.arange(51), names))


def _characters(num_alphabets=12, per_alphabet=4, images=3):
  """Characters in alphabets, in the order of a store; one has none."""
  names = [f'a{a}/c{c}' for a in range(num_alphabets)
           for c in range(per_alphabet)]
  names = [names[i] for i in packed.group_order(names)]
  labels = np.repeat(np.arange(len(names)), images)
  alphabets = [f'a{a}' for a in range(num_alphabets)]
  ids = np.array([alphabets.index(name.partition('/')[0])
                  for name in names], np.int32)[labels]
  ids[:images] = -1
  return GroupedData.from_labels(
      np.arange(len(labels), dtype=np.int64).reshape(-1, 1, 1, 1), labels,
      tuple(names), 'character', {'alphabet': Labels(ids, tuple(alphabets))},
      np.array([f'{i}'.encode() for i in range(len(labels))]))


def test_whole_groups_of_another_grouping_are_held_out():
  data = _characters()
  data.others['alphabet'].ids[:3] = data.others['alphabet'].ids[3]
  found = splits.split_by_grouping(data, 'alphabet')
  assert not found.shares_groups and found.grouping == 'character'
  alphabets = []
  for part in found.parts:
    assert np.all(np.diff(part.offsets) > 0)
    ids = np.unique(part.labels_of('alphabet').ids)
    alphabets.append({data.others['alphabet'].names[i] for i in ids})
    np.testing.assert_array_equal(
        data.labels[part.x.ravel()],
        [data.names.index(part.names[label]) for label in part.labels])
  assert sum(map(len, alphabets)) == 12 and all(alphabets)
  assert alphabets == [
      {f'a{a}' for a in range(12) if low <= splits.group_position(
          f'a{a}') < high} for low, high in ((0, .5), (.5, .75), (.75, 1))]
  assert sum(map(len, found.parts)) == len(data)


def test_images_of_unknown_groups_are_groups_of_their_own():
  # Three images of one character, which may then be in several splits.
  data = _characters()
  found = splits.split_by_grouping(data, 'alphabet', (0.3, 0.3))
  parts = [int(np.sum(part.labels_of('alphabet').ids < 0))
           for part in found.parts]
  assert sum(parts) == 3
  assert found.shares_groups == (max(parts) < 3)


def test_groups_with_images_in_two_splits_are_shared():
  ids = np.arange(40) % 10
  data = GroupedData.from_labels(
      np.arange(40).reshape(-1, 1, 1), {
          'person': np.arange(40) // 10, 'light': [f'l{i}' for i in ids]})
  found = splits.split_by_grouping(data, 'light')
  assert found.shares_groups
  assert {part.names for part in found.parts} == {data.names}
  lights = [set(part.labels_of('light').ids) for part in found.parts]
  assert sum(map(len, lights)) == len(set.union(*lights)) == 10


def test_a_split_without_any_group_is_an_error():
  with pytest.raises(UserError, match='none of the 12 groups .* validation'):
    splits.split_by_grouping(_characters(), 'alphabet', (1e-6, 0.3))


def test_a_split_by_its_own_grouping_is_one_by_group():
  data = _characters()
  config = dataclasses.replace(
      presets.PRESETS['folder'], split_by='group', split_fractions=(0.2, 0.2))
  by_group, by_name = (
      splits.split(data, dataclasses.replace(config, split_by=by))
      for by in ('group', 'character'))
  for one, other in zip(by_group.parts, by_name.parts):
    np.testing.assert_array_equal(one.x, other.x)
  with pytest.raises(UserError, match='grouped by character, alphabet; choose'):
    splits.split(data, dataclasses.replace(config, split_by='letter'))


# Runs.


def _config(tmp_path, **changes):
  return dataclasses.replace(
      presets.PRESETS['folder'], data_dir=str(tmp_path / 'data'),
      store_dir=str(tmp_path / 'stores'), image_size=8, **changes)


def _open(workdir, config, **settings):
  """Opens a workdir as training does; gives the splits."""
  data = datasets.load(config)
  model = make_model(config, data)
  with open_workdir(str(workdir), config, model, data.content,
                         resume=True, **settings):
    return data


@pytest.fixture
def run(tmp_path):
  """The configuration of a run in `tmp_path / 'run'` on 60 images."""
  write_folder(tmp_path / 'data', dict.fromkeys('abc', 20))
  config = _config(tmp_path)
  _open(tmp_path / 'run', config)
  return config


def _add(tmp_path):
  shutil.copy(tmp_path / 'data/a/000.jpg', tmp_path / 'data/b/new.jpg')


def _both_ways(tmp_path, config):
  """What resuming and evaluating do with a run."""
  yield lambda **settings: _open(tmp_path / 'run', config, **settings)
  yield lambda **settings: load_data(str(tmp_path / 'run'), **settings)


def test_the_same_data_are_taken_wherever_they_are(run, tmp_path):
  first = _open(tmp_path / 'run', run)
  # With other times, and in another place.
  os.mkdir(tmp_path / 'moved')
  for name in 'abc':
    shutil.copytree(tmp_path / 'data' / name, tmp_path / 'moved' / name,
                    copy_function=shutil.copyfile)
  shutil.rmtree(tmp_path / 'data')
  shutil.rmtree(tmp_path / 'stores')
  moved = dataclasses.replace(run, data_dir=str(tmp_path / 'moved'))
  again = _open(tmp_path / 'run', moved)
  np.testing.assert_array_equal(first.test.x, again.test.x)
  found = load_data(
      str(tmp_path / 'run'), data_dir=str(tmp_path / 'moved'))
  np.testing.assert_array_equal(first.test.x, found.test.x)


def test_notes_are_printed_where_their_flags_are(run, tmp_path, capsys):
  (tmp_path / 'data/notes.tsv').write_text('a\tred hair\n')
  for again, expected in zip(_both_ways(tmp_path, run), (True, False)):
    again()
    assert ('--read_as=tsv' in capsys.readouterr().out) == expected


def _remove(tmp_path):
  os.remove(tmp_path / 'data/a/003.jpg')


def _rename(tmp_path):
  os.rename(tmp_path / 'data/a/003.jpg', tmp_path / 'data/a/x.jpg')


def _replace(tmp_path):
  shutil.copy(tmp_path / 'data/a/000.jpg', tmp_path / 'data/a/003.jpg')


@pytest.mark.parametrize('change, words', [
    (_add, '60 images of 3 groups then, 61 images of 3 groups now'),
    (_remove, '60 images of 3 groups then, 59 images of 3 groups now'),
    (_rename, '60 images of 3 groups, but not the same ones'),
    (_replace, 'the same names, but different pixels')])
def test_a_run_whose_data_changed_is_refused(run, tmp_path, change, words):
  before = _open(tmp_path / 'run', run)
  change(tmp_path)
  for act in _both_ways(tmp_path, run):
    with pytest.raises(UserError, match=words) as error:
      act()
    assert '--data_changed=accept' in str(error.value)
  config = json.loads((tmp_path / 'run/config.json').read_text())
  assert config['data'] == before.content


def test_accepted_data_are_recorded_and_nothing_trained_on_is_tested(
    run, tmp_path):
  before = _open(tmp_path / 'run', run)
  _add(tmp_path)
  for act in _both_ways(tmp_path, run):
    data = act(data_changed='accept')
    assert not set(data.test.row_names) & set(before.train.row_names)
    assert act() is not None
  config = json.loads((tmp_path / 'run/config.json').read_text())
  assert config['data'] == data.content and config['config']['steps']


def test_runs_of_before_there_was_a_record_are_refused(run, tmp_path):
  path = tmp_path / 'run/config.json'
  config = json.loads(path.read_text())
  del config['data']
  path.write_text(json.dumps(config))
  for act in _both_ways(tmp_path, run):
    with pytest.raises(UserError, match='before runs recorded their data'):
      act()


def test_but_not_those_of_data_that_never_change(tmp_path):
  config = presets.PRESETS['mnist5k']
  data = _open(tmp_path / 'run', config)
  path = tmp_path / 'run/config.json'
  old = json.loads(path.read_text())
  assert old.pop('data') == data.content
  old['config']['split_fractions'] = [0.25, 0.25]
  path.write_text(json.dumps(old))
  _open(tmp_path / 'run', config)
  assert json.loads(path.read_text())['data'] == data.content


@pytest.mark.parametrize('dataset, changes', [
    ('shapes', {'num_images': 200}), ('shapes', {'hold_out': 'star'})])
def test_drawn_data_are_known_too(dataset, changes):
  config = dataclasses.replace(
      presets.PRESETS[dataset], num_images=300, image_size=8)
  first, again, other = (
      datasets.load(c).content
      for c in (config, config, dataclasses.replace(config, **changes)))
  assert first == again != other


@pytest.mark.parametrize('factors, known, suggested', [
    ('content:8:label,style:8|content', ['cell type'],
     "--factors='content:8:cell type,style:8|content'"),
    ('who:8:person,pose:8:person_pose', ['person_pose', 'id'],
     '--factors=who:8:id,pose:8:person_pose'),
    ('a:8:x,b:8:y', ['u', 'v'], '--factors=a:8:u,b:8:v'),
    ('x:16:8,y:8:lit', ['lit'], '--factors=x:16,y:8:lit')])
def test_groupings_that_are_missing_get_others(factors, known, suggested):
  config = dataclasses.replace(presets.PRESETS['arrays'], factors=factors)
  with pytest.raises(UserError, match='grouped by.*data.npz has the') as caught:
    splits.check_groupings(config, known, 'data.npz')
  assert str(caught.value).endswith(f'as in {suggested}')
