"""Measures the speed of training, of evidence and of loading, against PyTorch.

  python -m experiments.benchmark --json=speed.json
  python -m experiments.benchmark --images=1024,4096 --dtypes=float32,bfloat16

Models are trained by the same loop as in `experiments.train`, and for
comparison the same models in PyTorch (eager, see `torch_twin`) on the same
batches. Images are synthetic: uint8 noise of a seeded generator. Every number
is a median of --repeats measurements. The two take turns, so that other load
on the machine slows both; the ratio is the median over turns, and above 1 if
JAX is faster. On a GPU both use the same card, and round float32 alike. PyTorch
is optional: pip install torch.
"""

from experiments import cli
from experiments.benchmarks import speed

if __name__ == '__main__':
  speed.define_flags()
  cli.run(speed.main)
