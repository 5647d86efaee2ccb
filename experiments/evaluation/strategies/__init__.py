"""The two strategies of encoding, compared."""

from experiments.evaluation.section import Section
from experiments.evaluation.strategies import rows, tables

SECTION = Section(
    name='strategies',
    rows=rows.strategy_rows,
    tables=tables.report,
    shown_last=True,
)
