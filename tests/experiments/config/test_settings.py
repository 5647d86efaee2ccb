"""Settings: declared once, and everything else follows."""

import dataclasses
import re

from absl import flags
import pytest

from experiments import datasets, evaluate, launch, prepare, train
from experiments.config import settings, settings_table
from experiments.config.flags import define, help_by_subject
from experiments.config.from_flags import make_config
from experiments.config.presets import PRESETS
from experiments.config.settings import SETTINGS, Config
from tests.helpers import ROOT


def test_the_docs_list_the_settings_as_they_are():
  page = (ROOT / 'docs' / 'settings.md').read_text(encoding='utf-8')
  assert page == settings_table.page(), (
      'run: python -m experiments.config.settings_table > docs/settings.md')


@pytest.mark.parametrize('name', PRESETS)
def test_flags_take_every_value_of_a_preset(name):
  """All but --batch_size, which sets another, given as flags."""
  values = flags.FlagValues()
  for key, setting in SETTINGS.items():
    define(key, dataclasses.replace(setting, default=None), values)
  config = PRESETS[name]
  arguments = [f'--{key}={settings_table._text(value, digits=17)}'
               for key, value in dataclasses.asdict(config).items()
               if value is not None and key != 'batch_size']
  values(['program', *arguments])
  assert make_config(values.flag_values_dict()) == config


def test_every_preset_is_one_of_a_data_set():
  assert set(PRESETS) == set(datasets._DATA_SETS)
  for name, preset in PRESETS.items():
    assert preset.dataset == name


def test_settings_of_some_data_sets_are_settings():
  for one in datasets._DATA_SETS.values():
    assert set(one.settings) <= set(SETTINGS)


@pytest.mark.parametrize('name', SETTINGS)
def test_help_is_a_sentence_that_starts_with_what_the_setting_is(name):
  text = SETTINGS[name].text
  assert re.match('[A-Z]', text) and text.endswith('.')
  assert not re.match('(Of|As|By|In|To|For|With) ', text)


@pytest.mark.parametrize('module', [train, prepare, evaluate, launch],
                         ids=lambda module: module.__name__)
def test_help_lists_every_flag_once_under_its_subject(monkeypatch, module):
  values = flags.FlagValues()
  for owner in (settings.flags, module, train.processes):
    monkeypatch.setattr(
        owner, 'define',
        lambda name, declared, *_: define(name, declared, values))
  module.define_flags()
  text = help_by_subject(values)
  assert sorted(re.findall(r'^  --(?:\[no\])?(\w+):', text, re.M)) == sorted(
      values)
  headings = re.findall(r'^(\w+):$', text, re.M)
  assert len(headings) == len(set(headings)) >= 2


def test_settings_of_training_are_its_flags_and_none_unless_given(monkeypatch):
  found = {}
  for owner in (settings.flags, train, train.processes):
    monkeypatch.setattr(
        owner, 'define',
        lambda name, declared, *_: found.__setitem__(name, declared))
  train.define_flags()
  assert set(SETTINGS) <= set(found)
  for name in set(SETTINGS) - {'dataset'}:
    assert found[name].default is None
    assert dataclasses.replace(
        found[name], default=SETTINGS[name].default) == SETTINGS[name]
  assert Config() == Config(
      **{name: setting.default for name, setting in SETTINGS.items()})


def test_flags_are_defined_in_one_place():
  for path in (ROOT / 'experiments').rglob('*.py'):
    if path.name != 'flags.py':
      assert 'flags.DEFINE_' not in path.read_text().replace(
          'flags.DEFINE_flag(HelpFlag', ''), path
