"""Workdirs whose files were damaged: one line that names the remedy."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from experiments.cli import UserError
from experiments.config.settings import to_json
from experiments.runs.reading import check_data, load_data, read_run
from experiments.runs.record import Record
from mlvae_jax.model.factors import ml_vae
from mlvae_jax.model.model import Model
from mlvae_jax.training.history import read_metrics
from mlvae_jax.training.step import TrainConfig, init_state
from tests.experiments.test_train import _CONFIG

_CONTENT = {'num_images': 3, 'num_groups': 2, 'names': 'x', 'pixels': 'y'}


def _write(workdir, **changes):
  values = {'config': to_json(_CONFIG), 'data': _CONTENT,
            'model': Model(ml_vae(3, 2), (4, 4, 1)).to_dict()} | changes
  (workdir / 'config.json').write_text(json.dumps(values))
  return str(workdir)


def test_lines_of_the_log_that_are_damaged_are_left_out(tmp_path):
  (tmp_path / 'metrics.jsonl').write_bytes(
      b'{"step": 1}\n\xff\xfe\x00garbage\n[1, 2]\n{"epoch": 3}\n{"step": 2}\n'
      b'{"st')
  assert read_metrics(str(tmp_path)) == [{'step': 1}, {'step': 2}]


@pytest.mark.slow
def test_where_every_checkpoint_is_damaged_one_line_says_what_to_do(tmp_path):
  fresh = jax.device_get(init_state(
      Model(ml_vae(3, 2), (4, 4, 1)), TrainConfig()))
  with Record(str(tmp_path), 9, 2) as record:
    record.resume(fresh)
    for step in (1, 2):
      record.save(fresh._replace(step=np.int32(step)), None, last=True)
  for step in (1, 2):
    shutil.rmtree(tmp_path / 'checkpoints' / str(step) / 'params')
  with pytest.raises(UserError, match=(
      'checkpoints is intact .*step 2: .*step 1: .*delete it to train from the '
      'start, or choose another --workdir$')) as error:
    with Record(str(tmp_path), 9, 2) as record:
      record.resume(fresh)
  assert '\n' not in str(error.value)


@pytest.mark.parametrize('changes, match', [
    ({'config': None}, 'cannot read the configuration.*restore config.json'),
    ({'config': [1]}, 'cannot read the configuration'),
    ({'model': None}, 'cannot read the configuration'),
    ({'model': {}}, 'cannot read the configuration'),
    ({'model': Model(ml_vae(3, 2), (4, 4, 1)).to_dict()
      | {'network': {'name': 'transformer'}}}, "unknown network 'transformer'"),
    ({'model': Model(ml_vae(3, 2), (4, 4, 1)).to_dict()
      | {'network': None}}, 'cannot read the configuration'),
    ({'model': Model(ml_vae(3, 2), (4, 4, 1)).to_dict()
      | {'observation_shape': None}}, 'cannot read the configuration'),
    ({'data': [1]}, 'record of the data.*damaged; restore it, or train in'),
    ({'data': {'a': 1}}, 'record of the data.*damaged'),
    ({'data': _CONTENT | {'num_images': 'three'}}, 'record of the data'),
])
def test_a_damaged_configuration_gets_one_line(tmp_path, changes, match):
  assert read_run(_write(tmp_path))[0] == _CONFIG
  with pytest.raises(UserError, match=match) as error:
    read_run(_write(tmp_path, **changes))
  assert '\n' not in str(error.value)


def test_an_svi_run_accepts_no_other_data(tmp_path):
  config = dataclasses.replace(_CONFIG, model='svi')
  workdir = _write(tmp_path, config=to_json(config))
  with pytest.raises(UserError, match='restore the data, or train') as error:
    check_data(workdir, config, _CONTENT | {'num_images': 4})
  assert '--data_changed' not in str(error.value)


@pytest.mark.parametrize('model', ['svi', 'mlvae'])
def test_other_data_are_recorded_only_where_they_can_be_used(
    tmp_path, model, monkeypatch):
  config = dataclasses.replace(_CONFIG, model=model)
  workdir = _write(tmp_path, config=to_json(config))
  before = (tmp_path / 'config.json').read_bytes()

  class _Data:
    content = _CONTENT | {'num_images': 4}

  monkeypatch.setattr(
      'experiments.datasets.load', lambda config, show_notes: _Data)
  if model == 'svi':
    with pytest.raises(UserError, match='a posterior of every image'):
      load_data(workdir, data_changed='accept')
    assert (tmp_path / 'config.json').read_bytes() == before
  else:
    load_data(workdir, data_changed='accept')
    assert read_run(workdir)[1]['data'] == _Data.content
