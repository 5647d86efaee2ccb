"""SIGINT and SIGTERM as requests to stop, answered at a convenient time."""

from __future__ import annotations

from collections.abc import Callable
import os
import signal
import socket
import sys
import threading

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
  """While this context is open, signals are noted and do not end the process.

  A second Ctrl-C ends it at once. A thread listens, because Python's own
  handlers would wait until the devices have finished a chunk.

  Attributes:
    signum: number of the first signal; 0 before there was one.
  """

  def __init__(self, what: str, at_once: Callable[[], None] | None = None):
    """Notes what to say, and what to do.

    Args:
      what: what happens before the end, printed after the first signal.
      at_once: function called before a second Ctrl-C ends the process.
    """
    self.signum = 0
    self._at_once = at_once
    self._what = what

  def __enter__(self) -> Interrupts:
    self._read, self._write = socket.socketpair()
    # A signal handler must never block; a full buffer may drop signals, since
    # the first ones are all that count.
    self._write.setblocking(False)
    # A Python handler has to be installed, or the default action would end the
    # process; the number itself comes through the socket.
    self._handlers = {
        number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
    self._wakeup = signal.set_wakeup_fd(
        self._write.fileno(), warn_on_full_buffer=False)
    self._listener = threading.Thread(target=self._listen, daemon=True)
    self._listener.start()
    return self

  def __exit__(self, *_) -> None:
    # Before the socket closes, so that no signal is written to a closed one.
    signal.set_wakeup_fd(self._wakeup)
    for number, handler in self._handlers.items():
      signal.signal(number, handler)
    self._write.close()  # Ends the listener.
    self._listener.join()
    self._read.close()

  def _listen(self) -> None:
    while received := self._read.recv(1):
      number = received[0]
      if number not in _SIGNALS:  # Every handled signal wakes this thread.
        continue
      if self.signum and number == signal.SIGINT:
        print('\nstopped at once', file=sys.stderr, flush=True)
        if self._at_once:
          self._at_once()
        os._exit(128 + number)  # From a thread, sys.exit ends only the thread.
      if not self.signum:
        self.signum = number
        print(f'\n{signal.Signals(number).name}: {self._what}'
              + ('; Ctrl-C again stops at once'
                 if number == signal.SIGINT else ''),
              file=sys.stderr, flush=True)
