"""Strided and transposed convolutions: the same functions as flax's.

Sizes are small, and no two of them are alike where that matters.
"""

import functools

from flax import linen as nn
import jax
from jax import export
import jax.numpy as jnp
import numpy as np
import pytest

from mlvae_jax.model import convolution
from mlvae_jax.model.convolution import downsample, upsample

# N, H, W of the smaller images, and channels of the input and of the output.
SIZES = {
    'square': (2, 4, 4, 3, 5),
    'wide, one row, one channel': (1, 2, 5, 1, 4),
    'tall, one output': (3, 7, 1, 5, 1),
    'a pixel': (1, 1, 1, 1, 1),
}
SOME = 'wide, one row, one channel'

each_size = pytest.mark.parametrize('size', SIZES)
each_function = pytest.mark.parametrize('function', [downsample, upsample])


def _flax(function):
  """The same function of flax."""
  layer = {downsample: nn.Conv, upsample: nn.ConvTranspose}[function]

  def apply(x, kernel):
    module = layer(
        kernel.shape[-1], (4, 4), (2, 2), padding='SAME', use_bias=False)
    return module.apply({'params': {'kernel': kernel}}, x)

  return apply


def _inputs(function, size, *leading, seed=0):
  """Images, a kernel and a cotangent of the function's result."""
  rng = np.random.default_rng(seed)
  rows, height, width, channels, features = SIZES[size]
  small, large = (height, width), (2 * height, 2 * width)
  before, after = (
      (large, small) if function is downsample else (small, large))
  shapes = ((rows, *before, channels), (4, 4, channels, features),
            (rows, *after, features))
  return tuple(
      rng.normal(size=(*leading, *shape)).astype(np.float32)
      for shape in shapes)


def _value_and_gradients(function, x, kernel, g):
  """The function's value, and its gradients where that has gradient g."""
  value, pull_back = jax.vjp(function, x, kernel)
  return value, *pull_back(g)


_jitted = jax.jit(_value_and_gradients, static_argnums=0)


@functools.cache
def _expected(function, size):
  """What flax gives."""
  return jax.jit(functools.partial(_value_and_gradients, _flax(function)))(
      *_inputs(function, size))


def _assert_close(found, expected):
  """Arrays are equal, relative to the largest element of each."""
  for a, b in zip(found, expected, strict=True):
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.max(np.abs(b)))


# The same as flax's.


@each_size
@each_function
def test_values_and_gradients_are_those_of_flax(function, size):
  _assert_close(
      _jitted(function, *_inputs(function, size)), _expected(function, size))


@each_function
def test_without_jit_too(function):
  _assert_close(
      _value_and_gradients(function, *_inputs(function, SOME)),
      _expected(function, SOME))


@pytest.mark.parametrize('shared', [None, 'images', 'kernel'])
@each_function
def test_vmap_equals_one_after_the_other(function, shared):
  inputs = list(_inputs(function, SOME, 3))
  axes = [0, 0, 0]
  if shared is not None:
    i = ('images', 'kernel').index(shared)
    inputs[i], axes[i] = inputs[i][0], None
  found = jax.jit(jax.vmap(
      functools.partial(_value_and_gradients, function), axes))(*inputs)
  each = [
      _jitted(function, *(value if axis is None else value[n]
                          for value, axis in zip(inputs, axes)))
      for n in range(3)]
  _assert_close(found, [np.stack(values) for values in zip(*each)])


@each_function
def test_inside_a_scan(function):
  x, kernel, g = _inputs(function, SOME, 3)
  kernel = kernel[0]

  def total(function, kernel):
    def step(carry, inputs):
      return carry + jnp.vdot(function(inputs[0], kernel), inputs[1]), None

    return jax.lax.scan(step, 0.0, (x, g))[0]

  found = jax.jit(jax.grad(functools.partial(total, function)))(kernel)
  expected = sum(
      _jitted(function, x[n], kernel, g[n])[2] for n in range(3))
  _assert_close([found], [expected])


@each_function
def test_gradients_have_gradients(function):
  x, kernel, g = _inputs(function, SOME)

  def roughness(function, x, kernel):
    """Both gradients of a function that is not linear in either, squared."""
    grads = jax.grad(
        lambda *args: jnp.vdot(function(*args) ** 2, g), (0, 1))(x, kernel)
    return sum(jnp.sum(grad ** 2) for grad in grads)

  found, expected = (
      jax.jit(jax.grad(functools.partial(roughness, f), (0, 1)))(x, kernel)
      for f in (function, _flax(function)))
  _assert_close(found, expected)


@each_function
def test_forward_mode_is_refused_as_the_readme_says(function):
  x, kernel, _ = _inputs(function, SOME)
  with pytest.raises(TypeError, match='forward-mode'):
    jax.jvp(function, (x, kernel), (x, kernel))


def test_each_is_the_transpose_of_the_other():
  x, kernel, g = _inputs(downsample, 'square')
  transposed = kernel[::-1, ::-1].swapaxes(2, 3)
  np.testing.assert_allclose(
      np.vdot(jax.jit(downsample)(x, kernel), g),
      np.vdot(x, jax.jit(upsample)(g, transposed)), rtol=1e-4)


