"""Exported artefacts say what the run says, in a process that has only JAX."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments import export
from experiments.cli import UserError
from experiments.datasets.splits import Scale
from experiments.runs.reading import load_model
from experiments.runs.workdir import write_scale
import mlvae_jax
from tests.helpers import runs

pytest.importorskip('flatbuffers')

_CALLS = """
import json, sys
import jax, numpy as np
folder, arguments, results = sys.argv[1:]
found = {}
with open(f'{folder}/description.json') as file:
  functions = json.load(file)['functions']
values = np.load(arguments)
for name, about in functions.items():
  with open(f'{folder}/{about["file"]}', 'rb') as file:
    call = jax.export.deserialize(bytearray(file.read())).call
  inputs = []
  for key, spec in about['inputs'].items():
    inputs.append(values[key] if 'dtype' in spec else {
        factor: values[factor] for factor in spec})
  for path, leaf in jax.tree_util.tree_leaves_with_path(call(*inputs)):
    found[name + jax.tree_util.keystr(path)] = np.asarray(leaf)
assert not {'mlvae_jax', 'experiments', 'flax'} & set(sys.modules)
np.savez(results, **found)
"""


def _call(folder, tmp_path, **arguments):
  """What the artefacts return in a process that imports jax and numpy."""
  np.savez(tmp_path / 'arguments.npz', **arguments)
  done = subprocess.run(
      [sys.executable, '-c', _CALLS, folder, tmp_path / 'arguments.npz',
       tmp_path / 'results.npz'], cwd=tmp_path, text=True, check=False,
      capture_output=True, timeout=240, env=os.environ | {'PYTHONPATH': ''})
  assert done.returncode == 0, done.stderr[-2000:]
  return dict(np.load(tmp_path / 'results.npz'))


def _arguments(model, n, dtype=np.uint8):
  rng = np.random.default_rng(0)
  x = rng.integers(0, 256, (n, *model.observation_shape)).astype(dtype)
  return {'x': x, 'group_ids': rng.integers(0, 3, n).astype(np.int32)} | {
      f.name: rng.normal(size=(n, f.dim)).astype(np.float32)
      for f in model.factors}


@pytest.mark.slow
@pytest.mark.parametrize('network', ['mlp', 'conv'])
def test_a_process_with_jax_alone_runs_them(tmp_path, network):
  run, out = tmp_path / 'run', tmp_path / 'out'
  config = runs.config(network=network, channels=(4,))
  runs.untrained(run, config, (8, 8, 1))
  paths = export.export_run(str(run), str(out))
  assert sorted(map(os.path.basename, paths)) == [
      'decode.jax', 'description.json', 'encode.jax',
      'encode_groups_content.jax']
  model, params = load_model(str(run))
  given = _arguments(model, 7)
  found = _call(out, tmp_path, **given)
  expected = {
      f'encode[{name!r}]{moment}': value
      for name, q in mlvae_jax.posteriors(model, params, given['x']).items()
      for moment, value in (("['mean']", q.mean),
                            ("['variance']", np.exp(q.logvar)))}
  q = mlvae_jax.encode_group(model, params, given['x'], given['group_ids'], 7)
  expected |= {
      "encode_groups_content['mean']": q.mean,
      "encode_groups_content['variance']": np.exp(q.logvar),
      'decode': mlvae_jax.decode(model, params, {
          f.name: given[f.name] for f in model.factors})}
  assert set(found) == set(expected)
  for name, value in expected.items():
    np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5)


def test_the_description_names_inputs_and_outputs(tmp_path):
  run, out = tmp_path / 'run', tmp_path / 'out'
  runs.untrained(run, runs.config(), (8, 8, 1))
  export.export_run(str(run), str(out))
  about = json.loads((out / 'description.json').read_text())
  assert about['platforms'] == ['cpu', 'cuda', 'tpu'] and about['step'] == 0
  functions = about['functions']
  assert functions['encode_groups_content']['inputs'] == {
      'x': {'shape': ['n', 8, 8, 1], 'dtype': 'uint8'},
      'group_ids': {'shape': ['n'], 'dtype': 'int32'}}
  assert functions['encode_groups_content']['outputs']['mean'] == {
      'shape': ['n', 3], 'dtype': 'float32'}
  assert functions['decode']['outputs'] == {
      'shape': ['n', 8, 8, 1], 'dtype': 'float32'}
  with open(out / 'encode.jax', 'rb') as file:
    found = jax.export.deserialize(bytearray(file.read()))
  assert found.platforms == ('cpu', 'cuda', 'tpu')


def test_the_description_says_how_files_become_rows(tmp_path):
  config = runs.config(dataset='folder', image_size=8, white=16777215.0)
  runs.untrained(tmp_path / 'run', config, (8, 8, 1))
  export.export_run(str(tmp_path / 'run'), str(tmp_path / 'out'))
  about = json.loads((tmp_path / 'out' / 'description.json').read_text())
  assert ('grey, in files of more than 8 bits black 0 and white 16777215, '
          'resized to 8x8') in about['rows']


@pytest.mark.slow
def test_artefacts_of_standardised_rows_take_raw_ones(tmp_path):
  run, out = tmp_path / 'run', tmp_path / 'out'
  config = runs.config(dataset='arrays', likelihood='gaussian')
  runs.untrained(run, config, (5,))
  scale = Scale(np.full(5, 40, np.float32), np.full(5, 9, np.float32))
  write_scale(str(run), scale)
  export.export_run(str(run), str(out))
  model, params = load_model(str(run))
  given = _arguments(model, 4, np.float32)
  given['x'] /= 4
  found = _call(out, tmp_path, **given)
  q = mlvae_jax.posteriors(
      model, params, (given['x'] - scale.mean) / scale.std)
  np.testing.assert_allclose(
      found["encode['style']['mean']"], q['style'].mean, rtol=1e-4, atol=1e-5)
  q = mlvae_jax.encode_group(
      model, params, (given['x'] - scale.mean) / scale.std,
      given['group_ids'], 4)
  np.testing.assert_allclose(
      found["encode_groups_content['mean']"], q.mean, rtol=1e-4, atol=1e-5)
  x = mlvae_jax.decode(
      model, params, {f.name: given[f.name] for f in model.factors})
  np.testing.assert_allclose(
      found['decode'], np.asarray(x) * 9 + 40, rtol=1e-4, atol=1e-5)


def test_a_standardised_run_needs_its_scale(tmp_path):
  config = runs.config(
      dataset='arrays', likelihood='gaussian', standardise=True)
  runs.untrained(tmp_path / 'run', config, (5,))
  with pytest.raises(UserError, match='run has no scale.npz.*whole folder'):
    export.export_run(str(tmp_path / 'run'), str(tmp_path / 'out'))
  assert os.listdir(tmp_path) == ['run']


def test_what_is_there_is_left_alone(tmp_path):
  runs.untrained(tmp_path / 'run', runs.config(), (8, 8, 1))
  for folder in ('out', 'new.partial', 'empty'):
    (tmp_path / folder).mkdir()
  (tmp_path / 'out' / 'mine').touch()
  (tmp_path / 'new.partial' / 'mine').touch()
  (tmp_path / 'link').symlink_to('empty')
  for taken in ('out', 'link'):
    with pytest.raises(UserError, match=f'{taken} exists already.*--output'):
      export.export_run(str(tmp_path / 'run'), str(tmp_path / taken))
  export.export_run(str(tmp_path / 'run'), str(tmp_path / 'new') + '/')
  assert os.listdir(tmp_path / 'out') == ['mine']
  assert os.listdir(tmp_path / 'new.partial') == ['mine']
  assert len(os.listdir(tmp_path / 'new')) == 4
  assert len(os.listdir(tmp_path)) == 6


def test_rows_of_a_type_that_the_model_does_not_take(tmp_path):
  runs.untrained(tmp_path / 'run', runs.config(), (8, 8, 1))
  with pytest.raises(UserError, match=r'encode: [^;]*got int32'):
    export.export_run(str(tmp_path / 'run'), str(tmp_path / 'out'),
                      input_dtype='int32')


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
  runs.untrained(tmp_path / 'run', runs.config(), (8, 8, 1))

  def fail(*_):
    raise RuntimeError('no rule for this')

  monkeypatch.setattr(mlvae_jax, 'decode', fail)
  with pytest.raises(UserError, match='cannot export decode: no rule'):
    export.export_run(str(tmp_path / 'run'), str(tmp_path / 'out'))
  assert os.listdir(tmp_path) == ['run']


def _call_onnx(folder, name, **given):
  """What an ONNX file returns, by name, and what its inputs are called."""
  runtime = pytest.importorskip('onnxruntime')
  session = runtime.InferenceSession(folder / f'{name}.onnx')
  names = [value.name for value in session.get_outputs()]
  inputs = {value.name: value.shape for value in session.get_inputs()}
  return dict(zip(names, session.run(names, given))), inputs


@pytest.mark.parametrize('group_posterior', ['product', 'prior_product'])
@pytest.mark.parametrize('network', ['mlp', 'conv'])
def test_onnx_says_the_same(tmp_path, network, group_posterior):
  pytest.importorskip('jax2onnx')
  run, out = tmp_path / 'run', tmp_path / 'out'
  runs.untrained(run, runs.config(
      network=network, channels=(4,), group_posterior=group_posterior),
      (8, 8, 1))
  paths = export.export_run(str(run), str(out), onnx=True)
  assert sorted(map(os.path.basename, paths)) == [
      'decode.jax', 'decode.onnx', 'description.json', 'encode.jax',
      'encode.onnx', 'encode_groups_content.jax']
  model, params = load_model(str(run))
  about = json.loads((out / 'description.json').read_text())
  described = {
      name: about['functions'][name]['onnx'] for name in ('encode', 'decode')}
  for n in (1, 7):
    given = _arguments(model, n)
    found, inputs = _call_onnx(out, 'encode', x=given['x'])
    assert inputs == {'x': ['n', 8, 8, 1]}
    assert described['encode']['inputs'] == {
        'x': {'shape': ['n', 8, 8, 1], 'dtype': 'uint8'}}
    assert set(found) == set(described['encode']['outputs']) == {
        'content.mean', 'content.variance', 'style.mean', 'style.variance'}
    for name, q in mlvae_jax.posteriors(model, params, given['x']).items():
      np.testing.assert_allclose(found[f'{name}.mean'], q.mean, atol=1e-5)
      np.testing.assert_allclose(
          found[f'{name}.variance'], np.exp(q.logvar), atol=1e-5)
    # As the description says for groups.
    mean, variance = found['content.mean'], found['content.variance']
    prior = group_posterior == 'prior_product'
    precision = prior + np.sum(1 / variance - prior, axis=0)
    q = mlvae_jax.encode_group(
        model, params, given['x'], np.zeros(n, np.int32), 1)
    np.testing.assert_allclose(np.exp(-q.logvar[0]), precision, rtol=1e-4)
    np.testing.assert_allclose(
        q.mean[0], np.sum(mean / variance, axis=0) / precision, atol=1e-4)
    codes = {f.name: given[f.name] for f in model.factors}
    found, inputs = _call_onnx(out, 'decode', **codes)
    assert inputs == {'content': ['n', 3], 'style': ['n', 2]}
    assert set(found) == {'x.mean'} == set(described['decode']['outputs'])
    np.testing.assert_allclose(
        found['x.mean'], mlvae_jax.decode(model, params, codes), atol=1e-5)
  assert ('1 / V = ' + ('1 + the sum of (1 / variance - 1),' if prior else
                        'the sum of 1 / variance,')) in about['groups_in_onnx']


def test_onnx_of_standardised_rows_takes_raw_ones(tmp_path):
  pytest.importorskip('jax2onnx')
  run, out = tmp_path / 'run', tmp_path / 'out'
  runs.untrained(run, runs.config(
      dataset='arrays', likelihood='gaussian', group_posterior='moments'),
      (5,))
  scale = Scale(np.full(5, 40, np.float32), np.full(5, 9, np.float32))
  write_scale(str(run), scale)
  export.export_run(str(run), str(out), onnx=True)
  model, params = load_model(str(run))
  given = _arguments(model, 4, np.float32)
  found, _ = _call_onnx(out, 'encode', x=given['x'] / 4)
  q = mlvae_jax.posteriors(
      model, params, (given['x'] / 4 - scale.mean) / scale.std)
  np.testing.assert_allclose(found['style.mean'], q['style'].mean, atol=1e-5)
  codes = {f.name: given[f.name] for f in model.factors}
  found, _ = _call_onnx(out, 'decode', **codes)
  x = mlvae_jax.decode(model, params, codes)
  np.testing.assert_allclose(
      found['x.mean'], np.asarray(x) * 9 + 40, rtol=1e-5)
  about = json.loads((out / 'description.json').read_text())
  assert 'use encode_groups_FACTOR.jax' in about['groups_in_onnx']


def test_onnx_without_jax2onnx(tmp_path, monkeypatch):
  runs.untrained(tmp_path / 'run', runs.config(), (8, 8, 1))
  find_spec = export.util.find_spec
  monkeypatch.setattr(export.util, 'find_spec', lambda name: (
      None if name == 'jax2onnx' else find_spec(name)))
  with pytest.raises(UserError, match=r"pip install 'mlvae_jax\[onnx\]'$"):
    export.export_run(str(tmp_path / 'run'), str(tmp_path / 'out'), onnx=True)
  assert os.listdir(tmp_path) == ['run']


def test_onnx_of_what_jax2onnx_cannot_convert(tmp_path, monkeypatch):
  converter = pytest.importorskip('jax2onnx')
  runs.untrained(tmp_path / 'run', runs.config(), (8, 8, 1))

  def fail(*_, **__):
    raise NotImplementedError('No plugins for primitive foo\nand more')

  monkeypatch.setattr(converter, 'to_onnx', fail)
  with pytest.raises(UserError, match=(
      'cannot convert encode to ONNX: No plugins for primitive foo; .*--onnx')):
    export.export_run(str(tmp_path / 'run'), str(tmp_path / 'out'), onnx=True)
  assert os.listdir(tmp_path) == ['run']
