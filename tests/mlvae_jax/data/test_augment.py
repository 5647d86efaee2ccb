"""Random augmentation: what it does, and what it depends on."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlvae_jax.data.augment import Augment, parse_augment
from mlvae_jax.grouping.row_noise import row_uniforms

NUM_ROWS, HEIGHT, WIDTH = 200, 5, 7
IMAGES = np.random.default_rng(0).integers(
    0, 256, (NUM_ROWS, HEIGHT, WIDTH, 2), dtype=np.uint8)
ROWS = np.arange(NUM_ROWS, dtype=np.int32)
KEY = jax.random.key(3)
KINDS = {
    'flip': Augment(flip=True),
    'shift': Augment(shift=1),
    'both': Augment(flip=True, shift=2),
}
AFFINE = Augment(rotate=10, scale=0.2, shear=0.3)

_augment = jax.jit(
    lambda augment, key, x, rows: augment(key, x, rows), static_argnums=0)


def _shifted(x, limit):
  """All the images `[S, N, H, W, C]` shifted by all S offsets, in NumPy."""
  padded = np.pad(
      x, ((0, 0), (limit, limit), (limit, limit), (0, 0)), mode='edge')
  offsets = range(2 * limit + 1)
  return np.stack([
      padded[:, down:down + x.shape[1], right:right + x.shape[2]]
      for down in offsets for right in offsets])


def _which(found, candidates):
  """The only candidate of `[K, N, ...]` that each of `[N, ...]` equals."""
  equal = np.all(candidates == found, axis=(2, 3, 4))
  np.testing.assert_array_equal(equal.sum(axis=0), 1)
  return equal.argmax(axis=0)


def _assert_about_uniform(which, count):
  """Each of the outcomes is there as often as chance gives, or nearly so."""
  share = np.bincount(which, minlength=count) / len(which)
  error = np.sqrt((1 - 1 / count) / count / len(which))
  assert len(share) == count and np.all(np.abs(share - 1 / count) < 4 * error)


# What they do.


def test_half_of_the_images_are_mirrored_left_and_right():
  found = _augment(KINDS['flip'], KEY, IMAGES, ROWS)
  mirrored = np.stack([IMAGES, IMAGES[:, :, ::-1]])
  _assert_about_uniform(_which(found, mirrored), 2)


def test_shifts_move_by_at_most_so_many_pixels_and_repeat_the_edge():
  found = _augment(KINDS['shift'], KEY, IMAGES, ROWS)
  _assert_about_uniform(_which(found, _shifted(IMAGES, 1)), 9)


def test_flips_and_shifts_are_independent():
  found = _augment(KINDS['both'], KEY, IMAGES, ROWS)
  which = _which(found, np.concatenate([
      _shifted(IMAGES, 2), _shifted(IMAGES[:, :, ::-1], 2)]))
  _assert_about_uniform(which, 50)
  flips, shifts = np.divmod(which, 25)
  _assert_about_uniform(flips, 2)
  _assert_about_uniform(shifts, 25)


def test_a_shift_beyond_the_image_is_nothing_but_edge():
  found = np.asarray(_augment(
      Augment(shift=20), KEY, IMAGES, ROWS))
  candidates = _shifted(IMAGES[:, :, :, :1], 20)
  assert found.shape == IMAGES.shape
  equal = np.all(candidates == found[..., :1], axis=(2, 3, 4))
  assert np.all(equal.any(axis=0))


def test_dtypes_stay():
  pixels, floats = (
      _augment(KINDS['both'], KEY, x, ROWS)
      for x in (IMAGES, np.float32(IMAGES)))
  assert (pixels.dtype, floats.dtype) == (np.uint8, np.float32)
  np.testing.assert_array_equal(pixels, floats)


def test_affine_augmentation_is_apart_from_flips_and_shifts():
  # The whole image is one colour, which only flips and shifts could move.
  x = np.broadcast_to(IMAGES[:, :1, :1], IMAGES.shape)
  np.testing.assert_array_equal(_augment(AFFINE, KEY, x, ROWS), x)
  both = dataclasses.replace(AFFINE, flip=True, shift=2)
  before = _augment(KINDS['both'], KEY, IMAGES, ROWS)
  np.testing.assert_array_equal(
      _augment(both, KEY, IMAGES, ROWS), _augment(AFFINE, KEY, before, ROWS))


def test_affine_draws_are_within_their_limits_and_about_zero():
  def draw(augment):
    return np.linalg.inv(np.asarray(augment.draw_matrices(
        row_uniforms(KEY, jnp.arange(2000), 4))))

  # Of (down, right), the original's to the image's: scaled, sheared, rotated.
  rotated, scaled, sheared = draw(Augment(rotate=10)), draw(
      Augment(scale=0.2)), draw(Augment(shear=0.3))
  angles = np.degrees(np.arctan2(rotated[:, 1, 0], rotated[:, 0, 0]))
  factors = np.log(scaled[:, [0, 1], [0, 1]]) / np.log(1.2)
  shears = sheared[:, 1, 0] / 0.3
  for found in (angles / 10, factors[:, 0], factors[:, 1], shears):
    assert np.abs(found).max() <= 1 + 1e-4
    assert np.abs(found).max() > 0.99 and abs(found.mean()) < 0.05
  assert abs(np.corrcoef(factors.T)[0, 1]) < 0.1
  np.testing.assert_allclose(np.linalg.det(rotated), 1, rtol=1e-5)


@pytest.mark.parametrize('share', [0.25, 0.9])
def test_a_share_of_the_images_is_changed_and_the_rest_stays(share):
  # Every image that a shift by 40 pixels does not leave as it is.
  whole = Augment(shift=40, rotate=90)
  changed = np.asarray(_augment(whole, KEY, IMAGES, ROWS))
  found = np.asarray(_augment(
      dataclasses.replace(whole, share=share), KEY, IMAGES, ROWS))
  stays = np.all(found == IMAGES, axis=(1, 2, 3))
  error = np.sqrt(share * (1 - share) / NUM_ROWS)
  assert abs(stays.mean() - (1 - share)) < 4 * error
  np.testing.assert_array_equal(found[~stays], changed[~stays])
  half = NUM_ROWS // 2  # A function of key and row, too.
  np.testing.assert_array_equal(found[half:], _augment(
      dataclasses.replace(whole, share=share), KEY, IMAGES[half:],
      ROWS[half:]))
  other = np.asarray(_augment(dataclasses.replace(
      whole, share=share), jax.random.key(4), IMAGES, ROWS))
  assert np.any(np.all(other == IMAGES, axis=(1, 2, 3)) != stays)


def test_nothing_to_do_is_nothing_done():
  assert Augment()(KEY, IMAGES, ROWS) is IMAGES
  x = jnp.asarray(IMAGES)
  jaxpr = jax.make_jaxpr(lambda x: Augment()(KEY, x, ROWS))(x).jaxpr
  assert jaxpr.outvars == jaxpr.invars


# What they depend on.


def test_what_is_done_to_an_image_is_a_function_of_key_and_row():
  both, half = KINDS['both'], NUM_ROWS // 2
  whole = np.asarray(_augment(both, KEY, IMAGES, ROWS))
  parts = [_augment(both, KEY, IMAGES[part], ROWS[part])
           for part in (slice(half), slice(half, None))]
  np.testing.assert_array_equal(np.concatenate(parts), whole)
  order = np.random.default_rng(1).permutation(NUM_ROWS)
  np.testing.assert_array_equal(
      _augment(both, KEY, IMAGES[order], ROWS[order]), whole[order])


def test_affine_draws_are_a_function_of_key_and_row():
  whole = np.asarray(_augment(AFFINE, KEY, IMAGES, ROWS))
  half = NUM_ROWS // 2
  np.testing.assert_array_equal(
      _augment(AFFINE, KEY, IMAGES[half:], ROWS[half:]), whole[half:])
  for key, rows in ((jax.random.key(4), ROWS), (KEY, ROWS + NUM_ROWS)):
    other = np.asarray(_augment(AFFINE, key, IMAGES, rows))
    assert np.any(whole != other, axis=(1, 2, 3)).mean() > 0.95


@pytest.mark.parametrize('kind', KINDS)
def test_other_keys_and_other_rows_are_other_draws(kind):
  whole, other_key, other_rows = (
      np.asarray(_augment(KINDS[kind], key, IMAGES, rows))
      for key, rows in (
          (KEY, ROWS), (jax.random.key(4), ROWS), (KEY, ROWS + NUM_ROWS)))
  chance = {'flip': 1 / 2, 'shift': 1 / 9, 'both': 1 / 50}[kind]
  for other in (other_key, other_rows):
    alike = np.all(whole == other, axis=(1, 2, 3)).mean()
    assert abs(alike - chance) < 4 * np.sqrt(chance / NUM_ROWS)


# Settings.


@pytest.mark.parametrize('text, augment', [
    ('', Augment()),
    ('flip', Augment(flip=True)),
    ('shift:3', Augment(shift=3)),
    ('flip,shift:2', Augment(flip=True, shift=2)),
    (' shift:12, flip', Augment(flip=True, shift=12)),
    ('shift:0', Augment()),
    ('rotate:10,scale:.1,shear:0.25', Augment(rotate=10, scale=.1, shear=.25)),
    ('flip,rotate:7.5,shift:1', Augment(flip=True, shift=1, rotate=7.5)),
    ('shift:1,share:0.5', Augment(shift=1, share=0.5)),
])
def test_augment_is_read_from_text(text, augment):
  assert parse_augment(text) == augment


@pytest.mark.parametrize('text', [
    'flop', 'flip:2', 'shift', 'shift:', 'shift:-1', 'shift:1.5', 'shift:two',
    'shift:1:2', 'rotate', 'rotate:-5', 'scale:nan', 'shear:1e3', 'scale:.',
     'flip shift:2', 'flip;shift:2', 'Flip', ' '])
def test_other_text_is_refused(text):
  with pytest.raises(ValueError, match='expected augment as flip,shift:PIXEL'):
    parse_augment(text)


@pytest.mark.parametrize('name', ['shift', 'rotate', 'scale', 'shear'])
@pytest.mark.parametrize('value', [-1, float('nan'), float('inf')])
def test_amounts_that_make_no_sense_are_refused(name, value):
  with pytest.raises(ValueError, match=f'expected a {name} >= 0, got {value}'):
    Augment(**{name: value})


@pytest.mark.parametrize('share', [0, -1, 1.5, float('nan')])
def test_shares_that_make_no_sense_are_refused(share):
  with pytest.raises(ValueError, match=f'at most 1, got {share}'):
    Augment(share=share)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('shape', [(6,), (6, 2)])
def test_what_is_not_an_image_is_refused(kind, shape):
  rows = np.arange(4)
  x = np.zeros((4, *shape), np.int32)
  with pytest.raises(ValueError, match='to images .*; leave augment out'):
    KINDS[kind](KEY, x, rows)
  assert Augment()(KEY, x, rows) is x
