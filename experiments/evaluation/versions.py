"""Versions of Python and of the packages that results depend on."""

from __future__ import annotations

from importlib import metadata
import platform

import mlvae_jax

_PACKAGES = ('jax', 'flax', 'optax', 'orbax-checkpoint', 'numpy')


def versions() -> dict[str, str]:
  """The versions installed, by name."""
  return {'Python': platform.python_version(),
          'mlvae_jax': mlvae_jax.__version__,
          **{name: metadata.version(name) for name in _PACKAGES}}
