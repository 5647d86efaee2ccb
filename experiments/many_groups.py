"""Measures what a million groups cost in start-up time, memory and per batch.

  python -m experiments.many_groups --groups=1000,1000000 --rows=10000000

The data are synthetic: rows of four pixels, in random groups. There are three
parts: batches by one grouping, batches by two groupings, and training with
tables of free posteriors (SVI), of ten dimensions for every group and every
row. Each part and number of groups is measured in a process of its own, whose
peak memory is reported.
"""

from experiments import cli
from experiments.benchmarks import many_groups

if __name__ == '__main__':
  many_groups.define_flags()
  cli.run(many_groups.main)
