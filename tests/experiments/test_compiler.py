"""Options of XLA, unless the user chose otherwise."""

import os
import subprocess
import sys

import pytest

from experiments import compiler
from tests.helpers import ROOT

_CHOSEN = ('--xla_cpu_experimental_ynn_fusion_type='
           'LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT')


@pytest.mark.parametrize(('before', 'after'), [
    ('', _CHOSEN),
    ('--xla_a=b', f'--xla_a=b {_CHOSEN}'),
    ('--xla_cpu_experimental_ynn_fusion_type=',
     '--xla_cpu_experimental_ynn_fusion_type=')])
def test_users_options_stay(before, after, monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', before)
  compiler.choose_options()
  assert os.environ['XLA_FLAGS'] == after


@pytest.mark.parametrize('version', ['0.9.2', '0.13.0', '1.0.0.dev3'])
def test_versions_that_may_not_know_the_option_get_none(version, monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', '--xla_a=b')
  monkeypatch.setattr(compiler.metadata, 'version', lambda _: version)
  compiler.choose_options()
  assert os.environ['XLA_FLAGS'] == '--xla_a=b'


def test_this_jaxlib_takes_the_option_and_leaves_convolutions_to_eigen():
  code = """
import jax, jax.numpy as jnp
from experiments.compiler import choose_options
choose_options()
layout = ('NHWC', 'HWIO', 'NHWC')
convolve = jax.jit(lambda x, k: jax.lax.conv_general_dilated(
    x, k, (2, 2), 'SAME', dimension_numbers=layout))
x, kernel = jnp.ones((128, 16, 16, 32)), jnp.ones((4, 4, 32, 64))
print('ynn' in convolve.lower(x, kernel).compile().as_text())
"""
  env = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': ''}
  done = subprocess.run([sys.executable, '-c', code], env=env, cwd=ROOT,
                        capture_output=True, text=True, check=False)
  assert done.stdout == 'False\n', done.stderr
