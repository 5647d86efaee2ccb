"""Options of XLA that make programs faster than its defaults do."""

from __future__ import annotations

from importlib import metadata
import os

# Of convolutions, Eigen computes most shapes faster than YNNPACK, above all on
# several threads. Matrix products stay with YNNPACK, which is faster there.
_OPTION = '--xla_cpu_experimental_ynn_fusion_type'
_VALUE = 'LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT'
# XLA ends a process whose options it does not know.
_JAXLIB = ((0, 10), (0, 12))


def choose_options() -> None:
  """Adds to XLA_FLAGS what the user has not set; before JAX's first program.

  `docs/benchmarks.md` has what it gains.
  """
  version = tuple(map(int, metadata.version('jaxlib').split('.')[:2]))
  flags = os.environ.get('XLA_FLAGS', '')
  if _JAXLIB[0] <= version <= _JAXLIB[1] and _OPTION not in flags:
    os.environ['XLA_FLAGS'] = f'{flags} {_OPTION}={_VALUE}'.strip()
