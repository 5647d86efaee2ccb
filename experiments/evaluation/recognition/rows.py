"""Recognition of groups never seen in training, for evaluation.json.

Verification: do two images show the same identity? Few-shot: which of 20
identities, of 5 or of all, does an image show, given a few images of each? The
protocol is Hosoya's: nearest neighbour by the cosine of means, with the images
of a gallery separate (strategy 1), or fused into one code by the product of
their Normals (strategy 2). An image is also assigned to the identity under
whose posterior, given the images of its gallery, it has the highest predictive
density. The images to be recognised are always encoded alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import math
from typing import Any

import numpy as np
import tqdm

from experiments.evaluation import label_sets
from experiments.evaluation.codes import untrained
from experiments.evaluation.context import Context
from experiments.evaluation.encoding import control_name, vectors
from experiments.evaluation.recognition.galleries import FEW_WAYS, KEY_SHOTS
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.grouping.posterior import GroupPosterior
from mlvae_jax.grouping.product import Product
from mlvae_jax.measures.few_shot import few_shot
from mlvae_jax.measures.membership import evidence_ratio
from mlvae_jax.measures.verification import (
    Pairs,
    cosine,
    verification_pairs,
    verify,
)

_SHOTS = (1, 2, 3, 5, 10)
_WAYS = 20
_NUM_EPISODES = 100
_NUM_EPISODES_OF_ALL = 10  # Each has hundreds of groups already.
_SEED = 0

Codes = Mapping[str, Normal | np.ndarray]
Posteriors = Mapping[str, GroupPosterior]  # By name of the code.
Rows = list[dict[str, Any]]


def recognition_rows(context: Context) -> dict[str, Rows]:
  """The sections "verification" and "few_shot".

  Args:
    context: context of the evaluation.

  Returns:
    Rows of both; {} if the groups were seen in training, or there are no
    images.
  """
  if context.data.shares_groups or not len(context.scored):
    return {}
  groups = label_sets.first_groups(context.scored)
  codes, posteriors = _codes(context, groups.x)
  return {
      'verification': verification_rows(codes, groups.offsets, posteriors),
      'few_shot': few_shot_rows(codes, groups.offsets, posteriors)}


def _codes(context: Context, images: np.ndarray) -> tuple[Codes, Posteriors]:
  """Codes of the first images of the split, each encoded alone, and controls.

  Returns:
    Codes by name, and how those of models are combined.
  """
  split, rows = context.split, np.arange(len(images))
  found = {
      name: context.encoded(name, {split: rows}).messages(split, rows)
      for name in context.models}
  codes = dict(found['trained'])
  codes |= {untrained(name): q
            for name, q in found.get('untrained', {}).items()}
  model, _ = context.models['trained']
  # Ungrouped codes are combined as if they were the evidence of a group.
  posteriors = {
      name: model.group_posterior if factor.grouping else Product()
      for factor in model.factors
      for name in (factor.name, untrained(factor.name))}
  if 'vae' in found:
    codes['vae'] = next(iter(found['vae'].values()))  # Its only factor.
    posteriors['vae'] = Product()
  flat = vectors(images)
  # Centred, or the cosine of any two images would be close to 1.
  return codes | {control_name(images): flat - flat.mean(axis=0)}, posteriors


def verification_rows(codes: Codes, offsets: np.ndarray,
                      posteriors: Posteriors) -> Rows:
  """ROC AUC and accuracy at equal error, per code and score.

  Args:
    codes: codes `[N, D]` of single images by name, sorted by group.
    offsets: offsets `[G + 1]` of the groups.
    posteriors: how the codes of models are combined.

  Returns:
    Rows of the section "verification"; none if no group has two images.
  """
  pairs = verification_pairs(offsets, seed=_SEED)
  if pairs.same.all() or not pairs.same.any():
    return []
  rows = []
  for name, code in codes.items():
    scores = _scores(code, pairs, posteriors.get(name, Product()))
    for score, values in scores.items():
      found = verify(values, pairs.same)
      rows.append({
          'code': name, 'strategy': 1, 'score': score, **found._asdict(),
          'examples': int(offsets[-1]), 'labels': len(offsets) - 1})
  return rows


def few_shot_rows(codes: Codes, offsets: np.ndarray, posteriors: Posteriors
                  ) -> Rows:
  """Accuracy per code, ways, shots, fusion and score.

  Args:
    codes: codes as in `verification_rows`.
    offsets: offsets `[G + 1]` of the groups.
    posteriors: how the codes of models are combined.

  Returns:
    Rows of the section "few_shot", for every number of shots for which at
    least two groups have enough images; `ways` is 20, if there are more
    groups, and the number of all these groups; for 1 and 5 shots also 5.
  """
  sizes = np.diff(offsets)
  todo = list(_settings(sizes))
  rows = []
  for ways, shots in tqdm.tqdm(
      todo, desc='few shots', unit='setting', dynamic_ncols=True):
    for name, code in codes.items():
      posterior = posteriors.get(name)
      for fuse, score in _ways_to_score(
          ways, shots, sizes, by_posterior=posterior is not None
          and not name.startswith(untrained(''))):
        found = few_shot(
            code, offsets, ways=ways, shots=shots, fuse=fuse, score=score,
            group_posterior=posterior or Product(),
            num_episodes=_NUM_EPISODES if ways else _NUM_EPISODES_OF_ALL,
            seed=_SEED)
        fused = fuse and shots > 1
        rows.append({
            'code': name, 'strategy': 2 if fused else 1, 'ways': found.ways,
            'shots': shots, 'fused': fused, 'score': score,
            'accuracy': found.accuracy, 'chance': found.chance,
            'standard_error': found.standard_error, 'margin': found.margin,
            'examples': int(sizes[sizes > shots].sum()), 'labels': found.ways})
  return rows


def _ways_to_score(ways: int | None, shots: int, sizes: np.ndarray,
                   by_posterior: bool) -> Iterator[tuple[bool, str]]:
  """Whether galleries are fused, and the score; for each row of a setting."""
  yield False, 'cosine'
  if shots > 1:  # A single shot is the same, fused or not.
    yield True, 'cosine'
  # Among hundreds of groups it would take minutes.
  if by_posterior and shots in KEY_SHOTS and (
      ways or np.sum(sizes > shots) <= _WAYS):
    yield True, 'posterior'


def _settings(sizes: np.ndarray) -> Iterator[tuple[int | None, int]]:
  """Ways (None for all groups) and shots of each setting."""
  for shots in _SHOTS:
    count = int(np.sum(sizes > shots))  # One image more, to be recognised.
    if count > FEW_WAYS and shots in KEY_SHOTS:
      yield FEW_WAYS, shots
    if count > _WAYS:
      yield _WAYS, shots
    if 2 <= count <= 2000:
      yield None, shots


def _scores(code: Normal | np.ndarray, pairs: Pairs,
            posterior: GroupPosterior) -> dict[str, np.ndarray]:
  """The values of every pair by score; higher means the same group."""
  first, second = pairs.first, pairs.second
  if not isinstance(code, Normal):
    return {'cosine': cosine(code[first], code[second])}
  q = Normal(*map(np.asarray, posterior.alone(code)))
  q_first, q_second = q.take(first), q.take(second)
  return {
      'cosine': cosine(q_first.mean, q_second.mean),
      'evidence_ratio': evidence_ratio(
          q_first, q_second, includes_prior=posterior.includes_prior)}


def by_score(rows: Rows | None, key: str) -> dict[tuple[str, str], float]:
  """One number of each row of "verification", as {(code, score): value}.

  Args:
    rows: rows of the section; None if there is none.
    key: key of the number.

  Returns:
    The numbers that are neither None nor NaN.
  """
  return {(row['code'], row['score']): row[key]
          for row in rows or [] if is_number(row[key])}


def is_number(value: float | None) -> bool:
  """Whether a value is neither None nor NaN."""
  return value is not None and not math.isnan(value)
