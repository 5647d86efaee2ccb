"""Probes: classifiers that predict labels from codes.

For every k, the codes accumulate the evidence of k images of a label (strategy
1 for k = 1, otherwise strategy 2).
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent import futures
import os
from typing import Any, NamedTuple
import zlib

import numpy as np
import tqdm

from experiments.evaluation.codes import untrained
from experiments.evaluation.context import ProbeSettings
from experiments.evaluation.encoding import (
    Encoded,
    control_name,
    mean_vectors,
)
from experiments.evaluation.label_sets import LabelSet
from mlvae_jax.measures import probes
from mlvae_jax.measures.probes import Examples

_SEED = 0
# Of probes at a time: their matrices are too small for many cores.
_MAX_WORKERS = 4
SOURCES = ('mean', 'sample')

Features = Callable[[str, np.ndarray], np.ndarray]  # (split, rows [M, k])


class Code(NamedTuple):
  """A code from which probes predict labels.

  Attributes:
    name: name in evaluation.json.
    source: 'mean' or 'sample'.
    features: function from a split and rows `[M, k]` of it to codes `[M, D]`.
    ks: numbers of images of evidence to accumulate.
    repeat_ks: further numbers for which the first result is repeated, because
      the code does not depend on k.
  """

  name: str
  source: str
  features: Features
  ks: tuple[int, ...]
  repeat_ks: tuple[int, ...] = ()


def factor_codes(codes: Mapping[str, Encoded], factor: str,
                 ks: tuple[int, ...], repeat_ks: tuple[int, ...] = ()
                 ) -> Iterator[Code]:
  """The code of a factor, and its mean from an untrained encoder."""
  for source in SOURCES:
    yield Code(factor, source, code_features(codes['trained'], factor, source),
               ks, repeat_ks)
  if 'untrained' in codes:
    yield Code(
        untrained(factor), 'mean',
        code_features(codes['untrained'], factor, 'mean'), ks, repeat_ks)


def control_codes(codes: Mapping[str, Encoded],
                  images: Mapping[str, np.ndarray], ks: tuple[int, ...]
                  ) -> Iterator[Code]:
  """The codes of a VAE, if there is one, and the observations."""
  if 'vae' in codes:
    for factor in codes['vae'].factors:
      for source in SOURCES:
        yield Code('vae', source,
                   code_features(codes['vae'], factor.name, source), ks)
  yield Code(
      control_name(images['train']), 'mean',
      lambda split, rows: mean_vectors(images[split], rows), ks)


def code_features(encoded: Encoded, factor: str, source: str) -> Features:
  """The function that computes codes `[M, D]` of M sets of k images."""

  def features(split, rows):
    num_sets, k = rows.shape
    q = encoded.together(split, factor, rows.ravel(),
                         np.repeat(np.arange(num_sets), k), num_sets,
                         drawn=source == 'sample')
    if source == 'mean':
      return np.asarray(q.mean)
    # One sample per set. The rows are the seed: scores can be repeated, and no
    # part of a probe's examples has the noise of another. Not by JAX, which
    # would compile for every number of sets.
    noise = np.random.default_rng([_SEED, zlib.crc32(rows.tobytes())])
    noise = noise.standard_normal(q.mean.shape, np.float32)
    return q.mean + np.exp(0.5 * np.asarray(q.logvar)) * noise

  return features


def run_probes(chosen: LabelSet, codes: Iterable[Code], settings: ProbeSettings
               ) -> Iterator[dict[str, Any]]:
  """Probes every code for every k.

  Args:
    chosen: labels to predict, with their images.
    codes: codes from which to predict them.
    settings: steps and hidden layers of each probe.

  Yields:
    Rows of "probes" in evaluation.json; none for a k for which no label has
    enough images.
  """
  todo = [(code, k) for code in codes for k in code.ks]
  workers = min(os.cpu_count() or 1, _MAX_WORKERS)
  bar = tqdm.tqdm(total=len(todo), desc=f'probes of {chosen.grouping}',
                  unit='probe', dynamic_ncols=True)
  with bar, futures.ThreadPoolExecutor(workers) as pool:
    waiting = collections.deque()
    try:
      for code, k in todo:
        # Few codes at a time are in memory.
        while len(waiting) > workers:
          yield from _finished(*waiting.popleft(), chosen, bar)
        examples = _examples(chosen, k, code.features)
        waiting.append((code, k, examples and pool.submit(
            _probe, examples, chosen.num_classes, settings)))
      while waiting:
        yield from _finished(*waiting.popleft(), chosen, bar)
    finally:
      pool.shutdown(wait=False, cancel_futures=True)


def _finished(code: Code, k: int, score: futures.Future | None,
              chosen: LabelSet, bar: tqdm.tqdm) -> Iterator[dict[str, Any]]:
  """The rows of a probe, once it has ended; none if there was none."""
  if score is not None:
    for any_k in (k, *code.repeat_ks):
      yield {
          'code': code.name, 'label': chosen.grouping,
          'strategy': 1 if any_k == 1 else 2, 'source': code.source,
          'k': any_k, **score.result()}
  bar.update()


def _examples(chosen: LabelSet, k: int, features: Features
              ) -> list[Examples] | None:
  """Codes of sets of k images; None if a part has no label with k images."""
  examples = []
  for number, part in enumerate(chosen.parts):
    rows, labels = part.windows(k, _SEED + number)
    if not len(rows):
      return None
    examples.append(Examples(features(part.split, rows), labels))
  return examples


def _probe(examples: list[Examples], num_classes: int, settings: ProbeSettings
           ) -> dict[str, float]:
  """The score of a probe, with its numbers of examples and labels."""
  score = probes.probe(
      *examples, num_classes=num_classes, seed=_SEED, **settings._asdict())
  labels = examples[-1].labels  # Of the part that is scored.
  return {**score._asdict(), 'examples': len(labels),
          'labels': len(np.unique(labels))}
