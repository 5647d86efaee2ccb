"""Convolutions that halve and double images, fast on CPUs too.

Both have 4x4 kernels and stride 2, and each is the other's transpose. XLA's
own transposed convolution, and its gradients of strided ones, first dilate
their input with zeros; on a CPU they run at a tenth of the machine's speed,
and inside a loop the kernel's gradient at a thousandth. On a CPU, therefore,

- the strided convolution of few channels, such as colours, is one matrix
  product with all 4x4 patches; of more channels it is XLA's own;
- the transposed convolution is one matrix product, from each pixel to the 4x4
  patch that it contributes to, and an overlap-add of the patches;
- the gradient of one function with respect to its input is the other;
- the gradient with respect to the kernel is a convolution in a layout that
  XLA has fast code for;
- all but XLA's own take a block of images at a time: patches are 4 to 8 times
  as large as images, and those of a whole batch would leave the cache.

On other devices XLA's own forms are used. The functions are the same, but for
rounding. Their gradients are `custom_vjp`s, so forward mode is not supported.
`docs/benchmarks.md` has the times of these forms and of others.
"""

from __future__ import annotations

from collections.abc import Callable
import math

import jax
import jax.numpy as jnp

_LAYOUT = ('NHWC', 'HWIO', 'NHWC')
# Within `portable(True)` both functions are XLA's own on every platform, as
# converters to other formats need. JAX's caches of traced functions heed it.
portable = jax.make_user_context(False)
# Elements of the patches of a block of images: 4 MiB in float32.
_BLOCK = 2**20
# XLA's convolution is slow for at most this many channels.
_FEW_CHANNELS = 4


