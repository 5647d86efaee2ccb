"""Recognition of groups never seen in training."""

from experiments.evaluation.recognition import rows, tables
from experiments.evaluation.section import Section

SECTION = Section(
    name='recognition',
    keys=('verification', 'few_shot'),
    rows=rows.recognition_rows,
    tables=tables.report,
    summary=tables.summary,
    key_numbers=tables.key_numbers,
    charts={'recognition': 'draw_recognition'},
)
