"""What all entry points share: exit codes, one-line errors, quiet logs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import logging
import os
import select
import signal
import sys
import tempfile
import traceback

from absl import app, flags
from absl import logging as absl_logging

from experiments.config.flags import HelpFlag


class UserError(Exception):
  """A user's mistake: one line that says what is wrong and what to do.

  Entry points print it and exit with 1, without a traceback.
  """


class StoppedError(Exception):
  """A signal ended the work early, and what was done is kept."""

  def __init__(self, message: str, signum: int):
    super().__init__(message)
    self.code = 128 + signum  # That of a process killed by the signal.


def run(main: Callable[[], None]) -> None:
  """Parses flags and runs `main`; exits with 0, 1 (error) or 2 (bad flag).

  A signal that ended the work early gives 128 and its number.
  """
  def without_arguments(arguments):
    if arguments:
      bad_flag(f'unexpected argument {arguments[0]!r}; flags start with --')
    main()

  run_with_arguments(without_arguments)


def run_with_arguments(main: Callable[[list[str]], None]) -> None:
  """Like `run`, for a `main` that takes the arguments after the flags."""
  absl_logging.set_verbosity(absl_logging.FATAL)
  sys.unraisablehook = _show_unraisable
  app.run(lambda argv: _guarded(lambda: main(argv[1:])), flags_parser=_parse)


def bad_flag(message: str) -> None:
  """Prints a bad flag's one line and exits with 2."""
  print(f'error: {message}', file=sys.stderr)
  sys.exit(2)


@contextlib.contextmanager
def checked_flags() -> Iterator[None]:
  """Turns a ValueError, which says what flag is wrong, into a bad flag."""
  try:
    yield
  except ValueError as error:
    bad_flag(str(error))


def check_writable(folder: str) -> None:
  """Finds out, before long work, that nothing can be written to a folder.

  Args:
    folder: that has to be there.

  Raises:
    UserError: where a file cannot be made in it.
  """
  try:
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    raise UserError(
        f'cannot write to {folder}: {error.strerror}; check its permissions, '
        'and that the disk is not full') from error


def write_atomically(path: str | os.PathLike, text: str) -> None:
  """Writes a text file whole or not at all."""
  partial = f'{os.fspath(path)}.partial'
  with open(partial, 'w', encoding='utf-8') as file:
    file.write(text)
  os.replace(partial, path)


def _parse(argv: list[str]) -> list[str]:
  for name, short_name in (('help', '?'), ('helpshort', None)):
    flags.DEFINE_flag(HelpFlag(name, short_name))
  try:
    rest = flags.FLAGS(argv)
  except flags.Error as error:
    bad_flag(' '.join(str(error).split()) + '; see --help')
  except SystemExit:  # absl exits with 1 after --help.
    sys.exit(0)
  return rest


def _guarded(main: Callable[[], None]) -> None:
  # Orbax and TFDS log through this what they also raise, or what does not
  # concern the user.
  logging.getLogger('absl').setLevel(logging.CRITICAL)
  try:
    main()
  except StoppedError as stop:
    print(stop, file=sys.stderr)
    _exit(stop.code)
  except BrokenPipeError as error:
    _end_quietly(error)
  except (UserError, OSError) as error:
    print(f'error: {" ".join(str(error).split())}', file=sys.stderr)
    _exit(1)
  except KeyboardInterrupt:
    print('\ninterrupted', file=sys.stderr)
    _exit(130)
  except SystemExit as error:
    _exit(error.code)
  except Exception:
    if not _has_company():
      raise
    traceback.print_exc()
    _exit(1)


def _end_quietly(error: BrokenPipeError) -> None:
  """Ends a program whose output is no longer read, by `head`, say."""
  output = sys.stdout.fileno()
  poll = select.poll()
  poll.register(output, 0)
  if not any(event & select.POLLERR for _, event in poll.poll(0)):
    raise error  # It was another pipe.
  nowhere = os.open(os.devnull, os.O_WRONLY)
  os.dup2(nowhere, output)  # For what is still to be flushed.
  os.close(nowhere)
  _exit(128 + signal.SIGPIPE)


def _show_unraisable(problem, show=sys.unraisablehook) -> None:
  """Ignores what Orbax's writers report after one of them has failed."""
  if str(problem.exc_value) != 'Event loop is closed':
    show(problem)


def _exit(code: int) -> None:
  """Exits, in one of several processes without waiting for the others."""
  if _has_company():
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
  sys.exit(code)


def _has_company() -> bool:
  """Whether other processes still expect to hear from this one."""
  jax = sys.modules.get('jax')  # An import takes long, and may not be needed.
  return jax is not None and jax.distributed.is_initialized()
