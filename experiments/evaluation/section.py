"""Definition of a section of the evaluation: its numbers and their display.

Every section is a folder next to this file. Its `rows.py` measures for
evaluation.json; its `tables.py` shows the numbers in the report and in the
terminal; its `chart.py` draws them. Its `__init__.py` combines these in one
`SECTION`, which `registry.py` lists.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any, NamedTuple

from experiments.evaluation.context import Context
from mlvae_jax.model.model import Model

Evaluation = Mapping[str, Any]  # The contents of evaluation.json.
Pairs = list[tuple[str, str]]


class Results(NamedTuple):
  """The results of a run that the report shows.

  Attributes:
    workdir: folder of the run.
    model: model of the run, whose factors' rows are bold.
    evaluation: content of evaluation.json; {} if there is none.
    figures: HTML of each figure that was drawn, by name.
  """

  workdir: str
  model: Model
  evaluation: Evaluation
  figures: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Section:
  """A section of the evaluation.

  Attributes:
    name: name of its folder.
    rows: function that measures; returns entries of evaluation.json by key, {}
      if the section does not apply to the run.
    keys: keys that `rows` may return; only the name by default.
    tables: function that returns HTML for the report, '' if nothing was
      measured. Without it, the report shows the rows in a plain table.
    summary: function that returns lines of at most 79 characters for the
      terminal. Its second argument is the maximum length of a code's name, 24
      to 36.
    key_numbers: function that returns the names and values of the numbers to
      look at first.
    charts: names of functions in its `chart.py` by name of the figure. Each
      draws from an evaluation and the model, or returns None. They are given
      by name because matplotlib is slow to import.
    shown_last: whether the report shows it after all sections without this.
  """

  name: str
  rows: Callable[[Context], dict[str, Any]]
  keys: tuple[str, ...] = ()
  tables: Callable[[Results], str] | None = None
  summary: Callable[[Evaluation, int], list[str]] = lambda *_: []
  key_numbers: Callable[[Results], Pairs] = lambda _: []
  charts: Mapping[str, str] = dataclasses.field(default_factory=dict)
  shown_last: bool = False

  def __post_init__(self):
    if not self.keys:
      object.__setattr__(self, 'keys', (self.name,))  # The class is frozen.
