"""The sections of the evaluation, in the order of evaluation.json."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from experiments.evaluation import (
    bounds,
    disentanglement,
    elbo,
    factors,
    one_shot,
    probes,
    recognition,
    strategies,
    uncertainty,
)
from experiments.evaluation.section import Evaluation
from experiments.evaluation.wording import worded
from mlvae_jax.model.model import Model

if TYPE_CHECKING:
  from experiments.pictures.sheets import Drawing

SECTIONS = (
    probes.SECTION,
    factors.SECTION,
    disentanglement.SECTION,
    strategies.SECTION,
    recognition.SECTION,
    one_shot.SECTION,
    uncertainty.SECTION,
    elbo.SECTION,
    bounds.SECTION,
)
# In the order of the report; sorting is stable.
SHOWN = sorted(SECTIONS, key=lambda section: section.shown_last)

# The section of each chart, by the name of its figure.
CHARTS = {name: section for section in SECTIONS for name in section.charts}


def draw_chart(name: str, evaluation: Evaluation, model: Model
               ) -> Drawing | None:
  """Draws a chart.

  Args:
    name: name of the figure, in `CHARTS`.
    evaluation: content of evaluation.json.
    model: model of the run.

  Returns:
    The chart; None if the evaluation does not have its numbers.
  """
  section = CHARTS[name]
  # Imported only now, because matplotlib is slow to import.
  chart = importlib.import_module(f'{__package__}.{section.name}.chart')
  drawing = getattr(chart, section.charts[name])(evaluation, model)
  return drawing and drawing._replace(
      caption=worded(model, drawing.caption))
