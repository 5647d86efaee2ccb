"""Every section is registered once, and claims what no other does."""

import importlib

from experiments.evaluation.registry import CHARTS, SECTIONS, SHOWN
from experiments.evaluation.section import Section
from tests.helpers import ROOT

_FOLDERS = sorted(
    path.parent.name for path in
    (ROOT / 'experiments' / 'evaluation').glob('*/__init__.py'))


def test_every_folder_is_a_section_and_registered():
  assert sorted(section.name for section in SECTIONS) == _FOLDERS
  for section in SECTIONS:
    module = importlib.import_module(f'experiments.evaluation.{section.name}')
    assert module.SECTION is section


def test_keys_and_charts_are_claimed_once():
  keys = [key for section in SECTIONS for key in section.keys]
  assert len(set(keys)) == len(keys)
  assert not {'warnings', 'protocol'} & set(keys)
  assert len(CHARTS) == sum(len(section.charts) for section in SECTIONS)


def test_the_report_shows_every_section_once():
  assert sorted(s.name for s in SHOWN) == _FOLDERS
  last = [section.shown_last for section in SHOWN]
  assert last == sorted(last)


def test_a_section_needs_no_more_than_rows():
  section = Section('made_up', rows=lambda context: {'made_up': []})
  assert section.keys == ('made_up',) and section.tables is None
  assert section.summary({}, 24) == [] and section.key_numbers(None) == []
  assert not section.charts
