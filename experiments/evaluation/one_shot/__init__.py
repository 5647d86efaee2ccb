"""Lake's one-shot runs: classification among characters of one alphabet."""

from experiments.evaluation.one_shot import rows, tables
from experiments.evaluation.section import Section

SECTION = Section(
    name='one_shot',
    keys=('one_shot_runs',),
    rows=rows.one_shot_rows,
    tables=tables.report,
    summary=tables.summary,
    key_numbers=tables.key_numbers,
)
