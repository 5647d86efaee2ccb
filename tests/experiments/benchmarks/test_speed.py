"""The benchmark: its rows, its table, its flags.

Speeds are not tested, for they are the machine's.
"""

import json
import os
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from experiments.benchmarks import (
  evidence,
  roofline,
  speed,
  timing,
  training,
)
from experiments.benchmarks.timing import Row, format_row
from tests.helpers import ROOT


@pytest.mark.parametrize('measure', [
    lambda: [training.train_speed(
        training.conv((4,), 4, batch_groups=4, steps=1), 1)],
    lambda: [training.train_speed(training.mlp(4, steps=1), 1)],
    lambda: [training.train_speed(training.few_pixels(8, steps=1), 1)],
    lambda: list(evidence.accumulate(1, num_rows=1000, num_groups=100)),
    lambda: [evidence.accumulate_sets(1, 2, num_rows=20, num_groups=4, dim=3)],
    lambda: [evidence.encode(
        training.conv((4,), 16), 1, 'bfloat16', num_groups=2)],
    lambda: [training.train_speed(
        training.mlp(4, steps=1), 1, in_loop=True)],
    lambda: [roofline.multiply(1, size=16)],
    lambda: [roofline.multiply(1, 'bfloat16', size=16)],
], ids=['conv', 'mlp', 'groups', 'product', 'sets', 'encode', 'loop', 'matrix',
        'bfloat16'])
def test_rows_compare_where_pytorch_is_installed(measure):
  for row in measure():
    assert row.jax > 0
    if timing.torch is None:
      assert row.pytorch is row.ratio is None
    else:
      # One measurement each: the ratio is that of the two.
      np.testing.assert_allclose(row.ratio, row.jax / row.pytorch, rtol=1e-6)


def test_without_pytorch_rows_stand_alone(monkeypatch):
  monkeypatch.setattr(timing, 'torch', None)
  row = roofline.multiply(1, size=16)
  assert row.jax > 0 and row.pytorch is row.ratio is None
  assert format_row(row).split()[-3:] == ['-', '-', 'GFLOP/s']


def test_calls_are_counted_and_the_first_turn_only_warms_up():
  turns = []
  row = timing.time_sides('x', 6.0, 'times', 2, turns.append, calls=3)
  assert turns == [0] * 3 + [1] * 3 + [2] * 3 and row.jax > 0


@pytest.mark.parametrize('backend, count, has_cuda, found', [
    ('cpu', 4, True, 'cpu'),
    ('gpu', 1, True, 'cuda'),
    ('gpu', 1, False, None),  # A PyTorch for CPUs.
    ('gpu', 2, True, None),  # The twin has one.
    ('tpu', 1, True, None),
])
def test_pytorch_runs_where_jax_does(
    monkeypatch, backend, count, has_cuda, found):
  torch = types.SimpleNamespace(
      device=str, cuda=types.SimpleNamespace(is_available=lambda: has_cuda))
  monkeypatch.setattr(timing, 'torch', torch)
  monkeypatch.setattr(jax, 'default_backend', lambda: backend)
  monkeypatch.setattr(jax, 'local_device_count', lambda: count)
  assert timing.torch_device() == found


def test_workloads_are_named_by_what_was_asked_for():
  def names(*arguments):
    return [w.name for w in training.workloads(*arguments)]

  assert names('mlp', [None], ['float32']) == ['mlp of mnist']
  assert names('conv', [255, 4096], ['float32', 'bfloat16']) == [
      f'conv {channels}, {size} images{dtype}' for size in ('256', '4,096')
      for dtype in ('', ', bfloat16')
      for channels in ('16-32-64-128', '32-64-128-256')]
  assert len(names('groups', [255], ['bfloat16'])) == 4
  for workload in training.workloads('conv', [4096], ['bfloat16']):
    assert workload.num_images == 4096
    assert workload.num_groups >= 4 * workload.batch_groups
    assert workload.model.dtype == 'bfloat16'


