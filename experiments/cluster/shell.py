"""Runs commands, or only shows them in a dry run."""

from __future__ import annotations

from collections.abc import Sequence
import shlex
import shutil
import subprocess

from experiments.cli import UserError


class Shell:
  """Runs commands one after the other; each is shown first.

  Arguments reach a command unchanged: no shell parses them.

  Attributes:
    dry_run: whether to show commands without running them.
  """

  def __init__(self, dry_run: bool):
    self.dry_run = dry_run

  def run(self, command: Sequence[str], stdin: str | None = None) -> None:
    """Runs a command; its output is shown to the user.

    Args:
      command: program and arguments.
      stdin: text for the command to read, which is shown as well.

    Raises:
      UserError: when the program is missing, or fails.
    """
    # Flushed, to stay ahead of the output that the command itself prints.
    print(f'$ {shlex.join(command)}', flush=True)
    if stdin is not None:
      print(''.join(f'| {line}\n' for line in stdin.splitlines()), end='',
            flush=True)
    if not self.dry_run:
      self._start(command, input=stdin)

  def ask(self, command: Sequence[str], dry_answer: str) -> str:
    """The output of a command that prints one line.

    Args:
      command: program and arguments.
      dry_answer: answer in a dry run, which only shows the command.

    Returns:
      The output; 'NOT_FOUND' if the command fails because the thing it asks
      about does not exist; '' after other failures, which may be temporary.
    """
    if self.dry_run:
      print(f'$ {shlex.join(command)}')
      return dry_answer
    try:
      return self._start(command, capture_output=True).stdout.strip()
    except UserError as error:
      # gcloud says both NOT_FOUND and 'not found'.
      is_missing = 'not_found' in str(error).lower().replace(' ', '_')
      return 'NOT_FOUND' if is_missing else ''

  def _start(self, command: Sequence[str], **options
             ) -> subprocess.CompletedProcess:
    if shutil.which(command[0]) is None:
      raise UserError(
          f'{command[0]} is not installed here; install it, or see the '
          'commands with --dry_run')
    done = subprocess.run(command, text=True, check=False, **options)
    if done.returncode:
      raise UserError(
          f'{shlex.join(command[:5])} ... failed with {done.returncode}'
          + (f': {" ".join(done.stderr.split())}' if done.stderr else ''))
    return done
