"""The labels that each code predicts, for data with several groupings."""

from experiments.evaluation.factors import rows, tables
from experiments.evaluation.section import Section

SECTION = Section(
    name='factors',
    rows=rows.factor_rows,
    tables=tables.report,
    summary=tables.summary,
    charts={'factors': 'draw_factors'},
)
