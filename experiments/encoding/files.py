"""Tables and evidence on disk: Parquet, or arrays of NumPy without pickle.

A table is written block by block, in constant memory. In Parquet a block is a
group of rows; in `.npz` every column is an array.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
import contextlib
import functools
from importlib import util
import io
import json
from typing import Any
import zipfile

import numpy as np
import tqdm

from experiments.cli import UserError
from experiments.encoding.evidence import Evidence

FORMATS = ('npz', 'parquet')
ABOUT_FILE, EVIDENCE_FILE = 'about.json', 'evidence.npz'
_ABOUT = 'about'

# Functions that give the columns of some rows: `[N, D]` float32, `[N]` int64,
# or N strings, or None in place of one.
Block = Mapping[str, Callable[[], Any]]


def group_column(grouping: str, factors: Iterable[str]) -> str:
  """The name of the column of a grouping in the table of images.

  Args:
    grouping: name of the grouping.
    factors: names of all factors.

  Returns:
    Its name, or another if it is that of a column of codes.
  """
  taken = {f'{factor}_{name}' for factor in factors
           for name in ('mean', 'variance')} | {'source'}
  return f'{grouping}_group' if grouping in taken else grouping


def check_format(name: str) -> None:
  """Raises a UserError if files of a format cannot be written."""
  if name == 'parquet' and util.find_spec('pyarrow') is None:
    raise UserError('--format=parquet needs pyarrow: pip install '
                    "'mlvae_jax[parquet]'; or give --format=npz")


@contextlib.contextmanager
def opened(path: str) -> Iterator[np.lib.npyio.NpzFile]:
  """Opens an `.npz` without pickle, and closes it even if it is damaged."""
  with open(path, 'rb') as content, np.load(
      content, allow_pickle=False) as file:
    yield file


def write_table(path: str, blocks: Callable[[], Iterable[Block]]) -> None:
  """Writes a table.

  Args:
    path: path that ends in one of the `FORMATS`.
    blocks: function that gives all blocks, at least one, each time it is
      called.
  """
  if path.endswith('.parquet'):
    _write_parquet(path, blocks())
  else:
    _write_npz(path, blocks)


def read_table(path: str) -> Iterator[Block]:
  """Reads what `write_table` wrote; an `.npz` is one block.

  Args:
    path: path of the table.

  Yields:
    The blocks. Their columns are read when they are called, until the next
    block is asked for.

  Raises:
    UserError: when it cannot be read.
  """
  with _explained(path):
    blocks = (_parquet_blocks if path.endswith('.parquet') else _npz_blocks)(
        path)
    for block in blocks:
      yield {name: _explained(path)(read)
             for name, read in block.items()}


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
  """Turns the errors of a damaged file into advice."""
  try:
    yield
  except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
    raise UserError(f'{path} is not a table that experiments.encode wrote, or '
                    f'is damaged: {error}; encode again') from error


def _npz_blocks(path: str) -> Iterator[Block]:
  with opened(path) as file:
    yield {name: functools.partial(file.__getitem__, name)
           for name in file.files}


def _parquet_blocks(path: str) -> Iterator[Block]:
  from pyarrow import parquet

  def column(file: Any, number: int, name: str) -> Any:
    values = file.read_row_group(number, [name])[name].combine_chunks()
    if str(values.type) == 'string':
      return values.to_pylist()
    if not hasattr(values.type, 'list_size'):
      return values.to_numpy()
    return values.flatten().to_numpy().reshape(
        len(values), values.type.list_size)

  with parquet.ParquetFile(path) as file:
    for number in range(file.num_row_groups):
      yield {name: functools.partial(column, file, number, name)
             for name in file.schema_arrow.names}


def _write_parquet(path: str, blocks: Iterable[Block]) -> None:
  import pyarrow as pa
  from pyarrow import parquet

  def column(values: Any) -> pa.Array:
    if not isinstance(values, np.ndarray):
      return pa.array(values, pa.string())
    if values.ndim == 1:
      return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(
        pa.array(np.ascontiguousarray(values).ravel()), values.shape[1])

  writer = None
  try:
    for block in _progress(blocks, 'block'):
      table = pa.table({name: column(read()) for name, read in block.items()})
      if writer is None:
        writer = parquet.ParquetWriter(path, table.schema)
      writer.write_table(table)
  finally:
    if writer is not None:
      writer.close()


def _write_npz(path: str, blocks: Callable[[], Iterable[Block]]) -> None:
  names = list(next(iter(blocks())))
  with zipfile.ZipFile(path, 'w', allowZip64=True) as archive:
    for name in _progress(names, 'column'):
      shape, dtype = _form(block[name] for block in blocks())
      header = io.BytesIO()
      np.lib.format.write_array_header_1_0(header, {
          'descr': np.dtype(dtype).str, 'fortran_order': False,
          'shape': shape})
      entry = zipfile.ZipInfo(f'{name}.npy')
      # Strings are padded to the longest, which takes space otherwise.
      entry.compress_type = (
          zipfile.ZIP_DEFLATED if dtype[0] == 'U' else zipfile.ZIP_STORED)
      with archive.open(entry, 'w', force_zip64=True) as file:
        file.write(header.getvalue())
        for block in blocks():
          file.write(np.ascontiguousarray(_filled(block[name]()), dtype).data)


def _progress(items: Iterable[Any], unit: str) -> Iterable[Any]:
  """Shows progress, unless it takes no time."""
  return tqdm.tqdm(
      items, desc='writing', unit=unit, delay=1, dynamic_ncols=True)


def _form(columns: Iterable[Callable[[], Any]]) -> tuple[tuple[int, ...], str]:
  """The shape and type of a column of all blocks."""
  num_rows, rest, dtype, width = 0, (), '', 1
  for read in columns:
    values = read()
    num_rows += len(values)
    if not isinstance(values, np.ndarray):
      width = max(width, max(map(len, _filled(values)), default=1))
      dtype = f'U{width}'
    elif values.dtype.kind == 'U':
      width = max(width, values.dtype.itemsize // 4)
      dtype = f'U{width}'
    else:
      rest, dtype = values.shape[1:], values.dtype.str
  return (num_rows, *rest), dtype


def _filled(values: Any) -> Any:
  """Strings with '' in place of None; arrays as they are."""
  if isinstance(values, np.ndarray):
    return values
  return ['' if value is None else value for value in values]


def write_evidence(path: str, found: Mapping[str, Evidence],
                   about: Mapping[str, Any]) -> None:
  """Writes evidence.

  Args:
    path: path of an `.npz`.
    found: evidence by factor.
    about: what else to keep; plain JSON.
  """
  values = {_ABOUT: _bytes(json.dumps(about))}
  for factor, evidence in found.items():
    # Not an array of strings, all of which would be as long as the longest.
    names = [name.encode() for name in evidence.names]
    values |= {
        f'{factor}/names': _bytes(b''.join(names)),
        f'{factor}/name_sizes': np.fromiter(
            map(len, names), np.int64, len(names)),
        f'{factor}/first': evidence.first,
        f'{factor}/second': evidence.second,
        f'{factor}/count': evidence.count}
  np.savez(path, **values)


def read_evidence(path: str) -> tuple[dict[str, Evidence], dict[str, Any]]:
  """Reads what `write_evidence` wrote; a UserError if it cannot be read."""
  try:
    with opened(path) as file:
      about = json.loads(file[_ABOUT].tobytes())
      return {factor: _evidence(file, factor) for factor in dict.fromkeys(
          name.partition('/')[0] for name in file.files if '/' in name)}, about
  except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
    raise UserError(f'{path} is not evidence that experiments.encode wrote, or '
                    f'is damaged: {error}') from error


def _evidence(file: np.lib.npyio.NpzFile, factor: str) -> Evidence:
  text = file[f'{factor}/names'].tobytes()
  ends = np.cumsum(file[f'{factor}/name_sizes']).tolist()
  names = tuple(text[start:end].decode()
                for start, end in zip([0, *ends], ends))
  found = Evidence(names, *(
      file[f'{factor}/{name}'] for name in Evidence._fields[1:]))
  if not found.first.shape == found.second.shape or not (
      len(names) == len(found.first) == len(found.count)):
    raise ValueError(f'the arrays of factor {factor} do not fit each other')
  return found


def _bytes(content: str | bytes) -> np.ndarray:
  if isinstance(content, str):
    content = content.encode()
  return np.frombuffer(content, np.uint8)
