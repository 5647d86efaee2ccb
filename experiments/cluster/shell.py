"""Runs commands, or with a dry run shows them."""

from __future__ import annotations

from collections.abc import Sequence
import shlex
import shutil
import subprocess

from experiments.cli import UserError


class Shell:
  """Runs commands one after the other; each is shown first.

  Arguments reach a command as they are: no shell parses them.

  Attributes:
    dry_run: whether to show commands only.
  """

  def __init__(self, dry_run: bool):
    self.dry_run = dry_run

  def run(self, command: Sequence[str], stdin: str | None = None) -> None:
    """Runs a command; its output is shown to the user.

    Args:
      command: program and arguments.
      stdin: text that it reads, which is shown as well.

    Raises:
      UserError: when the program is missing, or fails.
    """
    print(f'$ {shlex.join(command)}', flush=True)
    if stdin is not None:
      print(''.join(f'| {line}\n' for line in stdin.splitlines()), end='',
            flush=True)
    if not self.dry_run:
      self._start(command, input=stdin)

  def ask(self, command: Sequence[str], dry_answer: str) -> str:
    """What a command prints, on one line.

    Args:
      command: program and arguments.
      dry_answer: given in a dry run, which shows the command.

    Returns:
      Its output; 'NOT_FOUND' where it fails because what it was asked about
      does not exist; '' after other failures, which may be temporary.
    """
    if self.dry_run:
      print(f'$ {shlex.join(command)}')
      return dry_answer
    try:
      return self._start(command, capture_output=True).stdout.strip()
    except UserError as error:
      is_missing = 'not_found' in str(error).lower().replace(' ', '_')
      return 'NOT_FOUND' if is_missing else ''

  def _start(self, command: Sequence[str], **options
             ) -> subprocess.CompletedProcess:
    if shutil.which(command[0]) is None:
      raise UserError(
          f'there is no {command[0]} here; install it, or look at the '
          'commands with --dry_run')
    done = subprocess.run(command, text=True, check=False, **options)
    if done.returncode:
      raise UserError(
          f'{shlex.join(command[:5])} ... failed with {done.returncode}'
          + (f': {" ".join(done.stderr.split())}' if done.stderr else ''))
    return done
