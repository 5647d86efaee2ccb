"""How many images a validation and an evaluation can afford, by model."""

from __future__ import annotations

import dataclasses

from mlvae_jax.model.model import Model


@dataclasses.dataclass(frozen=True)
class Budget:
  """What is affordable.

  Attributes:
    validation_images: number of images of a validation in training, at most;
      enough to see a curve.
    elbo_images: number of images of a split for its ELBO in the evaluation,
      at most.
    ks: numbers of images of evidence per group in the evaluation.
    probe_images: numbers of images that probes are trained, chosen and scored
      on, at most; None for all.
    has_untrained: whether an untrained model is a control.
  """

  validation_images: int
  elbo_images: int
  ks: tuple[int, ...]
  probe_images: tuple[int | None, int | None, int | None]
  has_untrained: bool


_ENCODED = Budget(
    validation_images=10_000, elbo_images=50_000,
    ks=tuple(range(1, 11)),  # As in fig. 6c.
    probe_images=(None, None, None), has_untrained=True)
# Each image takes an optimisation: fewer have to be enough. It is one with a
# trained decoder: without training there are no codes to compare with.
_OPTIMISED = Budget(
    validation_images=1000, elbo_images=5000, ks=(1, 2, 5),
    probe_images=(4000, 1000, 1000), has_untrained=False)


def budget_of(model: Model) -> Budget:
  """What is affordable with a model."""
  return _ENCODED if model.has_encoder else _OPTIMISED
