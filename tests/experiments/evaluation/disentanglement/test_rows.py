"""Rows of MIG and DCI, of a perfect model and of controls."""

import itertools

import numpy as np
import pytest

from experiments.evaluation.disentanglement import rows as dci
from experiments.evaluation.encoding import Encoded
from experiments.evaluation.label_sets import LabelSet, Part
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.model.factors import parse_factors
from mlvae_jax.model.model import Model

_GRID = np.random.default_rng(0).permutation(
    list(itertools.product(range(4), range(3))) * 40)


def _codes(*columns):
  return np.stack(columns, axis=1).astype(np.float32)


class _HandMade(Encoded):
  """An encoder of known codes, the same for every split."""

  def __init__(self, **codes):
    super().__init__(Model(parse_factors(','.join(
        f'{name}:{code.shape[1]}' for name, code in codes.items())),
        (1, 1, 1)), {}, {})
    self._codes = codes

  def alone(self, split, factor, rows):
    mean = self._codes[factor][rows]
    return Normal(mean, np.zeros_like(mean))


def _labelled(grouping, labels, splits=('train', 'validation', 'test')):
  rows = np.arange(len(labels))
  return LabelSet(grouping, int(labels.max()) + 1, tuple(
      Part(split, rows[i::3], labels[i::3])
      for i, split in enumerate(splits)))


_KNOWN = [_labelled('four', _GRID[:, 0]), _labelled('three', _GRID[:, 1])]


def test_rows_of_a_perfect_model_and_of_controls():
  noise = np.random.default_rng(0).normal(size=(len(_GRID), 3))
  rows = dci.mig_and_dci({
      'trained': _HandMade(y=noise[:, :1], x=_codes(*_GRID.T)),
      'vae': _HandMade(z=noise)}, _KNOWN)
  assert [(row['code'], row['label']) for row in rows] == [
      ('all', None), ('all', 'four'), ('all', 'three'),
      ('vae', None), ('vae', 'four'), ('vae', 'three')]
  assert {row['strategy'] for row in rows} == {1}
  mean, four, three, vae = rows[:4]
  assert mean['mig'] == pytest.approx((four['mig'] + three['mig']) / 2)
  assert mean['disentanglement'] == pytest.approx(1)
  assert mean['completeness'] == pytest.approx(1) and mean['error'] == 0
  assert four['dimension'] == 'x[0]' and three['dimension'] == 'x[1]'
  assert four['information'] == pytest.approx(1)
  assert vae['disentanglement'] < 0.3 and vae['error'] > 0.4
  assert vae['mig'] < mean['mig'] / 2


def test_labels_of_too_few_images_are_left_out():
  many = _labelled('many', np.arange(len(_GRID)) // 3)
  codes = {'trained': _HandMade(x=_codes(*_GRID.T))}
  rows = dci.mig_and_dci(codes, [*_KNOWN, many])
  assert [row['label'] for row in rows] == [None, 'four', 'three']
  assert dci.mig_and_dci(codes, [_KNOWN[0], many]) == []
  assert dci.mig_and_dci(codes, []) == []


def test_gaps_are_not_of_images_trained_on():
  shared = _KNOWN[0]
  assert dci._unseen(shared) is shared.parts[1]
  divided = _labelled('four', _GRID[:, 0], ('test',) * 3)
  assert sorted(dci._unseen(divided).rows) == list(range(len(_GRID)))
