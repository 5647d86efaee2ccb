"""The data sets by name: `load(config)` gives three splits of images."""

from __future__ import annotations

from experiments.cli import UserError
from experiments.config.presets import Config
from experiments.datasets import folder, mnist, mnist5k, shapes
from experiments.datasets.splits import Splits

_LOADERS = {
    'mnist5k': mnist5k.load,
    'mnist': mnist.load,
    'shapes': shapes.load,
    **dict.fromkeys(folder.GROUPINGS, folder.load),
}


def load(config: Config, show_notes: bool = True) -> Splits:
  """Loads the data set that a configuration names.

  Args:
    config: of the run.
    show_notes: as `folder.load` takes it; other data sets have no notes.

  Returns:
    The splits.

  Raises:
    UserError: when the data are missing or broken.
  """
  if config.dataset not in _LOADERS:
    raise UserError(
        f'unknown data set {config.dataset!r}; choose one of '
        + ', '.join(_LOADERS))
  if config.dataset in folder.GROUPINGS:
    return folder.load(config, show_notes)
  return _LOADERS[config.dataset](config)
