"""The measurement of many groups, with few of them."""

import subprocess
import sys

import pytest

from tests.helpers import processes


def _measure(*flags):
  return subprocess.run(
      [sys.executable, '-W', 'error', '-m', 'experiments.many_groups', *flags],
      cwd=processes.ROOT, env=processes.environment(), text=True,
      capture_output=True, timeout=240, check=False)


@pytest.mark.slow
def test_every_part_is_measured():
  done = _measure('--groups=3,1e2', '--rows=1000')
  assert done.returncode == 0, done.stderr
  lines = done.stdout.splitlines()
  assert len(lines) == 1 + 3 * 2
  for line in lines[1:]:
    start, each, memory = map(float, line.split()[-3:])
    assert 0 <= start < 100 and 0 < each < 1000 and 0.05 < memory < 10


@pytest.mark.parametrize('groups', ['x', '0', '2000', ''])
def test_bad_numbers_are_one_line(groups):
  done = _measure(f'--groups={groups}', '--rows=1000')
  assert done.returncode == 2
  assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1
