"""Rows of "probes": scores of classifiers that predict labels from codes.

The labels of the first grouping are predicted from the codes of its factors,
of the ungrouped factors and of controls; the labels of another grouping from
the factors grouped by it. The section "factors" has every code and label.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.evaluation.codes import accumulated
from experiments.evaluation.context import Context, ProbeSettings
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
  """Probes of the labels of the first grouping, and of other groupings.

  Args:
    context: context of the evaluation.

  Returns:
    Rows of "code", "label", "strategy", "source", "k", "accuracy",
    "conditional_entropy" (nats) and "chance", with the numbers of "examples"
    and "labels" behind them.
  """
  first = context.first_labels
  # Without a label of k images there is no set of k images to score.
  ks = tuple(k for k in context.ks if k <= first.max_evidence)
  rows = list(run_probes(
      first, first_codes(context.codes([first]), context.images,
                         first.grouping, ks), context.probe))
  if context.all_labels:
    others = [labels for labels in context.all_labels
              if labels.grouping != first.grouping]
    rows += further_probes(
        context.codes(context.all_labels), others, context.ks,
        context.probe)
  return {'probes': rows}


def first_codes(codes: Mapping[str, Encoded], images: Mapping[str, np.ndarray],
                grouping: str, ks: tuple[int, ...]) -> Iterator[Code]:
  """The codes from which labels of the first grouping are predicted.

  Args:
    codes: posteriors of 'trained', 'untrained' and perhaps 'vae'.
    images: images by split.
    grouping: name of the first grouping.
    ks: numbers of images of evidence.

  Yields:
    The codes of factors, except those of another grouping, and of controls.
  """
  more = tuple(k for k in ks if k > 1)
  grouped = codes['trained'].model.grouped
  for factor in codes['trained'].factors:
    # A VAE's code is accumulated as if it were grouped (paper, section 4).
    accumulates = factor.grouping == grouping or not grouped
    if factor.grouping is not None and not accumulates:
      continue
    # The code of an ungrouped factor does not depend on k: its result for one
    # image stands for all k.
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
                   settings: ProbeSettings) -> Iterator[dict[str, Any]]:
  """Rows of "probes" for the factors of groupings after the first.

  Args:
    codes: posteriors of 'trained' and 'untrained'.
    groupings: labels of the groupings after the first.
    ks: numbers of images of evidence.
    settings: steps and hidden layers of each probe.

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
      yield from run_probes(chosen, todo, settings)


def by_label(evaluation: Mapping[str, Any]) -> dict[str | None, Rows]:
  """The rows of "probes" by label; None for rows that do not name one."""
  labels = {}  # An older version had a single label, and did not name it.
  for row in evaluation.get('probes') or []:
    labels.setdefault(row.get('label'), []).append(row)
  return labels
