"""Compiled programs are kept, unless the user chose otherwise."""

import os
import shutil
import time

import jax
from jax.experimental.compilation_cache import compilation_cache
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.cache import cache_folder, keep_compiled


@pytest.fixture(autouse=True)
def _settings(monkeypatch, tmp_path):
  """Restores JAX's settings after a test."""
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  names = ('jax_compilation_cache_dir',
           'jax_persistent_cache_min_compile_time_secs')
  before = {name: getattr(jax.config, name) for name in names}
  jax.config.update('jax_compilation_cache_dir', None)
  yield
  for name, value in before.items():
    jax.config.update(name, value)


def _folder(tmp_path):
  (folder,) = (tmp_path / 'mlvae_jax').iterdir()
  return folder


def test_programs_are_kept_in_the_users_cache(tmp_path):
  keep_compiled()
  assert jax.config.jax_compilation_cache_dir == str(_folder(tmp_path))


def test_a_folder_that_the_user_chose_stays(tmp_path):
  jax.config.update('jax_compilation_cache_dir', '/elsewhere')
  keep_compiled()
  assert jax.config.jax_compilation_cache_dir == '/elsewhere'
  assert not list(tmp_path.iterdir())


def test_old_programs_are_removed(tmp_path):
  keep_compiled()
  jax.config.update('jax_compilation_cache_dir', None)
  for name, days in (('old', 31), ('new', 29)):
    path = _folder(tmp_path) / name
    path.write_bytes(b'')
    when = time.time() - days * 86400
    os.utime(path, (when, when))
  keep_compiled()
  assert [path.name for path in _folder(tmp_path).iterdir()] == ['new']


def test_damaged_programs_are_compiled_again_without_a_warning(tmp_path):
  keep_compiled()
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)

  def run():
    jax.clear_caches()
    return jax.jit(lambda x: jnp.cumsum(jnp.sin(x)))(jnp.ones(3))

  try:
    compilation_cache.reset_cache()  # JAX opens a folder once.
    first = run()
    paths = list(_folder(tmp_path).iterdir())
    assert paths
    for path in paths:
      path.write_bytes(path.read_bytes()[:10])
    np.testing.assert_array_equal(run(), first)
    shutil.rmtree(_folder(tmp_path))
    np.testing.assert_array_equal(run(), first)
  finally:
    compilation_cache.reset_cache()


@pytest.mark.parametrize('parent', ['', 'relative', './relative'])
def test_a_cache_that_is_not_an_absolute_path_is_ignored(
    monkeypatch, tmp_path, parent):
  monkeypatch.setenv('XDG_CACHE_HOME', parent)
  monkeypatch.setenv('HOME', str(tmp_path))
  assert cache_folder() == str(tmp_path / '.cache' / 'mlvae_jax')


def test_a_home_that_cannot_be_written_to_is_no_error(tmp_path):
  (tmp_path / 'mlvae_jax').write_text('a file')
  keep_compiled()
  assert jax.config.jax_compilation_cache_dir is None
