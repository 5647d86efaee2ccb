"""Random flips, shifts and affine transformations of images, for training.

They keep what a group shares, such as a face's identity, and change other
things. So content learns not to depend on those.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
import math
import re

import jax
import jax.numpy as jnp

from mlvae_jax.data.affine import affine_matrix, warp
from mlvae_jax.grouping.row_noise import row_uniforms

_AMOUNTS = ('rotate', 'scale', 'shear')  # Changes of a real amount.
_NUMBER = re.compile(r'\d+(\.\d*)?|\.\d+')


@dataclasses.dataclass(frozen=True)
class Augment:
  """Random changes to each image of a training batch.

  Attributes:
    flip: whether to mirror left and right, with a probability of one half.
    shift: largest number of pixels to move by, in each direction; pixels of
      the edge are repeated into the space that becomes free.
    rotate: largest angle to rotate by, in degrees, either way.
    scale: largest change of height and of width, drawn separately, as a
      fraction: 0.1 means from 1 / 1.1 to 1.1 times the size.
    shear: largest horizontal shift, to either side, per pixel of height.
    share: fraction of the images that are changed at all, drawn anew for each
      image and step. Where it is 1, no image is seen as it is, and what
      training demands of codes, such as a style without the label, need not
      hold for images that are not changed.
  """

  flip: bool = False
  shift: int = 0
  rotate: float = 0.0
  scale: float = 0.0
  shear: float = 0.0
  share: float = 1.0

  def __post_init__(self):
    for name in ('shift', *_AMOUNTS):
      value = getattr(self, name)
      if not 0 <= value < math.inf:
        raise ValueError(f'expected a {name} >= 0, got {value}')
    if not 0 < self.share <= 1:
      raise ValueError(
          f'expected a share above 0, and at most 1, got {self.share}')

  @property
  def is_affine(self) -> bool:
    """Whether images are rotated, scaled or sheared."""
    return any(getattr(self, name) for name in _AMOUNTS)

  def check(self, observation_shape: tuple[int, ...]) -> None:
    """Raises a ValueError where observations of this shape have no changes."""
    if (self.flip or self.shift or self.is_affine) and (
        len(observation_shape) != 3):
      raise ValueError(
          'augmentations apply to images (height, width, channels), got '
          f'observations of {tuple(observation_shape)}; leave augment out')

  def __call__(self, key: jax.Array, x: jax.Array, rows: jax.Array
               ) -> jax.Array:
    """Augments images.

    Args:
      key: random key; consumed.
      x: `[N, H, W, C]` of any dtype.
      rows: `[N]` ints, numbers of the rows. The changes to an image are a
        function of key and row number.

    Returns:
      Images of the shape and dtype of x.

    Raises:
      ValueError: where there are changes and x are not images.
    """
    self.check(x.shape[1:])
    if self == Augment():
      return x
    # Numbers for all changes: turning shifts on changes no flip.
    numbers = row_uniforms(key, rows, 8)
    return jax.lax.platform_dependent(
        jnp.asarray(x), numbers, cpu=functools.partial(_once, self._change),
        default=self._change)

  def _change(self, x: jax.Array, numbers: jax.Array) -> jax.Array:
    """The changes that numbers `[N, 8]` from [0, 1) determine."""
    original = x
    flip, down, right, share = numbers[:, :4].T
    if self.flip:
      x = jnp.where((flip < 0.5)[:, None, None, None], x[:, :, ::-1], x)
    offsets = None
    if self.shift:
      number = 2 * self.shift + 1
      offsets = jnp.minimum(
          jnp.stack([down, right], axis=-1) * number, number - 1
      ).astype(jnp.int32) - self.shift
    if self.is_affine:
      x = warp(x, self.draw_matrices(numbers[:, 4:]), offsets)
    elif offsets is not None:
      x = _shift(x, self.shift, offsets)
    if self.share < 1:
      x = jnp.where((share < self.share)[:, None, None, None], x, original)
    return x

  def draw_matrices(self, uniform: jax.Array) -> jax.Array:
    """Random matrices for `warp`, `[N, 2, 2]`, of `[N, 4]` from [0, 1)."""
    angle, shear, height, width = (2.0 * uniform - 1.0).T
    return jax.vmap(affine_matrix)(
        math.radians(self.rotate) * angle,
        jnp.exp(math.log1p(self.scale) * jnp.stack([height, width], axis=-1)),
        self.shear * shear)


def parse_augment(text: str) -> Augment:
  """Parses changes such as 'flip,shift:2,rotate:10,scale:0.1'; '' means none.

  Args:
    text: changes, separated by commas.

  Returns:
    The augmentation.

  Raises:
    ValueError: on text of another form.
  """
  found = {}
  for item in filter(None, text.split(',')):
    name, _, value = item.strip().partition(':')
    if name == 'flip' and not value:
      found[name] = True
    elif name == 'shift' and value.isdigit():
      found[name] = int(value)
    elif name in (*_AMOUNTS, 'share') and _NUMBER.fullmatch(value):
      found[name] = float(value)
    else:
      raise ValueError(
          'expected augment as flip,shift:PIXELS,rotate:DEGREES,scale:FRACTION,'
          f'shear:FRACTION,share:FRACTION, got {item!r}')
  return Augment(**found)


def _once(change: Callable[[jax.Array, jax.Array], jax.Array], x: jax.Array,
          numbers: jax.Array) -> jax.Array:
  """change(x, numbers), computed once, whatever it is used for.

  Without a branch, XLA for CPUs computes it again in operations that use the
  images; in a loop, on one thread.
  """
  # Numbers are never negative, but XLA does not know that.
  return jax.lax.cond(
      (numbers >= 0.0).all(), change, lambda x, _: x, x, numbers)


def _shift(x: jax.Array, limit: int, offsets: jax.Array) -> jax.Array:
  # `dynamic_slice` needs static sizes, so images are padded for the largest
  # shift, and each is cut out at its own offset.
  margin = ((0, 0), (limit, limit), (limit, limit), (0, 0))
  padded = jnp.pad(x, margin, mode='edge')
  return jax.vmap(lambda image, offset: jax.lax.dynamic_slice(
      image, (offset[0], offset[1], 0), x.shape[1:]))(padded, limit + offsets)
