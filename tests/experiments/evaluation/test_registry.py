"""Every section is registered once, and claims what no other does."""

import importlib

from experiments.evaluation.registry import (
    CHARTS,
    SECTIONS,
    SHOWN,
    draw_chart,
)
from experiments.evaluation.section import Section
from experiments.pictures.registry import PICTURES
from tests.helpers import ROOT
from tests.helpers.lit_people import MODEL

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


def test_every_chart_and_picture_can_be_drawn():
  for name in CHARTS:
    assert draw_chart(name, {}, MODEL) is None
  for file, function in PICTURES.values():
    module = importlib.import_module(f'experiments.pictures.{file}')
    assert callable(getattr(module, function))


def test_the_report_shows_every_section_once():
  assert sorted(s.name for s in SHOWN) == _FOLDERS
  last = [section.shown_last for section in SHOWN]
  assert last == sorted(last)


def test_a_section_needs_no_more_than_rows():
  section = Section('made_up', rows=lambda context: {'made_up': []})
  assert section.keys == ('made_up',) and section.tables is None
  assert section.summary({}, 24) == [] and section.key_numbers(None) == []
  assert not section.charts
