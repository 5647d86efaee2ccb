"""Random flips and shifts of images, for training.

They keep what a group shares, a face's identity say, and change the rest. So
content learns not to depend on them.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Augment:
  """What is done to every image of a training batch, each at random.

  Attributes:
    flip: mirror left and right, with probability a half.
    shift: move by up to this many pixels in each direction; what comes into
      the image repeats its edge.
  """

  flip: bool = False
  shift: int = 0

  def __post_init__(self):
    if self.shift < 0:
      raise ValueError(f'expected a shift >= 0, got {self.shift}')

  def __call__(self, key: jax.Array, x: jax.Array, rows: jax.Array
               ) -> jax.Array:
    """Augments images.

    Args:
      key: consumed.
      x: `[N, H, W, C]` of any dtype.
      rows: `[N]` ints; what is done to an image is a function of key and row.

    Returns:
      Images like x.
    """
    flip_key, shift_key = jax.random.split(key)
    if self.flip:
      flipped = _per_row(flip_key, rows, jax.random.bernoulli)
      x = jnp.where(flipped[:, None, None, None], x[:, :, ::-1], x)
    if self.shift:
      x = _shift(x, self.shift, _per_row(
          shift_key, rows,
          lambda row_key: jax.random.randint(
              row_key, (2,), 0, 2 * self.shift + 1)))
    return x


def parse_augment(text: str) -> Augment:
  """Reads 'flip,shift:2'; '' is nothing.

  Args:
    text: what to do, separated by commas.

  Returns:
    The augmentation.

  Raises:
    ValueError: on anything else.
  """
  found = {}
  for item in filter(None, text.split(',')):
    name, _, value = item.strip().partition(':')
    if name == 'flip' and not value:
      found[name] = True
    elif name == 'shift' and value.isdigit():
      found[name] = int(value)
    else:
      raise ValueError(f'expected augment as flip,shift:PIXELS, got {item!r}')
  return Augment(**found)


def _per_row(key, rows, draw):
  return jax.vmap(lambda row: draw(jax.random.fold_in(key, row)))(rows)


def _shift(x: jax.Array, limit: int, offsets: jax.Array) -> jax.Array:
  margin = ((0, 0), (limit, limit), (limit, limit), (0, 0))
  padded = jnp.pad(x, margin, mode='edge')
  return jax.vmap(lambda image, offset: jax.lax.dynamic_slice(
      image, (offset[0], offset[1], 0), x.shape[1:]))(padded, offsets)
