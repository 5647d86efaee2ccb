"""The label predicted from each code, for k images of evidence."""

from experiments.evaluation.probes import rows, tables
from experiments.evaluation.section import Section

SECTION = Section(
    name='probes',
    rows=rows.probe_rows,
    tables=tables.report,
    summary=tables.summary,
    key_numbers=tables.key_numbers,
    charts={'evidence': 'draw_evidence'},
)
