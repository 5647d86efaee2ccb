"""The ELBO of each split."""

from experiments.evaluation.elbo import rows, tables
from experiments.evaluation.section import Section

SECTION = Section(
    name='elbo',
    rows=rows.elbo_rows,
    tables=tables.report,
    summary=tables.summary,
    key_numbers=tables.key_numbers,
)
