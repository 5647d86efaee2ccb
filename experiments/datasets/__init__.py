"""The data sets by name: `load(config)` returns three splits of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from experiments.cli import UserError
from experiments.config.settings import Config
from experiments.datasets import (
    arrays,
    folder,
    fonts,
    mnist,
    mnist5k,
    shapes,
)
from experiments.datasets.splits import Splits


class _DataSet(NamedTuple):
  """How to load a data set.

  Attributes:
    load: function that returns the splits of a configuration.
    check: function that raises a ValueError if the configuration alone shows
      that the data set cannot be loaded.
    settings: names of the settings that only data sets of this kind read.
    reads_files: whether there is anything to read in a `data_dir`.
  """

  load: Callable[..., Splits]
  check: Callable[[Config], None] = lambda config: None
  settings: tuple[str, ...] = ()
  reads_files: bool = True


_DATA_SETS = {
    'mnist5k': _DataSet(mnist5k.load, reads_files=False),
    'mnist': _DataSet(mnist.load),
    'shapes': _DataSet(
        shapes.load, shapes.check, shapes.SETTINGS, reads_files=False),
    'fonts': _DataSet(fonts.load, fonts.check, fonts.SETTINGS),
    'arrays': _DataSet(arrays.load, arrays.check, arrays.SETTINGS),
    **dict.fromkeys(
        folder.GROUPINGS, _DataSet(folder.load, folder.check, folder.SETTINGS)),
}


def load(config: Config, show_notes: bool = True) -> Splits:
  """Loads the data set that a configuration names.

  Args:
    config: configuration of the run.
    show_notes: whether to print notes, see `folder.load`; other data sets have
      none.

  Returns:
    The splits.

  Raises:
    UserError: when the data are missing or broken, or the configuration does
      not fit them.
  """
  if config.dataset not in _DATA_SETS:
    raise UserError(
        f'unknown data set {config.dataset!r}; choose one of '
        + ', '.join(_DATA_SETS))
  try:
    check(config)
  except ValueError as error:
    raise UserError(str(error)) from error
  if config.dataset in folder.GROUPINGS:
    return folder.load(config, show_notes)
  return _DATA_SETS[config.dataset].load(config)


def check(config: Config) -> None:
  """Checks the settings that a data set reads, without loading its data.

  Args:
    config: configuration of a run, with a known data set.

  Raises:
    ValueError: when a setting makes no sense.
  """
  _DATA_SETS[config.dataset].check(config)


def reads_files(dataset: str) -> bool:
  """Whether a known data set reads files of the user's."""
  return _DATA_SETS[dataset].reads_files


def check_fit(dataset: str, names: Iterable[str]) -> None:
  """Checks that a data set reads all settings that were given for it.

  Args:
    dataset: name of a known data set.
    names: names of the settings that the user has given.

  Raises:
    ValueError: when a setting is for other data sets only.
  """
  # An ignored flag would be a mistake that nobody notices.
  names = set(names)
  if 'data_dir' in names and not reads_files(dataset):
    raise ValueError(
        f'--dataset={dataset} reads no files; for data of your own give '
        '--dataset=folder or --dataset=arrays, or leave out --data_dir')
  for one in _DATA_SETS.values():
    for name in one.settings:
      if name in names and name not in _DATA_SETS[dataset].settings:
        known = ' or '.join(
            key for key, other in _DATA_SETS.items() if name in other.settings)
        raise ValueError(f'--{name} is for --dataset={known}, not {dataset}')
