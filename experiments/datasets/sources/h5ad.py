"""AnnData's .h5ad files, read through h5py alone.

The format is documented and stable, and two of its parts are needed, so this
saves the package anndata with pandas, SciPy and all else that it brings.
https://anndata.readthedocs.io/en/stable/fileformat-prose.html
"""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.cli import UserError

_MAX_BYTES = 8 << 30  # X becomes dense, in memory.


def read(path: str) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
  """X of an .h5ad, and the columns of obs that are categories or strings.

  Args:
    path: path of the file.

  Returns:
    `[N, D]` numbers; labels `[N]` by the name of the column, '' where they
    are missing; names of the observations, `[N]` strings.

  Raises:
    UserError: when h5py is not installed, or the file cannot be read.
  """
  try:
    import h5py
  except ImportError as error:
    raise UserError(
        f"reading {path} needs h5py: pip install 'mlvae_jax[anndata]'"
    ) from error
  try:
    with h5py.File(path) as file:
      if not isinstance(file.get('obs'), h5py.Group) or 'X' not in file:
        raise UserError(
            f'{path} has no X and obs as AnnData 0.7 and later write them; '
            'read it there, and write it again')
      return _read_x(path, file['X']), *_read_obs(file['obs'])
  except (OSError, KeyError, ValueError, IndexError) as error:
    raise UserError(f'{path} is not a readable .h5ad: {error}') from error


def _read_x(path: str, x: Any) -> np.ndarray:
  """X as a dense array."""
  is_sparse = hasattr(x, 'keys')
  shape = tuple(int(size) for size in (
      x.attrs['shape'] if is_sparse else x.shape))
  dtype = x['data'].dtype if is_sparse else x.dtype
  num_bytes = int(np.prod(shape)) * dtype.itemsize
  if num_bytes > _MAX_BYTES:
    raise UserError(
        f'{path}: X would take {num_bytes / 1e9:.0f} GB; keep fewer variables, '
        'such as the highly variable genes')
  if not is_sparse:
    return x[()]
  if x.attrs['encoding-type'] != 'csr_matrix':
    raise UserError(
        f'{path}: X is a {x.attrs["encoding-type"]}; write it as CSR, with '
        'adata.X = adata.X.tocsr()')
  dense = np.zeros(shape, dtype)
  rows = np.repeat(np.arange(shape[0]), np.diff(x['indptr'][()]))
  dense[rows, x['indices'][()]] = x['data'][()]
  return dense


def _read_obs(obs: Any) -> tuple[dict[str, np.ndarray], np.ndarray]:
  found = {name: _column(obs, name) for name in obs.attrs['column-order']}
  # Numbers are measurements of a cell, not groups.
  labels = {
      name: values for name, values in found.items() if values is not None}
  return labels, _strings(obs[obs.attrs['_index']])


def _column(obs: Any, name: str) -> np.ndarray | None:
  """A column of categories or strings, `[N]` str; None for any other."""
  column = obs[name]
  if 'categories' in column:
    categories = _strings(column['categories'])
    # The code of a missing value is -1, which selects the last entry.
    return np.append(categories, '')[column['codes'][()]]
  if 'values' in column:  # Strings of which some are missing.
    values = _strings(column['values'])
    return None if values is None else np.where(column['mask'][()], '', values)
  return _strings(column) if column.dtype.kind in 'OSU' else None


def _strings(values: Any) -> np.ndarray:
  """A data set of h5py as `[N]` str."""
  found = values.asstr()[()] if values.dtype.kind in 'OS' else values[()]
  return np.asarray(found).astype(str)
