"""Performs runs as processes, a few at a time, until a signal stops them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import os
import shlex
import signal
import subprocess
import sys
import time
from typing import NamedTuple

from experiments.cli import StoppedError
from experiments.runs.interrupts import Interrupts
from experiments.studies import plan, state
from experiments.studies.plan import Run

LOG_FILE = 'study.log'
_LAST_LINES = 8
_POLL_SECONDS = 0.1


class Failure(NamedTuple):
  """A run that failed, and the exit code of the command that did."""

  run: Run
  code: int


def perform(
    runs: Sequence[Run],
    *,
    jobs: int = 1,
    gpus: Sequence[str] = (),
    after: Callable[[], None] = lambda: None,
    commands: Callable[[Run], list[list[str]]] = plan.commands,
) -> list[Failure]:
  """Performs runs, `jobs` at a time; a failed one does not stop the others.

  Args:
    runs: runs that are not complete.
    jobs: number of runs at a time.
    gpus: numbers of the GPUs to use, one for each of the jobs in turn; () lets
      every process see all devices.
    after: function called after each run.
    commands: function that returns the commands of a run, which are performed
      one after the other.

  Returns:
    The runs that failed.

  Raises:
    StoppedError: when a signal arrived. It was passed on, and the processes
      have ended.
  """
  work = _Work(runs, jobs, gpus, commands)
  with Interrupts('stopping the runs in progress', work.kill) as interrupts:
    try:
      while work.active or work.waiting and not interrupts.signum:
        work.start_jobs(interrupts)
        for job in list(work.active):
          if interrupts.signum:
            job.stop(interrupts.signum)
          if job.is_over():
            work.end(job, is_stopped=bool(interrupts.signum))
            after()
        time.sleep(_POLL_SECONDS)
    finally:  # For example because `after` finds the disk full.
      for job in work.active:
        job.stop(signal.SIGTERM)
        job.process.wait()
  if interrupts.signum:
    raise StoppedError(
        f'{work.progress.done} of {len(runs)} runs are done; run the same '
        'command to resume', interrupts.signum)
  return work.failures


class _Job:
  """A run whose commands are performed.

  Attributes:
    run: the run.
    slot: its place among the jobs that run at the same time.
    process: process of the current command.
    code: exit code of the last command that has ended.
    seconds: time since the start.
  """

  def __init__(self, run: Run, commands: list[list[str]], slot: int,
               environment: dict[str, str]):
    self.run, self.slot, self.code = run, slot, 0
    self._commands, self._environment = list(commands), environment
    self._begin, self._stopped = time.monotonic(), False
    os.makedirs(run.workdir, exist_ok=True)
    state.forget(run)
    self._start()

  def stop(self, signum: int) -> None:
    """Passes a signal on, once, and starts no further command."""
    if not self._stopped:
      self._stopped = True
      self.process.send_signal(signum)

  def is_over(self) -> bool:
    """Starts the next command once one has ended; whether none is left."""
    code = self.process.poll()
    if code is None:
      return False
    self.code = code
    if code == 0 and self._commands:
      if self._stopped:
        self.code = 1  # Not complete.
        return True
      self._start()
      return False
    if code == 0:
      state.remember(self.run, self.seconds)
    return True

  @property
  def seconds(self) -> float:
    return time.monotonic() - self._begin

  def _start(self) -> None:
    command = self._commands.pop(0)
    path = os.path.join(self.run.workdir, LOG_FILE)
    with open(path, 'a', encoding='utf-8') as log:
      log.write(f'$ {shlex.join(command)}\n')
      log.flush()
      # In a session of its own: Ctrl-C in a terminal would reach it as well,
      # and two signals stop training without saving.
      self.process = subprocess.Popen(
          command, stdin=subprocess.DEVNULL, stdout=log,
          stderr=subprocess.STDOUT, env=self._environment,
          start_new_session=True)


class _Work:
  """What is waiting, in progress and done.

  Attributes:
    waiting: runs that have not started.
    active: runs in progress.
    failures: runs that failed.
    progress: prints lines.
  """

  def __init__(self, runs: Sequence[Run], jobs: int, gpus: Sequence[str],
               commands: Callable[[Run], list[list[str]]]):
    self.waiting, self.active, self.failures = list(runs), [], []
    self._jobs, self._gpus, self._commands = jobs, gpus, commands
    self.progress = _Progress(len(runs), jobs)

  def start_jobs(self, interrupts: Interrupts) -> None:
    """Starts runs while there is a free slot, and no signal."""
    while (self.waiting and len(self.active) < self._jobs
           and not interrupts.signum):
      slot = min(set(range(self._jobs)) - {job.slot for job in self.active})
      run = self.waiting.pop(0)
      self.progress.show_start(run)
      self.active.append(_Job(run, self._commands(run), slot, _environment(
          slot, self._jobs, self._gpus)))

  def kill(self) -> None:
    """Ends what is in progress, at once."""
    for job in self.active:
      job.process.kill()

  def end(self, job: _Job, *, is_stopped: bool) -> None:
    """Counts a job that is over, and prints how it ended."""
    self.active.remove(job)
    if not job.code:
      self.progress.show_end(job.run, job.seconds)
    elif not is_stopped:
      self.failures.append(Failure(job.run, job.code))
      _show_failure(self.failures[-1])


class _Progress:
  """Lines that say which run is in progress, and how long the rest takes."""

  def __init__(self, total: int, jobs: int):
    self.done = 0
    self._total, self._jobs, self._started = total, jobs, 0
    self._begin, self._seconds = time.monotonic(), []

  def show_start(self, run: Run) -> None:
    """Prints a line when a run starts."""
    left = ''
    if self._seconds:
      mean = sum(self._seconds) / len(self._seconds)
      rest = mean * (self._total - self._started) / self._jobs
      left = f', about {duration(rest)} left'
    self._started += 1
    print(f'run {self._started} of {self._total}: {run.name}; '
          f'{duration(time.monotonic() - self._begin)} so far{left}',
          flush=True)

  def show_end(self, run: Run, seconds: float) -> None:
    """Prints a line when a run is complete."""
    self.done += 1
    self._seconds.append(seconds)
    print(f'  done: {run.name}, in {duration(seconds)}', flush=True)


def duration(seconds: float) -> str:
  """A time as text, such as 1:02:03."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return (f'{hours}:{minutes:02}:{seconds:02}' if hours
          else f'{minutes}:{seconds:02}')


