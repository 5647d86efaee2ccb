"""Files: written completely or not at all, and paths as a shell reads them."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import os


def write_atomically(path: str | os.PathLike, content: str | bytes) -> None:
  """Writes a file completely or not at all.

  Args:
    path: path of the file, which is replaced if it exists.
    content: text, written as UTF-8; or bytes.

  Raises:
    OSError: where it cannot be written; what was there is unchanged.
  """
  if isinstance(content, str):
    content = content.encode()
  # In the same folder, because only there a rename is atomic.
  partial = f'{os.fspath(path)}.partial'
  try:
    with open(partial, 'wb') as file:
      file.write(content)
    os.replace(partial, path)
  except OSError:
    with contextlib.suppress(OSError):
      os.remove(partial)
    raise


@contextlib.contextmanager
def named_errors(path: str | os.PathLike) -> Iterator[None]:
  """Adds the path of an open file to what goes wrong when it is written.

  Args:
    path: path of the file.

  Yields:
    Nothing.

  Raises:
    OSError: in place of one that names no file, such as that of a full disk.
  """
  try:
    yield
  except OSError as error:
    if error.filename is not None or error.errno is None:
      raise
    raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def expand_path(path: str | os.PathLike) -> str:
  """Expands ~ and $VARIABLES in a path."""
  return os.path.expandvars(os.path.expanduser(os.fspath(path)))
