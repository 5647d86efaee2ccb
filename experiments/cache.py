"""The project's folder in the user's cache, and compiled programs in it.

A run compiles for longer than it computes, if it is short. JAX can keep what it
has compiled, but by default it does not.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import time
import warnings

# JAX keeps programs by default only if they took longer than a second.
_MIN_SECONDS = 0.2
_MAX_AGE = 30 * 86400  # In seconds. A program in use is then compiled again.


def cache_folder() -> str:
  """The project's folder in the user's cache; it may not exist yet."""
  parent = os.path.expanduser(os.environ.get('XDG_CACHE_HOME', ''))
  # The XDG specification has relative paths ignored.
  if not os.path.isabs(parent):
    parent = os.path.expanduser(os.path.join('~', '.cache'))
  return os.path.join(parent, 'mlvae_jax')


def keep_compiled() -> None:
  """Keeps compiled programs for later runs, unless the user chose otherwise.

  JAX's own settings go first: JAX_COMPILATION_CACHE_DIR names another folder,
  and JAX_ENABLE_COMPILATION_CACHE=false keeps nothing.
  """
  import jax  # Slow, and not every program that has a cache needs it.

  if jax.config.jax_compilation_cache_dir is not None:
    return
  folder = os.path.join(cache_folder(), f'compiled-{_processor()}')
  try:
    os.makedirs(folder, exist_ok=True)
    _remove_old(folder)
  except OSError:  # A home that cannot be written to only costs time.
    return
  # A program that cannot be read or written, as where a run was killed, the
  # disk is full or another run is writing it, is just compiled again.
  warnings.filterwarnings(
      'ignore', 'Error (reading|writing) persistent compilation cache')
  jax.config.update('jax_compilation_cache_dir', folder)
  jax.config.update('jax_persistent_cache_min_compile_time_secs', _MIN_SECONDS)


def _processor() -> str:
  """A name of the kind of processor: programs suit one kind only.

  Several machines may share a home.
  """
  try:
    with open('/proc/cpuinfo', encoding='utf-8') as file:
      kind = sorted({line for line in file if line.startswith(
          ('model name', 'flags', 'Features', 'CPU part'))})
  except OSError:
    kind = [platform.processor()]
  return hashlib.sha256(
      ''.join([platform.machine(), *kind]).encode()).hexdigest()[:12]


def _remove_old(folder: str) -> None:
  """Removes programs that were compiled long ago."""
  with os.scandir(folder) as entries:
    for entry in entries:
      # Another process may remove the same.
      with contextlib.suppress(FileNotFoundError):
        if time.time() - entry.stat().st_mtime > _MAX_AGE:
          os.remove(entry.path)
