"""Label accuracy by code: the section "factors" of evaluation.json.

Where a data set has several groupings, a classifier reads the labels of each
off the code of each factor, every image encoded alone (strategy 1). A factor
should predict the label that it is grouped by, and no other; an ungrouped one
should predict none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.evaluation import label_sets
from experiments.evaluation.encoding import Encoded
from experiments.evaluation.label_sets import Labelled
from experiments.evaluation.probe_rows import (
    control_codes,
    factor_codes,
    run_probes,
)


def factor_rows(codes: Mapping[str, Encoded],
                images: Mapping[str, np.ndarray],
                groupings: Sequence[Labelled], num_steps: int
                ) -> list[dict[str, Any]]:
  """Probes the code of every factor, and controls, for every grouping.

  Args:
    codes: 'trained', 'untrained' and perhaps 'vae'.
    images: by split, for the control of pixels.
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


def further_probes(codes: Mapping[str, Encoded],
                   groupings: Sequence[Labelled], ks: tuple[int, ...],
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


def rows_to_encode(groupings: Sequence[Labelled]) -> dict[str, np.ndarray]:
  """By split, the rows that any part has: sorted, each once."""
  found = {split: [np.zeros(0, np.int64)] for split in label_sets.SPLITS}
  for chosen in groupings:
    for part in chosen.parts:
      found[part.split].append(part.rows)
  return {split: np.unique(np.concatenate(rows))
          for split, rows in found.items()}
