"""Flags: numbers that pass through a parser's bounds."""

from absl import flags as absl_flags
import pytest

from experiments.config import flags


@pytest.mark.parametrize('kind, text', [
    (float, 'nan'), (float, 'inf'), (float, '-inf'), (int, '99999999999999')])
def test_numbers_that_no_run_can_have_are_refused(kind, text):
  values = absl_flags.FlagValues()
  flags.define('x', flags.Setting('A number.', 'Run', kind, 1), values)
  with pytest.raises(absl_flags.IllegalFlagValueError):
    values(['program', f'--x={text}'])
