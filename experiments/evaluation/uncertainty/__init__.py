"""How certain codes are: variance by evidence, calibration, unknown groups."""

from experiments.evaluation.section import Section
from experiments.evaluation.uncertainty import rows, tables

SECTION = Section(
    name='uncertainty',
    rows=rows.uncertainty_rows,
    keys=('variance', 'membership', 'reliability'),
    tables=tables.report,
    summary=tables.summary,
    charts={'uncertainty': 'draw_uncertainty'},
)
