"""Measures speed: training, accumulating evidence, loading; beside PyTorch.

  python -m experiments.benchmark --json=speed.json
  python -m experiments.benchmark --images=1024,4096 --dtypes=float32,bfloat16

Models are trained through the loop of `training.train`, and beside them the
same models in PyTorch (eager, see `torch_twin`) on the same batches. Images
are synthetic: uint8 noise of a seeded generator. Every figure is a median of
--repeats measurements; the two take turns, so that whatever else the machine
does slows both, and the ratio, above 1 where JAX is faster, is the median
over turns. On a GPU both use the same one, and round float32 alike. PyTorch
is optional: pip install torch.
"""

from experiments import cli
from experiments.benchmarks import speed

if __name__ == '__main__':
  speed.define_flags()
  cli.run(speed.main)
