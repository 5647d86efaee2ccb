"""The groups that an image most probably belongs to, among any number.

Scores are those of `measures.membership`: the predictive density of an image in
a group, relative to a new group. Probabilities are their softmax over the
groups, at a temperature that makes probabilities of the gallery's own images
right on average: each is scored against its group without itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tqdm

from experiments.encoding import evidence, files
from experiments.encoding.evidence import Evidence
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.grouping.posterior import GroupPosterior
from mlvae_jax.grouping.product import PriorProduct
from mlvae_jax.measures.membership import membership_scores

# Numbers scored at a time, so few that intermediate results stay in a cache.
_GROUPS, _QUERIES = 2048, 16
_TEMPERATURES = np.geomspace(0.25, 64.0, 17)
# Numbers of images on which a temperature is chosen, and of scores for that.
_MIN_IMAGES, _MAX_IMAGES, _MAX_SCORES = 20, 500, 20_000_000
_SEED = 0


class Gallery(NamedTuple):
  """Groups of which some images are known.

  Attributes:
    posterior: kind of group posterior.
    evidence: evidence about the groups.
    q: Normal of `[G, D]`, the groups' posteriors.
  """

  posterior: GroupPosterior
  evidence: Evidence
  q: Normal


class Nearest(NamedTuple):
  """The most probable groups of Q images.

  Attributes:
    groups: `[Q, k]` ints, the groups, the most probable first.
    probabilities: `[Q, k]`, their probabilities if the image is of one of the
      groups of the gallery.
    known: `[Q]`, evidence in nats that it is of one of them rather than of a
      new group, see `calibration.evidence_of_known`; not calibrated.
  """

  groups: np.ndarray
  probabilities: np.ndarray
  known: np.ndarray


class Calibration(NamedTuple):
  """How probabilities are made right.

  Attributes:
    temperature: by which scores are divided.
    num_images: number of images on which it was chosen; 0 if there were too
      few, and it is 1.
    accuracy: fraction of these of which the most probable group is right.
  """

  temperature: float = 1.0
  num_images: int = 0
  accuracy: float = 0.0


def make_gallery(posterior: GroupPosterior, found: Evidence) -> Gallery:
  """A gallery of groups, from the evidence about them."""
  return Gallery(posterior, found, evidence.to_normal(posterior, found))


def nearest(q: Normal, gallery: Gallery, k: int, temperature: float = 1.0
            ) -> Nearest:
  """Finds the groups that images most probably belong to.

  Args:
    q: Normal of `[Q, D]`, posteriors of images alone.
    gallery: groups to choose from.
    k: number of groups to find; all if there are fewer.
    temperature: by which scores are divided.

  Returns:
    The groups.
  """
  num_groups = len(gallery.evidence.names)
  k = min(k, num_groups)
  parts = []
  for block in _blocks(len(q.mean), 'comparing'):
    rows = q.take(block)
    size = len(rows.mean)
    best, groups = np.full((size, 0), -np.inf), np.zeros((size, 0), int)
    total = known = np.full(size, -np.inf)
    for first, scores in _scores(rows, gallery):
      known = np.logaddexp(known, _log_sum(scores))
      scores = scores / temperature
      total = np.logaddexp(total, _log_sum(scores))
      if best.shape[1] == k and not np.any(scores > best[:, -1:]):
        continue  # As in most blocks of many.
      best = np.concatenate([best, scores], axis=1)
      groups = np.concatenate([groups, np.broadcast_to(
          np.arange(first, first + scores.shape[1]), scores.shape)], axis=1)
      order = np.argsort(-best, axis=1, kind='stable')[:, :k]
      best, groups = (np.take_along_axis(value, order, axis=1)
                      for value in (best, groups))
    parts.append(Nearest(groups, np.exp(best - total[:, None]),
                         known - np.log(num_groups)))
  return Nearest(*map(np.concatenate, zip(*parts)))


def calibrate(gallery: Gallery, q: Normal, groups: np.ndarray) -> Calibration:
  """Chooses the temperature with the smallest log loss.

  Args:
    gallery: groups to choose from.
    q: Normal of `[N, D]`, posteriors of images of the gallery alone.
    groups: `[N]` ints, the groups that they are evidence about.

  Returns:
    The temperature.
  """
  # Nothing would be left of a group of one image.
  several = np.flatnonzero(gallery.evidence.count[groups] > 1)
  limit = min(_MAX_IMAGES, max(
      _MIN_IMAGES, _MAX_SCORES // len(gallery.evidence.names)))
  chosen = np.random.default_rng(_SEED).permutation(several)[:limit]
  if len(chosen) < _MIN_IMAGES:
    return Calibration()
  q, groups = q.take(chosen), groups[chosen]
  own = _without_itself(gallery, q, groups)
  total = np.empty((len(q.mean), len(_TEMPERATURES)))
  others = np.empty(len(q.mean))
  for rows in _blocks(len(q.mean), 'calibrating'):
    # The group itself, without the image.
    total[rows] = own[rows, None] / _TEMPERATURES
    others[rows] = -np.inf
    for first, scores in _scores(q.take(rows), gallery):
      inside = np.flatnonzero(
          (groups[rows] >= first) & (groups[rows] < first + scores.shape[1]))
      scores[inside, groups[rows][inside] - first] = -np.inf
      others[rows] = np.maximum(others[rows], scores.max(axis=1))
      total[rows] = np.logaddexp(total[rows], np.stack(
          [_log_sum(scores / t) for t in _TEMPERATURES], axis=1))
  loss = np.mean(total - own[:, None] / _TEMPERATURES, axis=0)
  return Calibration(float(_TEMPERATURES[np.argmin(loss)]), len(chosen),
                     float(np.mean(own > others)))


def read_images(path: str, factor: str, grouping: str,
                names: Sequence[str]) -> tuple[Normal, np.ndarray]:
  """Reads codes of images from a table, and their groups.

  Args:
    path: path of the table of images.
    factor: name of the factor.
    grouping: name of the column of its groups.
    names: names of the groups, sorted.

  Returns:
    Normal of `[N, D]`, and `[N]` ints; up to some thousand random images that
    have a group.
  """
  rng, place = np.random.default_rng(_SEED), {
      name: i for i, name in enumerate(names)}
  parts = []
  for block in files.read_table(path):
    groups = np.fromiter((place.get(str(name), -1) for name in (
        block[grouping]())), int)
    rows = np.sort(rng.permutation(np.flatnonzero(groups >= 0))[
        :8 * _MAX_IMAGES])
    parts.append((block[f'{factor}_mean']()[rows],
                  np.log(block[f'{factor}_variance']()[rows]), groups[rows]))
    if sum(len(part[2]) for part in parts) > 64 * _MAX_IMAGES:
      parts = [_some(rng, parts)]
  mean, logvar, groups = _some(rng, parts)
  return Normal(mean, logvar), groups


def _some(rng: np.random.Generator, parts: list[tuple[np.ndarray, ...]]
          ) -> tuple[np.ndarray, ...]:
  values = tuple(map(np.concatenate, zip(*parts)))
  rows = np.sort(rng.permutation(len(values[2]))[:8 * _MAX_IMAGES])
  return tuple(value[rows] for value in values)


def _blocks(size: int, what: str) -> Iterator[slice]:
  """Slices of some images, with progress unless they take no time."""
  with tqdm.tqdm(total=size, desc=what, unit='image', delay=1,
                 dynamic_ncols=True) as bar:
    for start in range(0, size, _QUERIES):
      yield slice(start, start + _QUERIES)
      bar.update(min(_QUERIES, size - start))


def _scores(q: Normal, gallery: Gallery
            ) -> Iterator[tuple[int, np.ndarray]]:
  """The first of some groups, and the scores of images in them `[Q, .]`."""
  for first in range(0, len(gallery.evidence.names), _GROUPS):
    yield first, membership_scores(
        q, gallery.q.take(slice(first, first + _GROUPS)),
        includes_prior=gallery.posterior.includes_prior)


def _without_itself(gallery: Gallery, q: Normal, groups: np.ndarray
                    ) -> np.ndarray:
  """The score of each image in its group without the image, `[N]`."""
  first, second = evidence.terms(
      gallery.posterior, _message(gallery.posterior, q))
  whole = gallery.evidence
  left = Evidence(
      tuple(whole.names[i] for i in groups),
      # Codes in tables are float32: what is left of a sum stays positive.
      np.maximum(whole.first[groups] - first, 1e-6 * whole.first[groups]),
      whole.second[groups] - second, whole.count[groups] - 1)
  known = evidence.to_normal(gallery.posterior, left)
  return np.array([
      membership_scores(
          q.take(slice(i, i + 1)), known.take(slice(i, i + 1)),
          includes_prior=gallery.posterior.includes_prior)[0, 0]
      for i in range(len(groups))])


def _message(posterior: GroupPosterior, q: Normal) -> Normal:
  """What the encoder gave of images, from their posteriors alone."""
  if not isinstance(posterior, PriorProduct):
    return q
  variance = np.exp(np.asarray(q.logvar, np.float64))
  precision = np.maximum(1.0 / variance - 1.0, 1e-6)
  return Normal(q.mean / variance / precision, -np.log(precision))


def _log_sum(scores: np.ndarray) -> np.ndarray:
  """Log of the sum of exp over the last axis; -inf of nothing but -inf."""
  highest = np.maximum(scores.max(axis=-1), -1e300)
  with np.errstate(divide='ignore'):
    return highest + np.log(np.exp(scores - highest[..., None]).sum(axis=-1))
