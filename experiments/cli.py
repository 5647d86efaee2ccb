"""What all entry points share: exit codes, one-line errors, quiet logs."""

from __future__ import annotations

from collections.abc import Callable
import logging
import os
import signal
import sys

from absl import app, flags
from absl import logging as absl_logging


class UserError(Exception):
  """A mistake of the user's: one line that says what is wrong and what to do.

  Entry points print it and exit with 1, without a traceback.
  """


def run(main: Callable[[], None]) -> None:
  """Parses flags and runs `main`; exits with 0, 1 (error) or 2 (bad flag)."""
  absl_logging.set_verbosity(absl_logging.ERROR)
  # Piped into `head`, say, a closed output ends the program quietly.
  signal.signal(signal.SIGPIPE, signal.SIG_DFL)
  app.run(lambda _: _guarded(main), flags_parser=_parse)


def bad_flag(message: str) -> None:
  """Prints a bad flag's one line and exits with 2."""
  print(f'error: {message}', file=sys.stderr)
  sys.exit(2)


def write_atomically(path: str | os.PathLike, text: str) -> None:
  """Writes a text file whole or not at all."""
  partial = f'{os.fspath(path)}.partial'
  with open(partial, 'w', encoding='utf-8') as file:
    file.write(text)
  os.replace(partial, path)


def _parse(argv: list[str]) -> list[str]:
  try:
    rest = flags.FLAGS(argv)
  except flags.Error as error:
    bad_flag(' '.join(str(error).split()) + '; see --help')
  except SystemExit:  # absl exits with 1 after --help.
    sys.exit(0)
  if len(rest) > 1:
    bad_flag(f'unexpected argument {rest[1]!r}; flags start with --')
  return rest


def _guarded(main: Callable[[], None]) -> None:
  # Orbax and TFDS log through these; their warnings are not the user's.
  logging.getLogger('absl').setLevel(logging.ERROR)
  try:
    main()
  except (UserError, OSError) as error:
    print(f'error: {" ".join(str(error).split())}', file=sys.stderr)
    sys.exit(1)
  except KeyboardInterrupt:
    print('\ninterrupted', file=sys.stderr)
    sys.exit(130)
