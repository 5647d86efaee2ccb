"""What classifiers predict from the codes: rows of "probes".

The first grouping's labels are predicted from the codes of its own factors, of
the ungrouped factors and of the controls; a further grouping's labels from the
factors grouped by it. What any code says about any label is in the section
"factors".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.evaluation.codes import accumulated
from experiments.evaluation.context import Context
from experiments.evaluation.encoding import Encoded
from experiments.evaluation.label_sets import LabelSet
from experiments.evaluation.probing import (
    SOURCES,
    Code,
    code_features,
    control_codes,
    factor_codes,
    run_probes,
)

Rows = list[dict[str, Any]]


def probe_rows(context: Context) -> dict[str, Rows]:
  """Probes of the first grouping's labels, and of further ones.

  Args:
    context: what is evaluated.

  Returns:
    Rows of "code", "label", "strategy", "source", "k", "accuracy",
    "conditional_entropy" (nats) and "chance", and of how many "examples" and
    "labels".
  """
  first = context.first_labels
  # Where no label has k images there is nothing to say of k.
  ks = tuple(k for k in context.ks if k <= first.max_evidence)
  rows = list(run_probes(
      first, first_codes(context.codes([first]), context.images,
                         first.grouping, ks), context.probe_steps))
  if context.all_labels:
    others = [labels for labels in context.all_labels
              if labels.grouping != first.grouping]
    rows += further_probes(
        context.codes(context.all_labels), others, context.ks,
        context.probe_steps)
  return {'probes': rows}


def first_codes(codes: Mapping[str, Encoded], images: Mapping[str, np.ndarray],
                grouping: str, ks: tuple[int, ...]) -> Iterator[Code]:
  """What is probed for the labels of the first grouping.

  Args:
    codes: 'trained', 'untrained' and perhaps 'vae'.
    images: images by split.
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
      for source in SOURCES:
        yield Code(
            accumulated(factor.name), source,
            code_features(codes['trained'], factor.name, source), more)
  yield from control_codes(codes, images, ks)


def further_probes(codes: Mapping[str, Encoded],
                   groupings: Sequence[LabelSet], ks: tuple[int, ...],
                   num_steps: int) -> Iterator[dict[str, Any]]:
  """Rows of "probes" for the factors of groupings after the first.

  Args:
    codes: 'trained' and 'untrained'.
    groupings: those after the first.
    ks: images of evidence.
    num_steps: optimisation steps of a probe.

  Yields:
    Rows for the factors that are grouped by one of the groupings.
  """
  for chosen in groupings:
    fitting = tuple(k for k in ks if k <= chosen.max_evidence)
    todo = [
        code for factor in codes['trained'].factors
        if factor.grouping == chosen.grouping
        for code in factor_codes(codes, factor.name, fitting)]
    if todo:
      yield from run_probes(chosen, todo, num_steps)


def by_label(evaluation: Mapping[str, Any]) -> dict[str | None, Rows]:
  """The rows of "probes" by label; None where they do not name any."""
  labels = {}
  for row in evaluation.get('probes') or []:
    labels.setdefault(row.get('label'), []).append(row)
  return labels
