"""MIG and DCI, scores of single dimensions."""

from experiments.evaluation.disentanglement import rows, tables
from experiments.evaluation.section import Section

SECTION = Section(
    name='disentanglement',
    rows=rows.disentanglement_rows,
    tables=tables.report,
)
