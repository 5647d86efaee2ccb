"""Rows on the recognition of groups never seen."""

import numpy as np

from experiments.evaluation.recognition import rows
from mlvae_jax.grouping.normal import Normal


def test_rows_of_an_evaluation():
  mean = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
  codes = {'who': Normal(mean, np.zeros_like(mean)), 'pixels': mean}
  offsets = np.array([0, 4, 8, 12])
  pairs = rows.verification_rows(codes, offsets)
  assert [(row['code'], row['score']) for row in pairs] == [
      ('who', 'cosine'), ('who', 'evidence_ratio'), ('pixels', 'cosine')]
  few = rows.few_shot_rows(codes, offsets)
  assert {(row['code'], row['shots'], row['fused']) for row in few} == {
      (code, shots, fused) for code in codes
      for shots, fused in ((1, False), (2, False), (2, True), (3, False),
                           (3, True))}
  assert {row['strategy'] for row in pairs} == {1}  # Images are alone.
  assert all(row['strategy'] == 1 + row['fused'] for row in few)
  assert all(row['auc'] == 1 for row in pairs)
  assert all(row['accuracy'] == 1 for row in few)
