"""Number of images that validation and evaluation can afford, per model."""

from __future__ import annotations

import dataclasses

from mlvae_jax.model.model import Model


@dataclasses.dataclass(frozen=True)
class Budget:
  """Limits of validation and evaluation.

  Attributes:
    validation_images: maximum number of images of a validation during
      training; enough to see a curve.
    elbo_images: maximum number of images of a split that its ELBO in the
      evaluation is computed from.
    ks: numbers of images of evidence per group in the evaluation.
    probe_images: maximum numbers of images on which probes are trained,
      selected and scored; None for all.
    has_untrained: whether an untrained model serves as a control.
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
# Each image takes an optimisation, so fewer have to be enough. The
# optimisation is through the trained decoder: an untrained one gives no codes
# to compare with.
_OPTIMISED = Budget(
    validation_images=1000, elbo_images=2000, ks=(1, 2, 5),
    probe_images=(2000, 500, 1000), has_untrained=False)


def budget_of(model: Model) -> Budget:
  """The limits for a model."""
  return _ENCODED if model.has_encoder else _OPTIMISED