# Many images, and other types of numbers.


def _normal(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize('images', [3, 4, 7])
@pytest.mark.parametrize('channels', [2, 5])
@each_function
def test_blocks_of_images_change_nothing(
    monkeypatch, function, channels, images):
  # Of two images each, from two on: up to 3 blocks, and up to 3 images besides.
  split = convolution._split
  monkeypatch.setattr(
      convolution, '_split', lambda x, size, at_least: split(
          x, convolution._BLOCK // 2, 2))
  small, large = (images, 3, 2), (images, 6, 4)
  before, after = (
      (large, small) if function is downsample else (small, large))
  inputs = (_normal(*before, channels), _normal(4, 4, channels, 3),
            _normal(*after, 3))
  jax.clear_caches()
  found = _value_and_gradients(function, *inputs)
  jax.clear_caches()
  _assert_close(found, _value_and_gradients(_flax(function), *inputs))


@pytest.mark.parametrize('form, shapes', [
    (convolution._multiply_patches, ((32, 32, 4), (4, 4, 4, 16))),
    (convolution._overlap_add, ((16, 16, 16), (4, 4, 16, 8))),
    (convolution._correlate, ((32, 32, 4), (16, 16, 8)))])
def test_memory_is_that_of_a_block(form, shapes):
  def temporary_bytes(images):
    arrays = [
        jax.ShapeDtypeStruct(
            shape if shape[0] == 4 else (images, *shape), jnp.float32)
        for shape in shapes]
    compiled = jax.jit(form).lower(*arrays).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  # All patches of 1,024 images take 64 MiB or more.
  assert temporary_bytes(1024) < 16 * 2**20


@each_function
def test_float64_is_computed_in_float64(function):
  with jax.enable_x64(True):
    inputs = [value.astype(np.float64) for value in _inputs(function, SOME)]
    found, expected = (
        jax.jit(functools.partial(_value_and_gradients, f))(*inputs)
        for f in (function, _flax(function)))
  for a, b in zip(found, expected, strict=True):
    assert a.dtype == np.float64
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-13 * np.max(np.abs(b)))


@each_function
def test_bfloat16_rounds_once_or_twice(function):
  inputs = [jnp.asarray(value, jnp.bfloat16)
            for value in _inputs(function, 'square')]
  exact = _jitted(function, *(value.astype(np.float32) for value in inputs))
  for a, b in zip(_jitted(function, *inputs), exact, strict=True):
    assert a.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        a.astype(np.float32), b, rtol=0, atol=2**-6 * np.max(np.abs(b)))


def test_blocks_are_added_up_in_float32(monkeypatch):
  monkeypatch.setattr(convolution, '_BLOCK', 1)  # An image each.
  ones = jnp.ones((300, 2, 2, 1), jnp.bfloat16)
  # Of ones, bfloat16 would count to 256.
  np.testing.assert_array_equal(
      jax.jit(convolution._correlate)(ones, ones[:, :1, :1])[1:3, 1:3], 300)


# Forms for one platform or another.


@each_size
def test_the_forms_of_all_platforms_agree(size):
  x, kernel, g = _inputs(upsample, size)
  overlap_add, transposed = (
      jax.jit(form)(x, kernel) for form in (
          convolution._overlap_add, convolution._convolve_transposed))
  correlate, by_xla = (
      jax.jit(form)(g, x) for form in (
          convolution._correlate, convolution._correlate_by_xla))
  multiply, convolve = (
      jax.jit(form)(g, kernel.swapaxes(2, 3)) for form in (
          convolution._multiply_patches, convolution._convolve))
  _assert_close(
      [overlap_add, correlate, multiply], [transposed, by_xla, convolve])
  np.testing.assert_array_equal(
      correlate.shape, (4, 4, g.shape[-1], x.shape[-1]))


def _lowered(function, platform, *inputs):
  """The program for a platform, which need not be there."""
  lowered = export.export(jax.jit(function), platforms=[platform])(*inputs)
  return lowered.mlir_module()


@pytest.mark.parametrize('platform, dilates, multiplies', [
    ('cpu', False, True), ('cuda', True, False), ('tpu', True, False)])
def test_only_a_cpu_gets_the_forms_without_dilation(
    platform, dilates, multiplies):
  text = _lowered(upsample, platform, *_inputs(upsample, 'square')[:2])
  assert ('lhs_dilate = [2, 2]' in text) == dilates
  assert ('dot_general' in text) == multiplies


@pytest.mark.parametrize('platform, channels, multiplies', [
    ('cpu', 3, True), ('cpu', 16, False), ('cuda', 3, False)])
def test_few_channels_are_multiplied_on_a_cpu(platform, channels, multiplies):
  text = _lowered(downsample, platform, _normal(2, 4, 4, channels),
                  _normal(4, 4, channels, 5))
  assert ('dot_general' in text) == multiplies
  assert ('stablehlo.convolution' in text) != multiplies
