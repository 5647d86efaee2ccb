"""MIG and DCI: how known factors are distributed over dimensions of the codes.

Both compare the concatenated posterior means of all factors, each image
encoded alone, with the labels of several groupings, the known factors. The
section "factors" shows what whole codes predict.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.evaluation.codes import untrained
from experiments.evaluation.context import Context
from experiments.evaluation.encoding import Encoded
from experiments.evaluation.label_sets import LabelSet, Part
from mlvae_jax.measures.disentanglement import (
    NUM_BINS,
    completeness,
    disentanglement,
    importance,
    mutual_information_gap,
)

MAX_IMAGES = 5000  # Limits the time that the forests take.
_SEED = 0
_NAMES = {'trained': 'all', 'untrained': untrained('all'), 'vae': 'vae'}

Rows = list[dict[str, Any]]


def disentanglement_rows(context: Context) -> dict[str, Rows]:
  """The section "disentanglement"; {} if the data have a single grouping."""
  labels = context.all_labels
  return {} if labels is None else {
      'disentanglement': mig_and_dci(context.codes(labels), labels)}


def mig_and_dci(codes: Mapping[str, Encoded], groupings: Sequence[LabelSet]
                ) -> Rows:
  """MIG and DCI of a model, and of controls.

  Args:
    codes: posteriors of 'trained', 'untrained' and perhaps 'vae'.
    groupings: known factors. Those with fewer than 20 images per label are
      left out, because their histograms would be mostly noise.

  Returns:
    Rows of the section "disentanglement": per set of codes and known factor
    "strategy" (1), "mig", "completeness", "error", "dimension" (the one with
    most information, as FACTOR[i]) and "information" (its share of the
    factor's entropy); and a row whose label is None, with their means and
    "disentanglement". No rows for fewer than two known factors.
  """
  known = [chosen for chosen in groupings if _is_dense(chosen)]
  if len(known) < 2:
    return []
  return [row for key, encoded in codes.items()
          for row in _rows_of(_NAMES[key], encoded, known)]


def _rows_of(name: str, encoded: Encoded, known: Sequence[LabelSet]
             ) -> Iterator[dict[str, Any]]:
  """The rows of one set of codes."""
  dimensions = [f'{f.name}[{i}]' for f in encoded.factors
                for i in range(f.dim)]
  gaps = [mutual_information_gap(*_means(encoded, _unseen(chosen)))
          for chosen in known]
  found = [importance(*(_means(encoded, part) for part in chosen.parts))
           for chosen in known]
  weights = np.stack([f.weights for f in found], axis=1)
  complete = completeness(weights)
  yield {
      'code': name, 'label': None, 'strategy': 1,
      'mig': float(np.mean([g.gap for g in gaps])),
      'disentanglement': disentanglement(weights),
      'completeness': float(np.mean(complete)),
      'error': float(np.mean([f.error for f in found]))}
  for chosen, gap, c, forest in zip(known, gaps, complete, found):
    best = int(np.argmax(gap.mutual_information))
    yield {
        'code': name, 'label': chosen.grouping, 'strategy': 1,
        'mig': gap.gap, 'completeness': float(c), 'error': forest.error,
        'dimension': dimensions[best],
        'information': float(gap.mutual_information[best] / gap.entropy)}


def _means(encoded: Encoded, part: Part) -> tuple[np.ndarray, np.ndarray]:
  """Means of all factors `[N, D]` and labels `[N]` of up to 5,000 images."""
  keep = np.random.default_rng(_SEED).permutation(len(part.rows))[:MAX_IMAGES]
  codes = [encoded.alone(part.split, f.name, part.rows[keep]).mean
           for f in encoded.factors]
  return np.concatenate(codes, axis=1), part.labels[keep]


def _unseen(chosen: LabelSet) -> Part:
  """Images that the model was not trained on, with labels as in training.

  These are validation images: a test split may consist of combinations that
  were held out, in which one factor reveals another.
  """
  first, second, _ = chosen.parts
  if first.split != second.split:
    return second
  # All parts are of a split with new groups, none of which was trained on.
  return Part(first.split, *(
      np.concatenate(values) for values in zip(*(
          part[1:] for part in chosen.parts))))


def _is_dense(chosen: LabelSet) -> bool:
  """Whether histograms have at least one image per bin and label on average."""
  count = min(len(_unseen(chosen).rows), MAX_IMAGES)
  return count >= NUM_BINS * chosen.num_classes
