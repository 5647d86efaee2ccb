"""The history and the checkpoints that a run leaves."""

import json

import jax
import numpy as np
import pytest

import mlvae_jax
from mlvae_jax.training.checkpoint import Checkpoints, SaveError
from mlvae_jax.training.history import History, flatten, read_metrics
from mlvae_jax.training.record import Record
from mlvae_jax.training.run_files import locked
from mlvae_jax.training.step import TrainConfig, init_state

MODEL = mlvae_jax.Model(mlvae_jax.vae(2), (3,), network=mlvae_jax.MLP((4,)))


@pytest.fixture(scope='module')
def fresh():
  return jax.device_get(init_state(MODEL, TrainConfig()))


def _at(fresh, step):
  """A state whose parameters are all equal to its step."""
  return fresh._replace(
      step=np.int32(step), params=jax.tree.map(
          lambda leaf: np.full_like(leaf, step), fresh.params))


def _value(params):
  return float(jax.tree.leaves(params)[0].ravel()[0])


def _line(step, split='train', **values):
  return {'step': step, 'epoch': step / 2, 'split': split, **values}


@pytest.mark.parametrize('has_workdir', [True, False])
def test_the_best_parameters_are_kept(tmp_path, fresh, has_workdir):
  with Record(str(tmp_path) if has_workdir else None) as record:
    assert record.resume(fresh) is fresh
    assert record.best_params(fresh.params) is None
    for step, elbo in enumerate((-3.0, -1.0, -1.0, -2.0, None), 1):
      record.save(_at(fresh, step), elbo, last=step == 5)
    # Of two that are equal the later.
    assert _value(record.best_params(fresh.params)) == 3
    assert record.kept() == ('The checkpoint of step 5 is kept.' if has_workdir
                             else 'There was no checkpoint yet.')


def test_history_drops_what_comes_after_the_checkpoint(tmp_path):
  lines = [_line(2), _line(2, 'validation'), _line(4, elbo=float('nan'))]
  (tmp_path / 'metrics.jsonl').write_text(
      '\n'.join(map(json.dumps, lines)) + '\n{"step": 5, "ep')
  assert len(read_metrics(str(tmp_path))) == 3
  history = History(str(tmp_path), 2)
  history.add(_line(3))
  history.close()
  assert history.records == [*lines[:2], _line(3)]
  assert read_metrics(str(tmp_path)) == history.records


def test_flat_names():
  assert flatten(_line(2, elbo=-1.0, kl={'content': 2.0, 'style': 3.0})) == {
      'train/elbo': -1.0, 'train/kl/content': 2.0, 'train/kl/style': 3.0}
  assert flatten(_line(2, 'validation', penalties={'contrast/who': 1.0})) == {
      'validation/penalties/contrast/who': 1.0}


def test_a_checkpoint_that_cannot_be_written_is_tried_once_more(
    tmp_path, fresh, monkeypatch):
  failures, save = [SaveError('full'), None, SaveError('full'), None], (
      Checkpoints.save)

  def failing(self, *args):
    error = failures.pop(0)
    if error is not None:
      raise error
    save(self, *args)

  monkeypatch.setattr(Checkpoints, 'save', failing)
  with Record(str(tmp_path)) as record:
    record.resume(fresh)
    with pytest.warns(RuntimeWarning, match='full; trying once more'):
      record.save(_at(fresh, 1), None, last=True)
    assert record.kept() == 'The checkpoint of step 1 is kept.'
    # The one after it has failed again.
    with pytest.raises(SaveError, match='full'):
      record.save(_at(fresh, 2), None, last=True)
  assert failures == [None]


def test_a_workdir_has_one_writer(tmp_path):
  with locked(str(tmp_path)):
    with pytest.raises(ValueError, match='is in use by process .*wait until'):
      with locked(str(tmp_path)):
        pass
  with locked(str(tmp_path)):
    pass
