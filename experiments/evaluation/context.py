"""What the sections of an evaluation measure, and what they share.

Codes, sets of labels and images are made when a section first asks for them,
and kept for the others: no image is encoded twice alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import functools

import numpy as np

from experiments.config.settings import Config
from experiments.datasets.splits import Splits
from experiments.evaluation import label_sets
from experiments.evaluation.encoding import Encoded
from experiments.evaluation.label_sets import LabelSet
from mlvae_jax.data.grouped import GroupedImages
from mlvae_jax.model.model import Model, Params

Models = Mapping[str, tuple[Model, Params]]


@dataclasses.dataclass(frozen=True)
class Context:
  """An evaluation of a run.

  Attributes:
    models: 'trained'; 'untrained' where there is an encoder; perhaps 'vae'.
    data: The run's splits.
    config: The run's configuration.
    split: Split to score on, 'test' or 'validation'.
    ks: Numbers of images of evidence per group.
    probe_steps: Optimisation steps of a probe.
    probe_images: At most this many images to train, choose and score the
      probes of the first grouping on; None for all.
    elbo_images: At most this many images of a split for its ELBO.
  """

  models: Models
  data: Splits
  config: Config | None = None
  split: str = 'test'
  ks: tuple[int, ...] = (1,)
  probe_steps: int = 1000
  probe_images: tuple[int | None, ...] = (None,) * 3
  elbo_images: int = 50_000
  _posteriors: dict[str, dict] = dataclasses.field(default_factory=dict)

  @property
  def scored(self) -> GroupedImages:
    """The images of the split to score on."""
    return getattr(self.data, self.split)

  @functools.cached_property
  def images(self) -> dict[str, np.ndarray]:
    """Images `[N, H, W, C]` uint8 by split."""
    return {name: getattr(self.data, name).images
            for name in label_sets.SPLITS}

  @functools.cached_property
  def first_labels(self) -> LabelSet:
    """The labels of the first grouping."""
    return label_sets.first(self.data, self.split, self.probe_images)

  @functools.cached_property
  def all_labels(self) -> tuple[LabelSet, ...] | None:
    """The labels of every grouping that can be learned; None for one alone."""
    groupings = self.data.test.groupings
    if len(groupings) < 2:
      return None
    chosen = (label_sets.choose(self.data, grouping, self.split)
              for grouping in groupings)
    return tuple(labels for labels in chosen if labels is not None)

  def encoded(self, name: str, rows: Mapping[str, np.ndarray]) -> Encoded:
    """The posteriors of a model.

    Args:
      name: name of the model in `models`.
      rows: rows by split, `[M]`, sorted and distinct: all that will be asked
        for.

    Returns:
      The posteriors; each is inferred when it is first asked for.
    """
    return Encoded(*self.models[name], self.images, rows,
                   self._posteriors.setdefault(name, {}))

  def codes(self, sets: Sequence[LabelSet]) -> dict[str, Encoded]:
    """The posteriors of every model, for the images of some labels."""
    rows = label_sets.rows_of(sets)
    return {name: self.encoded(name, rows) for name in self.models}
