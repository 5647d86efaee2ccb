"""Code that all entry points share: exit codes, one-line errors, quiet logs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import errno
import logging
import os
import select
import signal
import sys
import tempfile
import traceback

from absl import app, flags
from absl import logging as absl_logging

from experiments.cache import keep_compiled
from experiments.compiler import choose_options
from experiments.config.flags import HelpFlag

# What to do about errors of the system that name a path.
_MENDS = {
    IsADirectoryError: '; a file is needed there, so move the folder away',
    NotADirectoryError: '; a folder is needed there, so move the file away or '
                        'name another folder',
    FileExistsError: '; a folder is needed there, so move the file away or '
                     'name another folder',
    PermissionError: '; check its permissions, or name another folder'}


class UserError(Exception):
  """A user's mistake: one line that says what is wrong and what to do.

  Entry points print it and exit with 1, without a traceback.
  """


class StoppedError(Exception):
  """A signal ended the work early, and the work done so far is kept."""

  def __init__(self, message: str, signum: int):
    super().__init__(message)
    self.code = 128 + signum  # As of a process that the signal killed.


def run(main: Callable[[], None]) -> None:
  """Parses flags and runs `main`; exits with 0, 1 (error) or 2 (bad flag).

  After a signal that ended the work early the code is 128 plus its number.
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
  """Prints one line about a bad flag and exits with 2."""
  print(f'error: {message}', file=sys.stderr)
  sys.exit(2)


@contextlib.contextmanager
def checked_flags() -> Iterator[None]:
  """Reports a ValueError, which says which flag is wrong, as a bad flag."""
  try:
    yield
  except ValueError as error:
    bad_flag(str(error))


def check_writable(folder: str) -> None:
  """Checks, before long work starts, that a folder can be written to.

  Args:
    folder: path of an existing folder.

  Raises:
    UserError: when no file can be created in it.
  """
  # By writing: permission bits say nothing of read-only mounts and quotas.
  try:
    with tempfile.TemporaryFile(dir=folder):
      pass
  except OSError as error:
    raise UserError(
        f'cannot write to {folder}: {error.strerror}; check its permissions, '
        'and that the disk is not full') from error


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
  # Orbax and TFDS log here what they raise as well, or what does not concern
  # the user.
  logging.getLogger('absl').setLevel(logging.CRITICAL)
  if 'jax' in sys.modules:  # Not every program needs it.
    choose_options()
    keep_compiled()
  try:
    main()
  except StoppedError as stop:
    print(stop, file=sys.stderr)
    _exit(stop.code)
  except BrokenPipeError as error:
    _end_quietly(error)
  except UserError as error:
    _fail(str(error))
  except OSError as error:
    _fail(_explain(error))
  except KeyboardInterrupt:
    print('\ninterrupted', file=sys.stderr)
    _exit(130)
  except SystemExit as error:
    _exit(error.code)
  except Exception:
    # A plain exit would first wait for the other processes.
    if not _has_company():
      raise
    traceback.print_exc()
    _exit(1)


def _fail(message: str) -> None:
  print(f'error: {" ".join(message.split())}', file=sys.stderr)
  _exit(1)


def _explain(error: OSError) -> str:
  """An error of the system, with what to do about it."""
  if error.filename is None or error.strerror is None:
    return str(error)
  # Of a rename the new name counts; the old one is ours.
  path = os.fspath(error.filename2 or error.filename)
  while isinstance(error, (FileExistsError, NotADirectoryError)) and (
      not os.path.lexists(path) and os.path.dirname(path) != path):
    path = os.path.dirname(path)  # A file is where a folder above should be.
  mend = next((mend for kind, mend in _MENDS.items()
               if isinstance(error, kind)), '')
  if error.errno in (errno.ENOSPC, errno.EDQUOT):
    mend = '; free some space, then run the same command again'
  return f'cannot use {path}: {error.strerror}{mend}'


def _end_quietly(error: BrokenPipeError) -> None:
  """Ends a program whose output is no longer read, for example by `head`."""
  output = sys.stdout.fileno()
  poll = select.poll()
  poll.register(output, 0)
  if not any(event & select.POLLERR for _, event in poll.poll(0)):
    raise error  # It was another pipe.
  nowhere = os.open(os.devnull, os.O_WRONLY)
  os.dup2(nowhere, output)  # Python still flushes its buffer at exit.
  os.close(nowhere)
  _exit(128 + signal.SIGPIPE)


def _show_unraisable(problem, show=sys.unraisablehook) -> None:
  """Drops the follow-up errors of Orbax's writers after one has failed."""
  if str(problem.exc_value) != 'Event loop is closed':
    show(problem)


def _exit(code: int) -> None:
  """Exits; one of several processes does not wait for the others."""
  if _has_company():
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
  sys.exit(code)


def _has_company() -> bool:
  """Whether other processes still expect to hear from this one."""
  jax = sys.modules.get('jax')  # Importing it here would slow every exit.
  return jax is not None and jax.distributed.is_initialized()
