"""Label accuracy by code: the section "factors" of evaluation.json.

Where a data set has several groupings, a classifier reads the labels of each
off the code of each factor, every image encoded alone (strategy 1). A factor
should predict the label that it is grouped by, and no other; an ungrouped one
should predict none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.evaluation.context import Context
from experiments.evaluation.encoding import Encoded
from experiments.evaluation.label_sets import LabelSet
from experiments.evaluation.probing import (
    control_codes,
    factor_codes,
    run_probes,
)

Rows = list[dict[str, Any]]


def factor_rows(context: Context) -> dict[str, Rows]:
  """The section "factors"; {} where the data have a single grouping."""
  labels = context.all_labels
  return {} if labels is None else {'factors': label_accuracy(
      context.codes(labels), context.images, labels, context.probe_steps)}


def label_accuracy(codes: Mapping[str, Encoded],
                   images: Mapping[str, np.ndarray],
                   groupings: Sequence[LabelSet], num_steps: int
                   ) -> list[dict[str, Any]]:
  """Probes the code of every factor, and controls, for every grouping.

  Args:
    codes: 'trained', 'untrained' and perhaps 'vae'.
    images: images by split, for the control of pixels.
    groupings: the labels to predict.
    num_steps: optimisation steps of a probe.

  Returns:
    Rows of "code", "label", "strategy" (1), "source", "accuracy",
    "conditional_entropy" (nats) and "chance", and of how many "examples" and
    "labels".
  """
  rows = []
  for chosen in groupings:
    todo = [code for factor in codes['trained'].factors
            for code in factor_codes(codes, factor.name, (1,))]
    todo += control_codes(codes, images, (1,))
    rows += run_probes(chosen, todo, num_steps)
  return [{name: value for name, value in row.items() if name != 'k'}
          for row in rows]
