"""Settings of the test run: four virtual CPU devices, counted compilations.

JAX_PLATFORMS=cuda runs the tests on a GPU instead.
"""

import contextlib
import gc
from importlib import metadata
import os

import pytest

# Before JAX is imported: the layouts of pmap and shard_map need devices.
_COUNT_FLAG = '--xla_force_host_platform_device_count'
if _COUNT_FLAG not in os.environ.get('XLA_FLAGS', ''):
  os.environ['XLA_FLAGS'] = (
      f'{os.environ.get("XLA_FLAGS", "")} {_COUNT_FLAG}=4'.strip())
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# The programs of tests run for less time than their optimisation would take.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
# Two workers keep both cores busy; threads of BLAS would only wait for each
# other. With them, tests with float64 references took three times as long.
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')
os.environ.setdefault('OMP_NUM_THREADS', '1')
# XLA's newer code generator takes twice as long; later versions have no other.
if metadata.version('jaxlib').startswith('0.10.'):
  os.environ['XLA_FLAGS'] += ' --xla_cpu_use_fusion_emitters=false'
if os.environ['JAX_PLATFORMS'] != 'cpu':
  # References are float64: the ten bits that a GPU multiplies float32 with by
  # default are too few to compare with them.
  os.environ.setdefault('JAX_DEFAULT_MATMUL_PRECISION', 'highest')
  # A GPU adds up groups in any order; tests compare bits.
  os.environ['XLA_FLAGS'] += ' --xla_gpu_deterministic_ops=true'

_COMPILE_EVENT = '/jax/core/compile/backend_compile_duration'


@pytest.fixture(autouse=True, scope='session')
def _cache(tmp_path_factory):
  """Keeps what is prepared, and drawn, out of the user's own cache.

  Tests, the processes that they start and the other worker share what they
  compile: most of their time.
  """
  import jax  # Not at the top: the flags above come first.

  root = tmp_path_factory.getbasetemp()
  if 'PYTEST_XDIST_WORKER' in os.environ:  # The folder of this worker.
    root = root.parent
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
    for name, value in {
        'jax_compilation_cache_dir': str(root / 'compiled'),
        'jax_persistent_cache_min_compile_time_secs': 0.0,
        'jax_persistent_cache_min_entry_size_bytes': -1}.items():
      jax.config.update(name, value)
      patch.setenv(name.upper(), str(value))
    yield


@pytest.fixture(autouse=True, scope='module')
def _programs():
  """Frees what has been compiled once it is a lot.

  Every program maps memory, and Linux ends a process of more than 65,530 maps
  with a segmentation fault. All files together would come close to it.
  """
  import jax  # Not at the top: the flags above come first.

  yield
  try:
    with open('/proc/self/maps') as file:
      num_maps = sum(1 for _ in file)
  except OSError:  # Not Linux.
    num_maps = 0
  if num_maps > 25_000:
    jax.clear_caches()
    gc.collect()


@pytest.fixture(scope='session')
def images(tmp_path_factory):
  """A small folder of images per group, for processes that train."""
  from tests.helpers import processes

  return processes.make_images(tmp_path_factory.mktemp('images') / 'data')


@pytest.fixture
def compilations():
  """Context manager that lists the names of what XLA compiles meanwhile."""
  import jax

  @contextlib.contextmanager
  def listen():
    names = []

    def listener(event, seconds, **tags):
      del seconds
      if event == _COMPILE_EVENT:
        names.append(tags.get('fun_name', ''))

    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
      yield names
    finally:
      jax.monitoring.unregister_event_duration_listener(listener)

  return listen
