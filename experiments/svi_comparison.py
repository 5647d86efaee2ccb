"""Compares ML-VAE and SVI: passes over the data, and cost per test image.

  python -m experiments.svi_comparison --mlvae_workdir=runs/mnist-mlvae \\
      --svi_workdir=runs/mnist-svi

The paper's argument for an encoder (sections 1 and 3.2) is that without one, a
model needs more passes over the training data, and an optimisation for every
test image. Both runs must have the same data set, factors and decoder. Writes
svi.png, with its caption, and svi.json into the SVI run's workdir:

- the validation ELBO per image against passes over the training images, as
  the runs logged it (groups are pieces of at most max_group_size images, for
  which the posteriors of an SVI model are inferred each time);
- the ELBO that inference reaches on test images against its cost per image:
  one point for the encoder, and for SVI one per number of steps.
"""

from experiments import cli
from experiments.benchmarks import svi_comparison

if __name__ == '__main__':
  svi_comparison.define_flags()
  cli.run(svi_comparison.main)
