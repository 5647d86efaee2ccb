"""Rows on the recognition of groups never seen."""

import numpy as np
import pytest

from experiments.evaluation.recognition import rows
from experiments.evaluation.recognition.galleries import by_gallery
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.grouping.product import PriorProduct


def test_rows_of_an_evaluation():
  mean = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
  codes = {'who': Normal(mean, np.zeros_like(mean)), 'pixels': mean}
  offsets = np.array([0, 4, 8, 12])
  posteriors = {'who': PriorProduct()}
  pairs = rows.verification_rows(codes, offsets, posteriors)
  assert [(row['code'], row['score']) for row in pairs] == [
      ('who', 'cosine'), ('who', 'evidence_ratio'), ('pixels', 'cosine')]
  few = rows.few_shot_rows(codes, offsets, posteriors)
  assert {(row['code'], row['shots'], row['fused']) for row in few
          if row['score'] == 'cosine'} == {
      (code, shots, fused) for code in codes
      for shots, fused in ((1, False), (2, False), (2, True), (3, False),
                           (3, True))}
  assert [(row['code'], row['shots'], row['fused']) for row in few
          if row['score'] == 'posterior'] == [('who', 1, False)]
  assert {row['strategy'] for row in pairs} == {1}  # Images are alone.
  assert all(row['strategy'] == 1 + row['fused'] for row in few)
  assert all(row['auc'] == 1 for row in pairs)
  assert all(row['accuracy'] == 1 for row in few)


@pytest.mark.slow
def test_ways_and_shots_of_an_evaluation():
  # 24 groups of six: five and twenty of them, and all.
  mean = np.repeat(np.eye(24, dtype=np.float32), 6, axis=0)
  few = rows.few_shot_rows(
      {'who': Normal(mean, np.zeros_like(mean))}, 6 * np.arange(25),
      {'who': PriorProduct()})
  found = {}
  for row in few:
    found.setdefault((row['score'], row['ways']), set()).add(row['shots'])
    assert row['margin'] == 1.96 * row['standard_error']
  assert found == {
      ('cosine', 5): {1, 5}, ('cosine', 20): {1, 2, 3, 5},
      ('cosine', 24): {1, 2, 3, 5}, ('posterior', 5): {1, 5},
      ('posterior', 20): {1, 5}}
  assert list(by_gallery(few)) == [('who', size, method) for size, methods in (
      ('five', 3), ('usual', 3), ('all', 2)) for method in (
          'nearest', 'fused', 'posterior')[:methods]]
