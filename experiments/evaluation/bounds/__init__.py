"""Lower bounds on the log likelihood of whole groups."""

from experiments.evaluation.bounds import rows, tables
from experiments.evaluation.section import Section

SECTION = Section(
    name='bounds',
    rows=rows.bound_rows,
    tables=tables.report,
    summary=tables.summary,
)