def test_parts_are_also_told_in_terms_of_training(monkeypatch):
  monkeypatch.setattr(training, 'train_speed', lambda workload, *_, **__: Row(
      workload.name, 50.0, None, None, 'images/s'))
  for module, name, value in (
      (training, 'gather', 400.0), (roofline, 'multiply', 200.0),
      (roofline, 'copy', 10.0)):
    monkeypatch.setattr(module, name, lambda *_, name=name, value=value: Row(
        name, value, None, None, 'each'))
  rows = list(speed.measure(['gather', 'conv'], 1))
  assert [row.jax for row in rows] == [50.0, 50.0, 400.0, 8.0, 8.0]
  assert len(list(speed.measure(['gather'], 1))) == 1

  trained, *_, product, memory, a, b, c, d = speed.measure(
      ['machine', 'mlp'], 1)
  cost = next(training.workloads('mlp', [None], ['float32'])).cost()
  arithmetic = 50.0 / 256 * cost.flops / 1e9
  traffic = 50.0 / 256 * cost.num_bytes / 1e9
  np.testing.assert_allclose(
      [row.jax for row in (product, memory, a, b, c, d)],
      [200.0, 10.0, arithmetic, arithmetic / 2.0, traffic, 10.0 * traffic])
  # What has many groups is small on purpose.
  assert len(list(speed.measure(['machine', 'groups'], 1))) == 4 + 2


@pytest.mark.slow
def test_penalties_are_a_part_of_a_step():
  row = training.share_of_penalties(2, 1, steps=1)
  assert row.jax < 100.0 and row.unit == '% of a step'


def test_gathering_reads_whole_batches():
  row = training.gather(1, num_groups=64, steps=2)
  assert row.jax > 0 and row.unit == 'rows/s'


def test_columns_are_aligned():
  lines = [format_row(row) for row in (
      Row._fields, Row('a', 12345.6, 2.0, 6172.8, 'rows/s'),
      Row('b', 1.234, None, None, 'GB/s'))]
  assert lines[1].split() == ['a', '12,346', '2', '6,173', 'rows/s']
  assert lines[2].split() == ['b', '1.23', '-', '-', 'GB/s']
  assert lines[0].index('unit') == lines[1].index('rows/s') == (
      lines[2].index('GB/s'))


# In its own process.


def _run(*args):
  return subprocess.run(
      [sys.executable, '-W', 'error', '-m', 'experiments.benchmark', *args],
      cwd=ROOT, text=True, capture_output=True,
      timeout=300, check=False, env=os.environ | {'JAX_PLATFORMS': 'cpu'})


@pytest.mark.slow
def test_it_prints_a_table_and_writes_it(tmp_path):
  path = tmp_path / 'speed.json'
  result = _run('--only=machine', '--repeats=1', f'--json={path}')
  assert result.returncode == 0, result.stderr
  first, *lines = result.stdout.splitlines()
  assert first.startswith('jax ') and 'torch' in first
  hint = 'pip install torch' in result.stdout
  assert hint == (timing.torch is None)
  written = json.loads(path.read_text())
  assert first.startswith(written['machine'])
  assert lines[-len(written['rows']):] == [
      format_row(Row(**row)) for row in written['rows']]
  assert set(written['rows'][0]) == set(Row._fields)


@pytest.mark.slow
@pytest.mark.parametrize('args, code, message', [
    (['--only=conv,nope'], 2, '--only'),
    (['--dtypes=float16'], 2, '--dtypes'),
    (['--images=255,-1'], 2, '--images'),
    (['--json=/no/such/speed.json'], 1, '--json'),
])
def test_mistakes_get_one_line(args, code, message):
  result = _run(*args)
  assert result.returncode == code, result.stderr
  assert result.stderr.startswith('error: ') and message in result.stderr
  assert result.stderr.count('\n') == 1
