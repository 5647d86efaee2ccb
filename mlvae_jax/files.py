"""Files: written completely or not at all, and paths as a shell reads them."""

from __future__ import annotations

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


def expand_path(path: str | os.PathLike) -> str:
  """Expands ~ and $VARIABLES in a path."""
  return os.path.expandvars(os.path.expanduser(os.fspath(path)))
