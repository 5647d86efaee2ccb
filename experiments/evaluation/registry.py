"""The sections of the evaluation, in the order of evaluation.json."""

from __future__ import annotations

from experiments.evaluation import (
    disentanglement,
    elbo,
    factors,
    probes,
    recognition,
    strategies,
)

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

# What draws each chart, by the name of its figure.
CHARTS = {name: draw for section in SECTIONS
          for name, draw in section.charts.items()}
