"""Recognition of groups never seen in training, for evaluation.json.

Verification: do two images show the same identity? Few-shot: which of 20
identities, or of all, does an image show, given a few images of each? The
protocol is Hosoya's: nearest neighbour by the cosine of means, with the images
of a gallery separate (strategy 1), or fused into one code by the product of
their Normals (strategy 2). The images to be recognised are always encoded
alone.
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
from mlvae_jax.grouping.normal import Normal
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
  codes = _codes(context, groups.x)
  return {'verification': verification_rows(codes, groups.offsets),
          'few_shot': few_shot_rows(codes, groups.offsets)}


def _codes(context: Context, images: np.ndarray) -> Codes:
  """Codes of the first images of the split, each encoded alone, and controls.
  """
  split, rows = context.split, np.arange(len(images))
  found = {
      name: context.encoded(name, {split: rows}).all_alone(split, rows)
      for name in context.models}
  codes = dict(found['trained'])
  codes |= {untrained(name): q
            for name, q in found.get('untrained', {}).items()}
  if 'vae' in found:
    codes['vae'] = next(iter(found['vae'].values()))  # Its only factor.
  flat = vectors(images)
  # Centred, or the cosine of any two images would be close to 1.
  return codes | {control_name(images): flat - flat.mean(axis=0)}


def verification_rows(codes: Codes, offsets: np.ndarray) -> Rows:
  """ROC AUC and accuracy at equal error, per code and score.

  Args:
    codes: codes `[N, D]` of single images by name, sorted by group.
    offsets: offsets `[G + 1]` of the groups.

  Returns:
    Rows of the section "verification"; none if no group has two images.
  """
  pairs = verification_pairs(offsets, seed=_SEED)
  if pairs.same.all() or not pairs.same.any():
    return []
  rows = []
  for name, code in codes.items():
    for score, values in _scores(code, pairs).items():
      found = verify(values, pairs.same)
      rows.append({
          'code': name, 'strategy': 1, 'score': score, **found._asdict(),
          'examples': int(offsets[-1]), 'labels': len(offsets) - 1})
  return rows


def few_shot_rows(codes: Codes, offsets: np.ndarray) -> Rows:
  """Accuracy of the nearest neighbour, per code, ways, shots and fusion.

  Args:
    codes: codes as in `verification_rows`.
    offsets: offsets `[G + 1]` of the groups.

  Returns:
    Rows of the section "few_shot", for every number of shots for which at
    least two groups have enough images; `ways` is 20, if there are more
    groups, and the number of all these groups.
  """
  sizes = np.diff(offsets)
  todo = list(_settings(sizes))
  rows = []
  for ways, shots in tqdm.tqdm(
      todo, desc='few shots', unit='setting', dynamic_ncols=True):
    for name, code in codes.items():
      # A single shot is the same, fused or not.
      for fuse in (False, True)[:1 if shots == 1 else 2]:
        found = few_shot(
            code, offsets, ways=ways, shots=shots, fuse=fuse,
            num_episodes=_NUM_EPISODES if ways else _NUM_EPISODES_OF_ALL,
            seed=_SEED)
        rows.append({
            'code': name, 'strategy': 2 if fuse else 1, 'ways': found.ways,
            'shots': shots, 'fused': fuse,
            'accuracy': found.accuracy, 'chance': found.chance,
            'standard_error': found.standard_error,
            'examples': int(sizes[sizes > shots].sum()), 'labels': found.ways})
  return rows


def _settings(sizes: np.ndarray) -> Iterator[tuple[int | None, int]]:
  """Ways (None for all groups) and shots of each setting."""
  for shots in _SHOTS:
    count = int(np.sum(sizes > shots))  # One image more, to be recognised.
    if count > _WAYS:
      yield _WAYS, shots
    if 2 <= count <= 2000:
      yield None, shots


def _scores(code: Normal | np.ndarray, pairs: Pairs
            ) -> dict[str, np.ndarray]:
  """The values of every pair by score; higher means the same group."""
  first, second = pairs.first, pairs.second
  if not isinstance(code, Normal):
    return {'cosine': cosine(code[first], code[second])}
  q_first, q_second = (
      Normal(*(value[rows] for value in code)) for rows in (first, second))
  return {
      'cosine': cosine(q_first.mean, q_second.mean),
      'evidence_ratio': evidence_ratio(q_first, q_second)}


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


def by_gallery(rows: Rows | None
               ) -> dict[tuple[str, bool, bool], dict[int, dict[str, Any]]]:
  """The rows of "few_shot", as {(code, many, fused): {shots: row}}.

  Args:
    rows: rows of the section; None if there is none.

  Returns:
    The rows; those of a code are sorted by many, then by fused. `many` is
    False for the smallest number of groups to choose from at a number of
    shots, and True for a larger one. A gallery of one image is the same fused
    or not, so its row is given for both.
  """
  rows = rows or []
  fewest = {}
  for row in rows:
    shots, ways = row['shots'], row['ways']
    fewest[shots] = min(ways, fewest.get(shots, ways))
  table = {}
  for row in rows:
    many = row['ways'] > fewest[row['shots']]
    table.setdefault((row['code'], many, row['fused']), {})[row['shots']] = row
  for (code, many, fused), found in table.items():
    alone = table.get((code, many, False), {}).get(1)
    if fused and alone:
      found.setdefault(1, alone)
  codes = list(dict.fromkeys(row['code'] for row in rows))
  return dict(sorted(
      table.items(), key=lambda item: (codes.index(item[0][0]), item[0])))


def ways_of(*galleries: dict[int, dict[str, Any]]) -> str:
  """The numbers of groups to choose from, as '20' or '12–20'."""
  ways = {row['ways'] for found in galleries for row in found.values()}
  return '–'.join(map(str, sorted({min(ways), max(ways)})))


def is_number(value: float | None) -> bool:
  """Whether a value is neither None nor NaN."""
  return value is not None and not math.isnan(value)
