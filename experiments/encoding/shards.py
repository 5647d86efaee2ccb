"""What is encoded so far, kept in a folder from which the work resumes.

  OUTPUT.partial/state.json      what is encoded, with which model
  OUTPUT.partial/NUMBER.npz      what the encoder gives of a range of rows
  OUTPUT.partial/output/         the finished files, before they are renamed
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import contextlib
import errno
import io
import json
import os
import shutil
from typing import Any
import zipfile

import numpy as np

from experiments import cli
from experiments.cli import UserError
from experiments.encoding import files
from mlvae_jax.files import write_atomically
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.training import run_files

_STATE, _OUTPUT = 'state.json', 'output'


class Shards:
  """The shards of an output that is not finished."""

  def __init__(self, folder: str):
    self._folder = folder

  def has(self, number: int) -> bool:
    """Whether a shard was written."""
    return os.path.exists(self._path(number))

  def write(self, number: int, found: Mapping[str, Normal]) -> None:
    """Writes Normals of `[N, D]` by factor, completely or not at all."""
    content = io.BytesIO()
    np.savez(content, **{f'{name}/{moment}': value for name, q in found.items()
                         for moment, value in q._asdict().items()})
    write_atomically(self._path(number), content.getvalue())

  def read(self, number: int, factor: str) -> Normal:
    """Reads the Normals of a factor."""
    try:
      with files.opened(self._path(number)) as file:
        return Normal(*(file[f'{factor}/{moment}']
                        for moment in Normal._fields))
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
      raise UserError(
          f'{self._path(number)} is damaged ({error}); delete it, and run the '
          'same command again') from error

  def finish(self, output: str) -> None:
    """Gives the finished files their place, and removes the rest."""
    finished = self.output_folder()
    os.replace(finished, output)
    shutil.rmtree(self._folder, ignore_errors=True)

  def output_folder(self) -> str:
    """The folder for the finished files, which exists."""
    path = os.path.join(self._folder, _OUTPUT)
    os.makedirs(path, exist_ok=True)
    return path

  def _path(self, number: int) -> str:
    return os.path.join(self._folder, f'{number:08}.npz')


def check_output(output: str) -> None:
  """Raises a UserError if an output is there already.

  Args:
    output: absolute path of a folder; one that is empty is accepted.
  """
  if os.path.lexists(output) and (
      os.path.islink(output) or not os.path.isdir(output)
      or os.listdir(output)):
    raise UserError(
        f'{output} exists already and is not an empty folder; delete it, or '
        'choose another --output')


def make_parent(output: str) -> None:
  """Makes the folder of an output, and checks that it can be written to."""
  parent = os.path.dirname(output)
  os.makedirs(parent, exist_ok=True)
  cli.check_writable(parent)


def paths(output: str) -> list[str]:
  """The paths of the files of an output."""
  return [os.path.join(output, name) for name in sorted(os.listdir(output))]


@contextlib.contextmanager
def open_shards(output: str, state: Mapping[str, Any]) -> Iterator[Shards]:
  """Opens the shards of an output, with those of an interrupted try.

  While the context is open, no other process may open them.

  Args:
    output: absolute path of the folder that will be written.
    state: what determines the shards; plain JSON. Shards of another state are
      deleted.

  Yields:
    The shards.

  Raises:
    UserError: when another process encodes there, the folder holds something
      else, or the disk is full.
  """
  folder = f'{output}.partial'
  with _told_when_full(output):
    os.makedirs(folder, exist_ok=True)
    with contextlib.ExitStack() as stack:
      try:
        stack.enter_context(run_files.locked(folder))
      except ValueError as error:
        raise UserError(f'{error} --output') from error
      _start(folder, json.loads(json.dumps(state)))
      yield Shards(folder)


def _start(folder: str, state: dict[str, Any]) -> None:
  """Deletes the shards of another state; notes that of this one."""
  path = os.path.join(folder, _STATE)
  others = set(os.listdir(folder)) - {'lock'}
  if others and _STATE not in others:
    raise UserError(
        f'{folder} holds files that experiments.encode did not write; move '
        'it away, or choose another --output')
  with contextlib.suppress(OSError, ValueError):
    with open(path, encoding='utf-8') as file:
      if json.load(file) == state:
        return
  if others:
    print('starting over: the data, the model or the settings have changed')
  for name in others:
    found = os.path.join(folder, name)
    (shutil.rmtree if os.path.isdir(found) else os.remove)(found)
  write_atomically(path, json.dumps(state))


@contextlib.contextmanager
def _told_when_full(output: str) -> Iterator[None]:
  """Turns the error of a full disk into advice."""
  try:
    yield
  except OSError as error:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
      raise UserError(
          f'no space left for {output}: {error.strerror}; free some space, and '
          'run the same command again to resume') from error
    raise
