"""Which code predicts which label."""

import json

import numpy as np
import pytest

from experiments.datasets.splits import split_images
from experiments.evaluation.codes import by_code
from experiments.evaluation.context import Context, ProbeSettings
from experiments.evaluation.disentanglement.rows import disentanglement_rows
from experiments.evaluation.factors import rows as factors
from mlvae_jax.data.grouped import GroupedData


@pytest.fixture(scope='module')
def factor_rows(hand_made):
  return factors.label_accuracy(
      hand_made.codes, hand_made.images, hand_made.groupings,
      ProbeSettings(60))


def test_each_code_tells_its_own_label_only(factor_rows):
  found = by_code(factor_rows, 'accuracy', 'label')
  for source in ('mean', 'sample'):
    assert found['who', source]['who'] > 0.9
    assert found['light', source]['light'] > 0.9
    for code, label in (('light', 'who'), ('who', 'light'), ('style', 'who'),
                        ('style', 'light')):
      assert found[code, source][label] == pytest.approx(0.5, abs=0.3)
  assert found['pixels', 'mean']['light'] > 0.9


def test_rows_of_the_matrix_have_the_plain_form(factor_rows):
  assert [(r['code'], r['source']) for r in factor_rows if r['label'] == 'who'
          ] == [(code, source) for name in ('who', 'light', 'style')
                for code, source in ((name, 'mean'), (name, 'sample'),
                                     (f'untrained_{name}', 'mean'))
                ] + [('pixels', 'mean')]
  assert len(factor_rows) == 20
  for row in factor_rows:
    assert set(row) == {'code', 'label', 'strategy', 'source', 'accuracy',
                        'conditional_entropy', 'chance', 'examples',
                        'labels'}
    assert row['strategy'] == 1
  json.dumps(factor_rows)


def test_one_grouping_has_no_matrix():
  data = split_images(GroupedData.from_labels(
      np.zeros((20, 4, 4, 1), np.uint8), np.arange(20) % 2, ['a', 'b']))
  context = Context({}, data)
  assert context.all_labels is None
  assert factors.factor_rows(context) == {}
  assert disentanglement_rows(context) == {}
