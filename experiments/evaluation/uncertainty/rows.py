"""The uncertainty of codes, for evaluation.json.

Variance: how does the variance of a group's code fall with evidence?
Membership: in many random trials a few images of some groups are given (the
shots), and other images of these groups are assigned to one of them, with a
probability. As many other groups are unknown: images of these should have less
evidence of being from a known group.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from experiments.evaluation import label_sets
from experiments.evaluation.context import Context
from experiments.evaluation.encoding import Encoded
from experiments.evaluation.formatting import standard_error
from experiments.pictures.subject import EVIDENCE_SIZES
from mlvae_jax.data.ids import offsets_of
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.measures import calibration
from mlvae_jax.measures.membership import membership_scores
from mlvae_jax.measures.sorted_rows import draw_rows
from mlvae_jax.measures.verification import verify
from mlvae_jax.model.factors import Factor

_SHOTS = (1, 5)
_MAX_SETS = 200
_MAX_WAYS = 20
_NUM_EPISODES = 20
_MAX_QUERIES = 10
_NUM_BINS = 10
_SEED = 0

Rows = list[dict[str, Any]]


class _Groups(NamedTuple):
  """Rows of a split, sorted by the groups of one grouping.

  Attributes:
    split: name of the split.
    rows: `[N]` rows of the split.
    offsets: `[G + 1]`; group g has rows[offsets[g]:offsets[g + 1]].
  """

  split: str
  rows: np.ndarray
  offsets: np.ndarray


class _Episode(NamedTuple):
  """One random trial, with positions among the rows of `_Groups`.

  Attributes:
    gallery: `[ways, shots]`, images that are given of the known groups.
    known: `[Q]`, other images of these groups.
    labels: `[Q]` ints in `[0, ways)`, their groups.
    unknown: `[U]`, images of other groups.
  """

  gallery: np.ndarray
  known: np.ndarray
  labels: np.ndarray
  unknown: np.ndarray


def uncertainty_rows(context: Context) -> dict[str, Rows]:
  """The sections "variance", "membership" and "reliability".

  Args:
    context: context of the evaluation.

  Returns:
    Rows of every grouped factor: see `variance_rows` and `membership_rows`.
  """
  found = {'variance': [], 'membership': [], 'reliability': []}
  if not len(context.scored):
    return found
  rows = np.arange(len(label_sets.first_groups(context.scored)))
  encoded = context.encoded('trained', {context.split: rows})
  for factor in encoded.model.grouped:
    groups = _groups(context, factor, rows)
    found['variance'] += variance_rows(encoded, factor, groups)
    membership, reliability = membership_rows(encoded, factor, groups)
    found['membership'] += membership
    found['reliability'] += reliability
  return found


def variance_rows(encoded: Encoded, factor: Factor, groups: _Groups) -> Rows:
  """The variance of a factor's code, by the number of images of evidence.

  Args:
    encoded: codes of the model.
    factor: one of its grouped factors.
    groups: images by its grouping.

  Returns:
    A row per number k in `EVIDENCE_SIZES` of "variance", averaged over
    dimensions and sets, its "standard_error" over sets, and the number of
    "sets". The sets are the same for every k, which takes their first k images;
    their size is the largest k for which a group is large enough.
  """
  largest = int(np.max(np.diff(groups.offsets), initial=0))
  ks = [k for k in EVIDENCE_SIZES if k <= largest]
  if not ks:
    return []
  sets = calibration.nested_sets(groups.offsets, ks[-1], _MAX_SETS, _SEED)
  found = []
  for k in ks:
    q = _combine(encoded, factor, groups, sets[:, :k])
    variance = _variance(q)
    found.append({
        'code': factor.name, 'k': k, 'variance': float(variance.mean()),
        'standard_error': standard_error(variance), 'sets': len(sets)})
  return found


def membership_rows(encoded: Encoded, factor: Factor, groups: _Groups
                    ) -> tuple[Rows, Rows]:
  """Probabilities of membership, and the detection of unknown groups.

  Args:
    encoded: codes of the model.
    factor: one of its grouped factors.
    groups: images by its grouping.

  Returns:
    Rows of "membership", one per number of shots, and of "reliability", one
    per bin of the probability of the most probable group. None where fewer
    than four groups have enough images. "confidence_auc" is how often an
    image that is assigned to a wrong group has a lower probability than one
    assigned correctly, "variance_auc" how often its code has a larger
    variance; None if all are one or the other.
  """
  membership, reliability = [], []
  for shots in _SHOTS:
    episodes = list(_episodes(groups.offsets, shots))
    if not episodes:
      continue
    found, accuracy, auc, labels, variance = [], [], [], [], []
    q_groups = _combine(encoded, factor, groups, np.concatenate(
        [episode.gallery for episode in episodes]))
    ways = len(episodes[0].gallery)
    for i, episode in enumerate(episodes):
      # Each of the images asked about is a set of its own.
      asked = [_combine(encoded, factor, groups, places[:, None])
               for places in (episode.known, episode.unknown)]
      known, unknown = (membership_scores(
          q, q_groups.take(slice(i * ways, (i + 1) * ways)),
          includes_prior=encoded.model.group_posterior.includes_prior)
                        for q in asked)
      found.append(calibration.membership_probabilities(known))
      labels.append(episode.labels)
      variance.append(_variance(asked[0]))
      accuracy.append(np.mean(known.argmax(axis=1) == episode.labels))
      auc.append(calibration.unknown_auc(*map(
          calibration.evidence_of_known, (known, unknown))))
    found, labels, variance = map(np.concatenate, (found, labels, variance))
    is_wrong = found.argmax(axis=1) != labels
    result = calibration.reliability(found, labels, _NUM_BINS)
    membership.append({
        'code': factor.name, 'shots': shots, 'ways': ways,
        'accuracy': float(np.mean(accuracy)),
        'accuracy_error': standard_error(accuracy), 'chance': 1 / ways,
        'confidence': float(np.mean(found.max(axis=1))),
        'calibration_error': result.calibration_error,
        'log_loss': result.log_loss, 'unknown_auc': float(np.mean(auc)),
        'unknown_auc_error': standard_error(auc),
        'confidence_auc': _error_auc(-found.max(axis=1), is_wrong),
        'variance_auc': _error_auc(variance, is_wrong),
        'episodes': len(episodes), 'examples': len(labels), 'labels': ways})
    reliability += [
        {'code': factor.name, 'shots': shots, 'from': i / _NUM_BINS,
         'to': (i + 1) / _NUM_BINS, 'confidence': float(confidence),
         'accuracy': float(accuracy), 'count': int(count)}
        for i, (confidence, accuracy, count) in enumerate(zip(
            result.confidence, result.accuracy, result.count)) if count]
  return membership, reliability


def _groups(context: Context, factor: Factor, rows: np.ndarray) -> _Groups:
  """The images of the split whose group is known, sorted by group."""
  ids = context.scored.labels_of(factor.grouping).ids[rows]
  rows = rows[np.argsort(ids, kind='stable')][np.sum(ids < 0):]
  return _Groups(context.split, rows, offsets_of(
      np.bincount(ids[ids >= 0], minlength=1)))


def _episodes(offsets: np.ndarray, shots: int) -> Iterator[_Episode]:
  """Random trials with half of the groups known, and half of them unknown."""
  sizes = np.diff(offsets)
  able = np.flatnonzero(sizes > shots)  # One image more, to be assigned.
  ways = min(_MAX_WAYS, len(able) // 2)
  if ways < 2:
    return
  rng = np.random.default_rng([_SEED, shots])
  for _ in range(_NUM_EPISODES):
    groups = rng.permutation(able)[:2 * ways]
    places, group, rank = draw_rows(
        rng, offsets[groups], sizes[groups], shots + _MAX_QUERIES)
    is_query, is_known = rank >= shots, group < ways
    yield _Episode(
        places[~is_query & is_known].reshape(ways, shots),
        places[is_query & is_known], group[is_query & is_known],
        places[is_query & ~is_known])


def _combine(encoded: Encoded, factor: Factor, groups: _Groups,
             sets: np.ndarray) -> Normal:
  """The posteriors of sets `[S, k]`, as NumPy arrays."""
  num_sets, k = sets.shape
  q = encoded.together(
      groups.split, factor.name, groups.rows[sets.ravel()],
      np.repeat(np.arange(num_sets), k), num_sets)
  return Normal(*map(np.asarray, q))


def _variance(q: Normal) -> np.ndarray:
  """Variances `[N]`, averaged over dimensions."""
  return np.exp(np.asarray(q.logvar, np.float64)).mean(axis=1)


def _error_auc(doubt: np.ndarray, is_wrong: np.ndarray) -> float | None:
  """How often a wrong row has the larger doubt; None without both kinds."""
  if is_wrong.all() or not is_wrong.any():
    return None
  return verify(doubt, is_wrong).auc
