"""MIG and DCI: how single dimensions of the codes share out known factors.

Both look at the posterior means of all factors side by side, each image
encoded alone, and at labels of several groupings, the known factors. What
whole codes predict is in the matrix of `factor_matrix.py`.

- MIG, the mutual information gap: Chen, Li, Grosse, Duvenaud 2018, Isolating
  sources of disentanglement in variational autoencoders (arXiv 1802.04942).
- DCI, disentanglement, completeness, informativeness: Eastwood, Williams
  2018, A framework for the quantitative evaluation of disentangled
  representations (ICLR).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.evaluation.encoding import Encoded
from experiments.evaluation.label_sets import Labelled, Part

NUM_BINS = 20
MAX_IMAGES = 5000
_DEPTHS = (4, 8, 16)
_NUM_TREES = 20
_SEED = 0
_NAMES = {'trained': 'all', 'untrained': 'untrained_all', 'vae': 'vae'}


class Gap(NamedTuple):
  """What single dimensions reveal of a known factor.

  Attributes:
    gap: MIG of the factor, in [0, 1].
    mutual_information: `[D]` in nats, of each dimension and the factor.
    entropy: of the factor, in nats.
  """

  gap: float
  mutual_information: np.ndarray
  entropy: float


class Importance(NamedTuple):
  """How trees predict a known factor.

  Attributes:
    weights: `[D]` >= 0 that sum to 1 (0 where nothing can be predicted).
    error: share of held-out labels that are predicted wrongly.
  """

  weights: np.ndarray
  error: float


def mutual_information_gap(codes: np.ndarray, labels: np.ndarray) -> Gap:
  """MIG of one known factor (Chen et al. 2018, section 4.1).

  (I(z_1; v) - I(z_2; v)) / H(v), of the two dimensions that reveal most of the
  factor v. It is 1 where one dimension reveals all and every other nothing. A
  dimension is divided into 20 bins of equal width between its extremes, and
  information is that of the joint histogram.

  Args:
    codes: `[N, D]`.
    labels: `[N]` ints.

  Returns:
    The gap; with a single dimension the other counts as revealing nothing.

  Raises:
    ValueError: on shapes that do not fit, or labels that are all the same.
  """
  from sklearn.metrics import mutual_info_score  # Slow to import.

  _check(codes, labels)
  entropy = float(mutual_info_score(labels, labels))
  found = np.array([
      mutual_info_score(labels, bins) for bins in discretize(codes).T])
  first, second = np.sort([*found, 0.0])[-1:-3:-1]
  return Gap(float((first - second) / entropy), found, entropy)


def discretize(codes: np.ndarray) -> np.ndarray:
  """Bins `[N, D]` in `[0, 20)` of equal width; a constant has bin 0."""
  low, high = codes.min(axis=0), codes.max(axis=0)
  width = np.where(high > low, high - low, 1.0)
  bins = np.floor(NUM_BINS * ((codes - low) / width))
  return np.minimum(bins, NUM_BINS - 1).astype(int)


def importance(train: tuple[np.ndarray, np.ndarray],
               validation: tuple[np.ndarray, np.ndarray],
               test: tuple[np.ndarray, np.ndarray]) -> Importance:
  """Predicts a known factor with a random forest (DCI).

  As in Eastwood & Williams, the trees are as deep as is best on validation.

  Args:
    train: codes `[N, D]` and labels `[N]`; so are the next two.
    validation: to choose by.
    test: held out.

  Returns:
    The forest's importances, and its error on test.

  Raises:
    ValueError: on shapes that do not fit, or labels that are all the same.
  """
  from sklearn.ensemble import RandomForestClassifier  # Slow to import.

  _check(*train)
  # All dimensions compete for every split: of a random few, one that reveals
  # nothing would get a share whenever the right one is not among them.
  forests = [
      RandomForestClassifier(
          _NUM_TREES, max_depth=depth, max_features=None, n_jobs=1,
          random_state=_SEED).fit(*train) for depth in _DEPTHS]
  best = max(forests, key=lambda forest: forest.score(*validation))
  return Importance(best.feature_importances_, 1 - float(best.score(*test)))


def disentanglement(weights: np.ndarray) -> float:
  """D of DCI: does a dimension reveal one factor only?

  1 less the entropy, to base K, of each dimension's importances over the
  factors; averaged over dimensions by their shares of all importance.

  Args:
    weights: `[D, K]` importances of D dimensions for K >= 2 factors.

  Returns:
    A number in [0, 1]; 0 where no dimension matters.

  Raises:
    ValueError: with fewer than two factors.
  """
  if weights.ndim != 2 or weights.shape[1] < 2:
    raise ValueError(
        'expected importances of [D, K] for K >= 2 factors, got '
        f'{list(weights.shape)}')
  per_dimension = weights.sum(axis=1)
  if not per_dimension.sum():
    return 0.0
  return float(np.average(
      [_concentration(w) for w in weights], weights=per_dimension))


def completeness(weights: np.ndarray) -> np.ndarray:
  """C of DCI: does one dimension alone reveal a factor?

  Args:
    weights: `[D, K]` importances of D dimensions for K factors.

  Returns:
    `[K]` in [0, 1]: 1 less the entropy, to base D, of a factor's importances
    over the dimensions; 0 for a factor that nothing reveals.
  """
  return np.array([_concentration(w) for w in weights.T])


def disentanglement_rows(codes: Mapping[str, Encoded],
                         groupings: Sequence[Labelled]
                         ) -> list[dict[str, Any]]:
  """MIG and DCI of a model, and of controls.

  Args:
    codes: 'trained', 'untrained' and perhaps 'vae'.
    groupings: the known factors. Those of fewer than 20 images a label are
      left out: their histograms would be mostly noise.

  Returns:
    Rows of the section "disentanglement": per set of codes and known factor
    "strategy" (1), "mig", "completeness", "error", "dimension" (of most
    information, as FACTOR[i]) and "information" (its share of the factor's
    entropy); and one whose label is None, with their means and
    "disentanglement". No rows for fewer than two known factors.
  """
  known = [chosen for chosen in groupings if _is_dense(chosen)]
  if len(known) < 2:
    return []
  return [row for key, encoded in codes.items()
          for row in _rows_of(_NAMES[key], encoded, known)]


def _rows_of(name: str, encoded: Encoded, known: Sequence[Labelled]
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
  """Means of all factors `[N, D]` and labels `[N]`, of at most 5,000 images."""
  keep = np.random.default_rng(_SEED).permutation(len(part.rows))[:MAX_IMAGES]
  codes = [encoded.alone(part.split, f.name, part.rows[keep]).mean
           for f in encoded.factors]
  return np.concatenate(codes, axis=1), part.labels[keep]


def _unseen(chosen: Labelled) -> Part:
  """Images that the model was not trained on, with labels as in training.

  Validation images: a test split may be of combinations that were held out,
  in which one factor gives away another.
  """
  first, second, _ = chosen.parts
  if first.split != second.split:
    return second
  return Part(first.split, *(
      np.concatenate(values) for values in zip(*(
          part[1:] for part in chosen.parts))))


def _is_dense(chosen: Labelled) -> bool:
  count = min(len(_unseen(chosen).rows), MAX_IMAGES)
  return count >= NUM_BINS * chosen.num_classes


def _concentration(weights: np.ndarray) -> float:
  """1 less the entropy of weights `[n]`, to base n; 0 where all are 0."""
  total = weights.sum()
  if not total:
    return 0.0
  share = weights[weights > 0] / total
  if len(weights) == 1:
    return 1.0
  return float(1 + np.sum(share * np.log(share)) / np.log(len(weights)))


def _check(codes: np.ndarray, labels: np.ndarray) -> None:
  if codes.ndim != 2 or labels.shape != codes.shape[:1]:
    raise ValueError(
        'expected codes of [N, D] and labels of [N], got '
        f'{list(codes.shape)} and {list(labels.shape)}')
  if len(np.unique(labels)) < 2:
    raise ValueError('expected labels of at least two classes')
