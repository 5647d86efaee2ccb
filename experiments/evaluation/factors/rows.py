"""Label accuracy by code: the section "factors" of evaluation.json.

If a data set has several groupings, classifiers predict the labels of each
from the code of each factor, with every image encoded alone (strategy 1). A
factor should predict the label by which it is grouped, and no label by which
another factor is grouped; an ungrouped factor should predict neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.evaluation.context import Context, ProbeSettings
from experiments.evaluation.encoding import Encoded
from experiments.evaluation.label_sets import LabelSet
from experiments.evaluation.probing import (
    control_codes,
    factor_codes,
    run_probes,
)

Rows = list[dict[str, Any]]


def factor_rows(context: Context) -> dict[str, Rows]:
  """The section "factors"; {} if the data have a single grouping."""
  labels = context.all_labels
  return {} if labels is None else {'factors': label_accuracy(
      context.codes(labels), context.images, labels, context.probe)}


def label_accuracy(codes: Mapping[str, Encoded],
                   images: Mapping[str, np.ndarray],
                   groupings: Sequence[LabelSet], settings: ProbeSettings
                   ) -> list[dict[str, Any]]:
  """Probes the code of every factor, and controls, for every grouping.

  Args:
    codes: posteriors of 'trained', 'untrained' and perhaps 'vae'.
    images: images by split, for the control of observations.
    groupings: labels to predict.
    settings: steps and hidden layers of each probe.

  Returns:
    Rows of "code", "label", "strategy" (1), "source", "accuracy",
    "conditional_entropy" (nats) and "chance", with the numbers of "examples"
    and "labels" behind them.
  """
  rows = []
  for chosen in groupings:
    todo = [code for factor in codes['trained'].factors
            for code in factor_codes(codes, factor.name, (1,))]
    todo += control_codes(codes, images, (1,))
    rows += run_probes(chosen, todo, settings)
  # k is always 1 here.
  return [{name: value for name, value in row.items() if name != 'k'}
          for row in rows]
