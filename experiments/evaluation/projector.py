"""Codes for TensorBoard's projector, as files that it reads.

  python -m experiments.evaluate --workdir=RUN --projector
  tensorboard --logdir=RUN

  RUN/projector_config.pbtxt          names the files below
  RUN/projector/SPLIT/FACTOR.tsv      a code per line, posterior means
  RUN/projector/SPLIT/metadata.tsv    the groups of each line

Every row is encoded alone (strategy 1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import os

import numpy as np

from experiments.evaluation.context import Context
from mlvae_jax.data.grouped import GroupedData
from mlvae_jax.files import write_atomically

CONFIG_FILE = 'projector_config.pbtxt'
_FOLDER = 'projector'
_MAX_ROWS = 5_000  # The projector draws in a browser.
_SEED = 0


def write(workdir: str, context: Context) -> str | None:
  """Writes the codes of rows of the scored split.

  Args:
    workdir: folder of the run.
    context: context of the evaluation. If there are more than 5,000 rows,
      5,000 are chosen at random.

  Returns:
    The path of the projector's configuration; None if the split is empty.
  """
  data, split = context.scored, context.split
  if not len(data):
    return None
  rows = np.sort(np.random.default_rng(_SEED).permutation(
      len(data))[:_MAX_ROWS])
  found = context.encoded('trained', {split: rows}).all_alone(split, rows)
  folder = os.path.join(workdir, _FOLDER, split)
  os.makedirs(folder, exist_ok=True)
  metadata = os.path.join(_FOLDER, split, 'metadata.tsv')
  write_atomically(
      os.path.join(workdir, metadata), _tsv(_metadata(data, rows)))
  entries = []
  for name in (f.name for f in context.models['trained'][0].factors):
    path = os.path.join(_FOLDER, split, f'{name}.tsv')
    codes = found[name].mean.tolist()
    write_atomically(os.path.join(workdir, path), _tsv(
        [f'{value:.6g}' for value in code] for code in codes))
    entries.append(
        f'embeddings {{\n  tensor_name: "{name} ({split})"\n'
        f'  tensor_path: "{path}"\n  metadata_path: "{metadata}"\n}}\n')
  # Last, since it names the others.
  path = os.path.join(workdir, CONFIG_FILE)
  write_atomically(path, ''.join(entries))
  return path


def _metadata(data: GroupedData, rows: np.ndarray) -> Iterator[list[str]]:
  """The groups of each row in every grouping, and its name if it has one."""
  columns = [data.labels_of(grouping) for grouping in data.groupings]
  names = data.row_names
  # The projector expects a line of headings if there are several columns.
  if len(columns) > 1 or names is not None:
    yield [*data.groupings, *(['row'] if names is not None else [])]
  for row in rows:
    yield [*(labels.names[i] if (i := labels.ids[row]) >= 0 else '?'
             for labels in columns),
           *([names[row].decode(errors='replace')] if names is not None
             else [])]


def _tsv(lines: Iterator[Sequence[str]]) -> str:
  """Lines of cells, separated by tabs; cells have no white space but blanks."""
  return ''.join('\t'.join(' '.join(cell.split()) or '?' for cell in line)
                 + '\n' for line in lines)