@jax.custom_vjp
def downsample(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Halves images: `flax.linen.Conv` of stride 2 without bias.

  Args:
    x: `[N, H, W, C]`, H and W even.
    kernel: `[4, 4, C, D]`.

  Returns:
    `[N, H / 2, W / 2, D]`.
  """
  if portable.value:
    return _convolve(x, kernel)
  few = x.shape[-1] <= _FEW_CHANNELS
  return jax.lax.platform_dependent(
      x, kernel, cpu=_multiply_patches if few else _convolve,
      default=_convolve)


@jax.custom_vjp
def upsample(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Doubles images: `flax.linen.ConvTranspose` of stride 2 without bias.

  Args:
    x: `[N, H, W, C]`.
    kernel: `[4, 4, C, D]`.

  Returns:
    `[N, 2 H, 2 W, D]`.
  """
  if portable.value:
    return _convolve_transposed(x, kernel)
  return jax.lax.platform_dependent(
      x, kernel, cpu=_overlap_add, default=_convolve_transposed)


def _downsample_gradient(saved, g):
  # The function is linear in x, so the gradient in x is its transpose.
  x, kernel = saved
  return upsample(g, _transpose(kernel)), _kernel_gradient(x, g)


def _upsample_gradient(saved, g):
  x, kernel = saved
  # <upsample(x, k), g> = <x, downsample(g, k^T)>: the kernel's gradient is that
  # of `downsample` with x and g exchanged, transposed back.
  return (downsample(g, _transpose(kernel)),
          _transpose(_kernel_gradient(g, x)))


downsample.defvjp(lambda *args: (downsample(*args), args),
                  _downsample_gradient)
upsample.defvjp(lambda *args: (upsample(*args), args), _upsample_gradient)


def _transpose(kernel: jax.Array) -> jax.Array:
  """The kernel `[4, 4, D, C]` of the transposed function."""
  return kernel[::-1, ::-1].swapaxes(2, 3)


def _kernel_gradient(x: jax.Array, g: jax.Array) -> jax.Array:
  """Gradient of <downsample(x, kernel), g> in the kernel, `[4, 4, C, D]`."""
  return jax.lax.platform_dependent(
      x, g, cpu=_correlate, default=_correlate_by_xla)


def _convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
  # A margin of 1 is what 'SAME' comes to for even sides: (4 - 2) / 2.
  return jax.lax.conv_general_dilated(
      x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=_LAYOUT)


def _convolve_transposed(x: jax.Array, kernel: jax.Array) -> jax.Array:
  return jax.lax.conv_transpose(
      x, kernel, (2, 2), 'SAME', dimension_numbers=_LAYOUT)


def _multiply_patches(x: jax.Array, kernel: jax.Array) -> jax.Array:
  height, width, channels = x.shape[1:]
  weights = kernel.reshape(16 * channels, -1)

  def apply(x):
    # Pairs of columns, since a patch is two of them, and starts at a pair.
    pairs = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))).reshape(
        x.shape[0], height + 2, width // 2 + 1, 2 * channels)
    patches = jnp.concatenate([
        pairs[:, a:a + height:2, b:b + width // 2]
        for a in range(4) for b in (0, 1)], axis=-1)
    return patches @ weights

  return _map_blocks(apply, x, 4 * height * width * channels)


def _overlap_add(x: jax.Array, kernel: jax.Array) -> jax.Array:
  height, width, channels = x.shape[1:]
  features = kernel.shape[-1]
  weights = kernel[::-1, ::-1].transpose(2, 0, 1, 3).reshape(channels, -1)

  def apply(x):
    patches = x.reshape(-1, channels) @ weights
    # A patch is 2x2 blocks of 2x2 pixels; block (a, b) of the patch at (i, j)
    # lands on block (i + a, j + b) of a result with a margin of one pixel.
    patches = patches.reshape(
        x.shape[0], height, width, 2, 2, 2, 2, features)
    blocks = patches.transpose(0, 3, 5, 1, 4, 2, 6, 7)
    total = jnp.asarray(sum(
        jnp.pad(blocks[:, a, b], (
            (0, 0), (a, 1 - a), (0, 0), (b, 1 - b), (0, 0), (0, 0)))
        for a in (0, 1) for b in (0, 1)))
    total = total.reshape(x.shape[0], 2 * height + 2, 2 * width + 2, features)
    return total[:, 1:-1, 1:-1]

  return _map_blocks(apply, x, 16 * height * width * features)


def _map_blocks(apply: Callable, x: jax.Array, size: int) -> jax.Array:
  """Maps images in blocks; an image takes this many elements of memory."""
  # Of fewer blocks, most patches stay in the cache anyway.
  blocks, rest = _split(x, size, at_least=4)
  if not len(blocks):
    return apply(x)
  done = jax.lax.map(apply, blocks)
  done = done.reshape(-1, *done.shape[2:])
  return jnp.concatenate([done, apply(rest)]) if len(rest) else done


def _correlate(x: jax.Array, g: jax.Array) -> jax.Array:
  size = 4 * math.prod(x.shape[1:])
  (x_blocks, x_rest), (g_blocks, g_rest) = (
      _split(images, size, at_least=2) for images in (x, g))
  if not len(x_blocks):
    return _correlate_block(x, g)
  # Blocks are added up in float32, also if they are of bfloat16.
  total = jax.lax.scan(
      lambda total, block: (total + _correlate_block(*block), None),
      jnp.zeros((4, 4, x.shape[-1], g.shape[-1]),
                jnp.promote_types(x.dtype, jnp.float32)),
      (x_blocks, g_blocks))[0]
  if len(x_rest):
    total += _correlate_block(x_rest, g_rest)
  return total.astype(x.dtype)


def _correlate_block(x: jax.Array, g: jax.Array) -> jax.Array:
  # kernel[a, b] = sum over images and places (i, j) of x[2 i + a - 1, 2 j + b -
  # 1] g[i, j]: a convolution with images as channels, and with g as a kernel
  # that is dilated by 2.
  kernel = jax.lax.conv_general_dilated(
      x.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3), (1, 1),
      ((1, 1), (1, 1)), rhs_dilation=(2, 2), dimension_numbers=_LAYOUT)
  return kernel.transpose(1, 2, 0, 3)


def _split(x: jax.Array, size: int, at_least: int
           ) -> tuple[jax.Array, jax.Array]:
  """Blocks of images `[B, b, ...]`, and the images that are left.

  Args:
    x: `[N, ...]`.
    size: number of elements that an image takes; b of them take `_BLOCK`.
    at_least: number of blocks, 1 or more.

  Returns:
    The blocks, none where there would be fewer; and the rest `[R, ...]`.
  """
  block = max(_BLOCK // size, 1)
  # Functions are exported for any number of images: nothing to count then.
  count = 0 if jax.export.is_symbolic_dim(x.shape[0]) else len(x) // block
  count = count if count >= at_least else 0
  blocks = x[:count * block].reshape(count, block, *x.shape[1:])
  return blocks, x[count * block:]


def _correlate_by_xla(x: jax.Array, g: jax.Array) -> jax.Array:
  # Convolving is linear in the kernel, so any kernel of its shape will do.
  kernel = jax.ShapeDtypeStruct((4, 4, x.shape[-1], g.shape[-1]), x.dtype)
  return jax.linear_transpose(lambda k: _convolve(x, k), kernel)(g)[0]
