"""What classifiers predict from the codes: rows of "probes" of evaluation.json.

For every k, grouped factors accumulate the evidence of k images of a label
(strategy 1 for k = 1, else strategy 2). The first grouping's labels are
predicted from the codes of its own factors, of the ungrouped factors and of
the controls; a further grouping's labels from the factors grouped by it.
What any code says about any label is `factor_matrix.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import tqdm

from experiments.evaluation.encoding import Encoded, mean_pixels
from experiments.evaluation.label_sets import Labelled
from mlvae_jax.measures import probes
from mlvae_jax.measures.probes import Examples

_SEED = 0
_SOURCES = ('mean', 'sample')

Features = Callable[[str, np.ndarray], np.ndarray]  # (split, rows [M, k])


class Code(NamedTuple):
  """Something that a probe is to read.

  Attributes:
    name: as evaluation.json has it.
    source: 'mean' or 'sample'.
    features: of a split and rows `[M, k]` of it, codes `[M, D]`.
    ks: images of evidence to accumulate.
    repeat_ks: further k for which the first result stands, because the code
      does not depend on k.
  """

  name: str
  source: str
  features: Features
  ks: tuple[int, ...]
  repeat_ks: tuple[int, ...] = ()


def first_codes(codes: Mapping[str, Encoded], images: Mapping[str, np.ndarray],
                grouping: str, ks: tuple[int, ...]) -> Iterator[Code]:
  """What is probed for the labels of the first grouping.

  Args:
    codes: 'trained', 'untrained' and perhaps 'vae'.
    images: by split.
    grouping: the first grouping.
    ks: images of evidence.

  Yields:
    The factors, but those of another grouping, and the controls.
  """
  more = tuple(k for k in ks if k > 1)
  grouped = codes['trained'].model.grouped
  for factor in codes['trained'].factors:
    # A VAE's code is accumulated as if it were grouped (paper, section 4).
    accumulates = factor.grouping == grouping or not grouped
    if factor.grouping is not None and not accumulates:
      continue
    which = (ks, ()) if accumulates else ((1,), more)
    yield from factor_codes(codes, factor.name, *which)
    if not accumulates:
      for source in _SOURCES:
        yield Code(
            f'{factor.name}_accumulated', source,
            code_features(codes['trained'], factor.name, source), more)
  yield from control_codes(codes, images, ks)


def factor_codes(codes: Mapping[str, Encoded], factor: str,
                 ks: tuple[int, ...], repeat_ks: tuple[int, ...] = ()
                 ) -> Iterator[Code]:
  """A factor's code, and its mean where the encoder is untrained."""
  for source in _SOURCES:
    yield Code(factor, source, code_features(codes['trained'], factor, source),
               ks, repeat_ks)
  if 'untrained' in codes:
    yield Code(
        f'untrained_{factor}', 'mean',
        code_features(codes['untrained'], factor, 'mean'), ks, repeat_ks)


def control_codes(codes: Mapping[str, Encoded],
                  images: Mapping[str, np.ndarray], ks: tuple[int, ...]
                  ) -> Iterator[Code]:
  """The codes of a VAE, where there is one, and pixels."""
  if 'vae' in codes:
    for factor in codes['vae'].factors:
      for source in _SOURCES:
        yield Code('vae', source,
                   code_features(codes['vae'], factor.name, source), ks)
  yield Code(
      'pixels', 'mean',
      lambda split, rows: mean_pixels(images[split], rows), ks)


def code_features(encoded: Encoded, factor: str, source: str) -> Features:
  """Codes `[M, D]` of sets of images, each from the evidence of its k rows."""

  def features(split, rows):
    num_sets, k = rows.shape
    q = encoded.together(split, factor, rows.ravel(),
                         np.repeat(np.arange(num_sets), k), num_sets)
    return np.asarray(
        q.mean if source == 'mean' else q.sample(jax.random.key(_SEED)))

  return features


def run_probes(labelled: Labelled, codes: Iterable[Code], num_steps: int
               ) -> Iterator[dict[str, Any]]:
  """Probes every code for every k.

  Args:
    labelled: the labels to predict, and from which images.
    codes: from which codes.
    num_steps: optimisation steps of a probe.

  Yields:
    Rows of evaluation.json's "probes"; none for a k that no label has.
  """
  todo = [(code, k) for code in codes for k in code.ks]
  for code, k in tqdm.tqdm(
      todo, desc=f'probes of {labelled.grouping}', unit='probe',
      dynamic_ncols=True):
    score = _probe(labelled, k, code.features, num_steps)
    if score is not None:
      for any_k in (k, *code.repeat_ks):
        yield {
            'code': code.name, 'label': labelled.grouping,
            'strategy': 1 if any_k == 1 else 2, 'source': code.source,
            'k': any_k, **score}


def _probe(labelled: Labelled, k: int, features: Features, num_steps: int
           ) -> dict[str, float] | None:
  """Probes the codes of sets of k images.

  Gives the score, and of how many examples and labels it is. None where a
  part has no label of k images.
  """
  examples = []
  for number, part in enumerate(labelled.parts):
    rows, labels = part.windows(k, _SEED + number)
    if not len(rows):
      return None
    examples.append(Examples(features(part.split, rows), labels))
  score = probes.probe(
      *examples, num_classes=labelled.num_classes, seed=_SEED,
      num_steps=num_steps)
  return {**score._asdict(), 'examples': len(labels),
          'labels': len(np.unique(labels))}
