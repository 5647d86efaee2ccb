"""What a section of the evaluation is: its numbers, and how they are shown.

A section is a folder here. Its `rows.py` measures, for evaluation.json; its
`tables.py` shows the numbers in the report and in the terminal; its `chart.py`
draws them. Its `__init__.py` says so in one `SECTION`, which `registry.py`
lists.
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
  """What the report has of a run.

  Attributes:
    workdir: Folder of the run.
    model: Its model, whose factors' rows are bold.
    evaluation: Contents of evaluation.json; {} where there is none.
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
    name: Name of its folder.
    rows: What it measures: entries of evaluation.json by key; {} where it
      does not apply to the run.
    keys: The keys that `rows` may give; the name alone by default.
    tables: HTML for the report; '' where nothing was measured. Without it,
      the report shows the rows in a plain table.
    summary: Lines of at most 79 characters for the terminal. It is given how
      many characters a code's name may have, 24 to 36.
    key_numbers: Names and values to look at first.
    charts: By name of the figure, the name of the function in its `chart.py`
      that draws it from an evaluation and the model, or gives None. It is
      imported to be called: matplotlib is slow to import.
    shown_last: Whether the report shows it after the sections that are not.
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
      object.__setattr__(self, 'keys', (self.name,))
