"""Recognition of groups never seen in training."""

from experiments.evaluation.recognition import chart, rows, tables
from experiments.evaluation.section import Section

SECTION = Section(
    name='recognition',
    keys=('verification', 'few_shot'),
    rows=rows.recognition_rows,
    tables=tables.report,
    summary=tables.summary,
    key_numbers=tables.key_numbers,
    charts={'recognition': chart.draw_recognition},
)
