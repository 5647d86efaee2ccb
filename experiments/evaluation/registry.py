"""The sections of the evaluation, in the order of evaluation.json."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from experiments.evaluation import (
    disentanglement,
    elbo,
    factors,
    probes,
    recognition,
    strategies,
)
from experiments.evaluation.section import Evaluation
from mlvae_jax.model.model import Model

if TYPE_CHECKING:
  from experiments.pictures.sheets import Drawing

SECTIONS = (
    probes.SECTION,
    factors.SECTION,
    disentanglement.SECTION,
    strategies.SECTION,
    recognition.SECTION,
    elbo.SECTION,
)
# As the report shows them.
SHOWN = sorted(SECTIONS, key=lambda section: section.shown_last)

# The section of each chart, by the name of its figure.
CHARTS = {name: section for section in SECTIONS for name in section.charts}


def draw_chart(name: str, evaluation: Evaluation, model: Model
               ) -> Drawing | None:
  """Draws a chart.

  Args:
    name: name of the figure, in `CHARTS`.
    evaluation: the contents of evaluation.json.
    model: the run's model.

  Returns:
    The chart; None where the evaluation does not have its numbers.
  """
  section = CHARTS[name]
  chart = importlib.import_module(f'{__package__}.{section.name}.chart')
  return getattr(chart, section.charts[name])(evaluation, model)
