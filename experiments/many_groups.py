"""What a million groups cost: to start, in memory, and per batch.

  python -m experiments.many_groups --groups=1000,1000000 --rows=10000000

Synthetic: rows fall into groups at random, and have four pixels. Every number
of groups is measured in a process of its own, whose peak of memory is told;
so is each of three ways to go over the data: batches by one grouping, batches
by two groupings, and training with a table of free posteriors (SVI), ten
numbers for every group and for every row.
"""

from experiments import cli
from experiments.benchmarks import many_groups

if __name__ == '__main__':
  many_groups.define_flags()
  cli.run(many_groups.main)
