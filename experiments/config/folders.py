"""Where the project keeps what can be made again."""

from __future__ import annotations

import os


def cache_folder() -> str:
  """The project's folder in the user's cache; it may not exist yet."""
  parent = os.environ.get('XDG_CACHE_HOME') or os.path.join('~', '.cache')
  return os.path.join(os.path.expanduser(parent), 'mlvae_jax')
