"""Arrays of the user's own, of any shape, with labels in the same file.

`sources/array_files.py` describes the files. Images are uint8 `[N, H, W, C]`;
anything else may be standardised.
"""

from __future__ import annotations

import dataclasses
import json

import numpy as np

from experiments.cli import UserError
from experiments.config.settings import REAL_LIKELIHOODS, Config
from experiments.datasets import splits
from experiments.datasets.sources import array_files
from experiments.datasets.sources.array_files import Table
from mlvae_jax.data.grouped import GroupedData, Labels, number_labels
from mlvae_jax.model.factors import parse_factors

# Settings that this data set reads, besides those of all.
SETTINGS = ('standardise', 'split_by', 'split_fractions')
_MAX_COPY_BYTES = 8 << 30
_BLOCK_ROWS = 4096


def load(config: Config) -> splits.Splits:
  """Reads the file of a configuration, and splits its rows.

  Args:
    config: configuration, of which data_dir, factors, model, split_by,
      split_fractions and standardise are read.

  Returns:
    The splits of rows, or of groups by the grouping of the first factor or by
    the one that split_by names. Rows with names are assigned by a hash of their
    name; otherwise every group is divided in the same proportions. Rows without
    a label in that grouping are groups of their own.

  Raises:
    UserError: when the file cannot be used, or lacks a grouping.
  """
  table, numbered = _read(config)
  data = _grouped(table, numbered, _first_grouping(config, list(numbered)),
                  by_hash=config.split_by != 'image')
  found = dataclasses.replace(
      splits.split(data, config), content=_content(table, numbered, data),
      vocabulary=table.vocabulary)
  return standardise(found) if config.standardise else found


def open_rows(config: Config) -> tuple[GroupedData, dict[str, object]]:
  """Reads the file of a configuration without splitting or standardising it.

  Args:
    config: configuration, of which data_dir, factors and model are read.

  Returns:
    The rows, which are named by their numbers in the file if they have no
    names; and a record by which they are recognised.

  Raises:
    UserError: when the file cannot be used, or lacks a grouping.
  """
  table, numbered = _read(config)
  data = _grouped(table, numbered, _first_grouping(config, list(numbered)),
                  by_hash=False, numbers_rows=True)
  return data, _content(table, numbered, data)


def check(config: Config) -> None:
  """Checks data_dir, factors and standardise.

  Args:
    config: configuration of a run.

  Raises:
    ValueError: when one of them makes no sense.
  """
  parse_factors(config.factors)
  if not config.data_dir:
    raise ValueError(
        '--dataset=arrays needs --data_dir, a file that ends in '
        + ', '.join(array_files.ENDINGS))
  if config.standardise and config.likelihood not in REAL_LIKELIHOODS:
    raise ValueError(
        f'--likelihood={config.likelihood} does not take standardised data; '
        'leave out --standardise')


def standardise(data: splits.Splits) -> splits.Splits:
  """Gives the elements of training rows mean 0 and standard deviation 1.

  Args:
    data: splits of any numbers. uint8 is left as it is: these are pixels.

  Returns:
    The splits, as float32, with `scale`.

  Raises:
    UserError: when they are too large for the memory.
  """
  x = data.train.x
  if x.dtype == np.uint8 or not len(x):
    return data
  if 4 * sum(part.x.size for part in data.parts) > _MAX_COPY_BYTES:
    raise UserError(
        'these arrays are too large to standardise in memory; '
        'standardise them yourself, and give --standardise=false')
  mean = _mean(x, np.float64(0.0), 1)
  std = np.sqrt(_mean(x, mean, 2))
  # A constant stays near 0: its rounding errors must not be blown up.
  scale = splits.Scale(mean.astype(np.float32), np.where(
      std > 1e-6 * np.abs(mean), std, 1.0).astype(np.float32))

  def scaled(part):
    return dataclasses.replace(
        part, x=(np.asarray(part.x, np.float32) - scale.mean) / scale.std)

  return dataclasses.replace(
      data, train=scaled(data.train), validation=scaled(data.validation),
      test=scaled(data.test), scale=scale)


def _read(config: Config) -> tuple[Table, dict[str, Labels]]:
  """The table of a configuration, and its labels by number."""
  table = array_files.read(config.data_dir)
  _check_values(config.data_dir, table.x)
  return table, {name: number_labels(values)
                 for name, values in table.labels.items()}


def _mean(x: np.ndarray, origin: np.ndarray, power: int) -> np.ndarray:
  """Mean over rows of a power of the distance from an origin, `[...]`."""
  # Block by block: a copy of all rows in float64 could exceed the memory.
  total = np.zeros(x.shape[1:])
  for start in range(0, len(x), _BLOCK_ROWS):
    block = np.asarray(x[start:start + _BLOCK_ROWS], np.float64)
    total += ((block - origin) ** power).sum(axis=0)
  return total / len(x)


def _grouped(table: Table, labels: dict[str, Labels], first: str,
             by_hash: bool, numbers_rows: bool = False) -> GroupedData:
  """The rows, sorted by the groups of the first grouping."""
  ids, names = _fill_unknown(labels[first], table.row_names)
  row_names = table.row_names
  if row_names is None and numbers_rows:
    row_names = np.arange(len(table.x)).astype('S')
  if by_hash:  # The order in which a split by group is a slice.
    order = sorted(range(len(names)), key=lambda i: splits.group_position(
        names[i]))
    ids = np.argsort(order)[ids]
    names = tuple(names[i] for i in order)
  others = {name: found for name, found in labels.items() if name != first}
  return GroupedData.from_labels(
      table.x, ids, names, first, others, row_names)


def _fill_unknown(labels: Labels, row_names: np.ndarray | None) -> Labels:
  """Labels in which a row of unknown group is a group named after the row."""
  unknown = np.flatnonzero(labels.ids < 0)
  ids = labels.ids.copy()
  ids[unknown] = len(labels.names) + np.arange(len(unknown))
  return Labels(ids, (*labels.names, *(
      f'row {row}' if row_names is None else row_names[row].decode()
      for row in unknown)))


def _first_grouping(config: Config, known: list[str]) -> str:
  """The grouping of the first grouped factor."""
  if config.model == 'vae':
    return known[0]
  splits.check_groupings(config, known, str(config.data_dir))
  return next((f.grouping for f in parse_factors(config.factors)
               if f.grouping), known[0])


def _check_values(path: str, x: np.ndarray) -> None:
  """Raises a UserError on NaN or infinity."""
  if x.dtype.kind != 'f':
    return
  for start in range(0, len(x), _BLOCK_ROWS):
    block = x[start:start + _BLOCK_ROWS]
    bad = ~np.isfinite(block.reshape(len(block), -1)).all(axis=1)
    if bad.any():
      raise UserError(
          f'{path}: row {start + int(np.argmax(bad))} of x (counted from 0) '
          'has NaN or infinity; leave out such rows, or fill in what is '
          'missing')


def _content(table: Table, labels: dict[str, Labels], data: GroupedData
             ) -> dict[str, object]:
  """The record by which a run recognises its rows and labels."""
  names = json.dumps([[name, *found.names] for name, found in labels.items()])
  arrays = [found.ids for found in labels.values()]
  if table.row_names is not None:
    arrays.append(table.row_names)
  return {
      'num_images': len(data), 'num_groups': data.num_groups,
      'names': splits.digest_arrays(
          np.frombuffer(names.encode(), np.uint8), *arrays),
      'pixels': splits.digest_arrays(table.x)}