def last_lines(path: str, number: int = _LAST_LINES) -> list[str]:
  """The last lines of a log, without those that progress bars replaced."""
  with open(path, encoding='utf-8', errors='replace') as file:
    lines = [line.rstrip('\n').rpartition('\r')[2] for line in file]
  return [line for line in lines if line.strip()][-number:]


def _show_failure(failure: Failure) -> None:
  path = os.path.join(failure.run.workdir, LOG_FILE)
  lines = ''.join(f'  | {line}\n' for line in last_lines(path))
  print(f'failed: {failure.run.name}, with exit code {failure.code}; the end '
        f'of {path}:\n{lines}', end='', file=sys.stderr, flush=True)


def _environment(slot: int, jobs: int, gpus: Sequence[str]
                 ) -> dict[str, str]:
  """Variables of the processes in a slot."""
  changes = {'PYTHONUNBUFFERED': '1'}
  if gpus:
    changes['CUDA_VISIBLE_DEVICES'] = gpus[slot % len(gpus)]
  if jobs > max(1, len(gpus)) and (
      'XLA_PYTHON_CLIENT_PREALLOCATE' not in os.environ):
    # By default the first process takes most of a GPU's memory.
    changes['XLA_PYTHON_CLIENT_PREALLOCATE'] = 'false'
  return os.environ | changes
