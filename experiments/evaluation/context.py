"""The context in which the sections of an evaluation measure.

Codes, sets of labels and images are computed when a section first asks for
them, and kept for the other sections: no image is encoded twice in one way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from experiments.config.settings import Config
from experiments.datasets.sources.one_shot_runs import OneShotRun
from experiments.datasets.splits import Splits
from experiments.evaluation import label_sets
from experiments.evaluation.encoding import Encoded
from experiments.evaluation.label_sets import LabelSet
from mlvae_jax.data.grouped import GroupedData
from mlvae_jax.model.model import Model, Params

Models = Mapping[str, tuple[Model, Params]]


class OneShotRuns(NamedTuple):
  """One-shot runs, with their images prepared as those of the data set.

  Attributes:
    runs: the runs, with the images as they are in files.
    x: `[N, S, S, C]` uint8, the test images of the first run, its training
      images, and so on.
    warning: what is wrong with this preparation, or ''.
  """

  runs: tuple[OneShotRun, ...]
  x: np.ndarray
  warning: str = ''


class ProbeSettings(NamedTuple):
  """How strong the probes are.

  Attributes:
    num_steps: number of optimisation steps of each probe.
    hidden_sizes: numbers of units of its hidden layers.
  """

  num_steps: int = 1000
  hidden_sizes: tuple[int, ...] = (256, 256)


@dataclasses.dataclass(frozen=True)
class Context:
  """An evaluation of a run.

  Attributes:
    models: models with their parameters: 'trained'; 'untrained' if the model
      has an encoder; 'vae' if a run of a VAE was given.
    data: splits of the run.
    config: configuration of the run.
    split: split to score on, 'test' or 'validation'.
    ks: numbers of images of evidence per group.
    probe: steps and hidden layers of each probe.
    probe_images: maximum numbers of images on which the probes of the first
      grouping are trained, selected and scored; None for all.
    elbo_images: maximum number of images of a split for its ELBO.
    one_shot_runs: one-shot runs to classify, or None.
  """

  models: Models
  data: Splits
  config: Config | None = None
  split: str = 'test'
  ks: tuple[int, ...] = (1,)
  probe: ProbeSettings = ProbeSettings()
  probe_images: tuple[int | None, ...] = (None,) * 3
  elbo_images: int = 50_000
  one_shot_runs: OneShotRuns | None = None
  # By model: the cache that its `Encoded` objects share.
  _posteriors: dict[str, dict] = dataclasses.field(default_factory=dict)

  @property
  def scored(self) -> GroupedData:
    """The images of the split to score on."""
    return getattr(self.data, self.split)

  # `cached_property` stores the value past the frozen dataclass's setters.
  @functools.cached_property
  def images(self) -> dict[str, np.ndarray]:
    """Observations `[N, ...]` by split."""
    return {name: getattr(self.data, name).x
            for name in label_sets.SPLITS}

  @functools.cached_property
  def first_labels(self) -> LabelSet:
    """The labels of the first grouping."""
    return label_sets.first(self.data, self.split, self.probe_images)

  @functools.cached_property
  def all_labels(self) -> tuple[LabelSet, ...] | None:
    """The labels of every grouping that can be learned.

    None if the data have a single grouping.
    """
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
      rows: rows by split, `[M]`, sorted and distinct, including all whose
        posteriors will be requested.

    Returns:
      The posteriors; those of a split are inferred at the first request.
    """
    return Encoded(*self.models[name], self.images, rows,
                   self._posteriors.setdefault(name, {}))

  def codes(self, sets: Sequence[LabelSet]) -> dict[str, Encoded]:
    """The posteriors of every model for the images of some sets of labels."""
    rows = label_sets.rows_of(sets)
    return {name: self.encoded(name, rows) for name in self.models}
