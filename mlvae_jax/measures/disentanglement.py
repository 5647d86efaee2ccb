"""MIG and DCI: how known factors are distributed over dimensions of codes.

- MIG, the mutual information gap: Chen, Li, Grosse, Duvenaud 2018, Isolating
  sources of disentanglement in variational autoencoders (arXiv 1802.04942).
- DCI, disentanglement, completeness, informativeness: Eastwood, Williams
  2018, A framework for the quantitative evaluation of disentangled
  representations (ICLR).

`mutual_information_gap` and `importance` need scikit-learn, which
`pip install 'mlvae_jax[experiments]'` installs.
"""

from __future__ import annotations

import importlib
import types
from typing import NamedTuple

import numpy as np

NUM_BINS = 20
_DEPTHS = (4, 8, 16)  # Depths of trees, of which validation chooses one.
_NUM_TREES = 20
_SEED = 0


class Gap(NamedTuple):
  """What single dimensions reveal about a known factor.

  Attributes:
    gap: MIG of the factor, in [0, 1].
    mutual_information: `[D]`, mutual information of each dimension and the
      factor, in nats.
    entropy: entropy of the factor, in nats.
  """

  gap: float
  mutual_information: np.ndarray
  entropy: float


class Importance(NamedTuple):
  """How a random forest predicts a known factor.

  Attributes:
    weights: `[D]`, importance of each dimension, at least 0. They sum to 1, or
      are all 0 where nothing can be predicted.
    error: fraction of held-out labels that are predicted wrongly.
  """

  weights: np.ndarray
  error: float


def mutual_information_gap(codes: np.ndarray, labels: np.ndarray) -> Gap:
  """MIG of one known factor (Chen et al. 2018, section 4.1).

    MIG = (I(z_1; v) - I(z_2; v)) / H(v),

  with the two dimensions that reveal most about the factor v. It is 1 where one
  dimension reveals everything and all others nothing. A dimension is divided
  into 20 bins of equal width between its extremes, and information is that of
  the joint histogram.

  Args:
    codes: `[N, D]`.
    labels: `[N]` ints, values of the factor.

  Returns:
    The gap; with a single dimension, a second is taken to reveal nothing.

  Raises:
    ValueError: on wrong shapes, or labels that are all the same.
    ModuleNotFoundError: without scikit-learn.
  """
  _check(codes, labels)
  mutual_info_score = _sklearn('metrics').mutual_info_score
  # H(v) = I(v; v).
  entropy = float(mutual_info_score(labels, labels))
  found = np.array([
      mutual_info_score(labels, bins) for bins in discretize(codes).T])
  first, second = np.sort([*found, 0.0])[-1:-3:-1]
  return Gap(float((first - second) / entropy), found, entropy)


def discretize(codes: np.ndarray) -> np.ndarray:
  """Bins `[N, D]` in `[0, 20)` of equal width; a constant is in bin 0."""
  low, high = codes.min(axis=0), codes.max(axis=0)
  width = np.where(high > low, high - low, 1.0)
  bins = np.floor(NUM_BINS * ((codes - low) / width))
  # The largest value, at the upper edge, belongs to the last bin.
  return np.minimum(bins, NUM_BINS - 1).astype(int)


def importance(train: tuple[np.ndarray, np.ndarray],
               validation: tuple[np.ndarray, np.ndarray],
               test: tuple[np.ndarray, np.ndarray]) -> Importance:
  """Predicts a known factor with a random forest (DCI).

  As in Eastwood and Williams (2018), the depth of the trees is the one that is
  best on the validation examples.

  Args:
    train: codes `[N, D]` and labels `[N]` to learn from.
    validation: codes and labels to choose the depth by.
    test: codes and labels to score on.

  Returns:
    The forest's importances, and its error on the test examples.

  Raises:
    ValueError: on wrong shapes, or labels that are all the same.
    ModuleNotFoundError: without scikit-learn.
  """
  _check(*train)
  forest_of = _sklearn('ensemble').RandomForestClassifier
  # All dimensions compete for every split. Among a random few, one that reveals
  # nothing would gain importance whenever the right one is not among them.
  forests = [
      forest_of(
          _NUM_TREES, max_depth=depth, max_features=None, n_jobs=1,
          random_state=_SEED).fit(*train) for depth in _DEPTHS]
  best = max(forests, key=lambda forest: forest.score(*validation))
  return Importance(best.feature_importances_, 1 - float(best.score(*test)))


def disentanglement(weights: np.ndarray) -> float:
  """D of DCI: does each dimension reveal only one factor?

    D = sum_d w_d (1 - H_K(p_d)),

  where p_d are the importances of dimension d for the K factors, as shares, H_K
  is the entropy to base K, and w_d is the dimension's share of all importance.

  Args:
    weights: `[D, K]` importances of D dimensions for K >= 2 factors.

  Returns:
    D in [0, 1]; 0 where no dimension reveals anything.

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
  """C of DCI: is each factor revealed by a single dimension?

    C_k = 1 - H_D(p_k),

  where p_k are the importances of the D dimensions for factor k, as shares, and
  H_D is the entropy to base D.

  Args:
    weights: `[D, K]` importances of D dimensions for K factors.

  Returns:
    `[K]` in [0, 1]; 0 for a factor that no dimension reveals.
  """
  return np.array([_concentration(w) for w in weights.T])


def _concentration(weights: np.ndarray) -> float:
  """1 minus the entropy of weights `[n]`, to base n; 0 where all are 0."""
  total = weights.sum()
  if not total:
    return 0.0
  share = weights[weights > 0] / total  # 0 log 0 is 0.
  if len(weights) == 1:
    return 1.0
  return float(1 + np.sum(share * np.log(share)) / np.log(len(weights)))


def _check(codes: np.ndarray, labels: np.ndarray) -> None:
  if codes.ndim != 2 or labels.shape != codes.shape[:1]:
    raise ValueError(
        'expected codes of [N, D] and labels of [N], got '
        f'{list(codes.shape)} and {list(labels.shape)}')
  if len(np.unique(labels)) < 2:
    raise ValueError(
        'expected labels of at least two classes, got labels that are all the '
        'same')


def _sklearn(module: str) -> types.ModuleType:
  """Imports a module of scikit-learn, which is slow, and may be missing."""
  try:
    return importlib.import_module(f'sklearn.{module}')
  except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'MIG and DCI need scikit-learn: pip install '
        "'mlvae_jax[experiments]'") from error
