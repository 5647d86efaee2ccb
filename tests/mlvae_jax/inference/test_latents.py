"""Reconstruct, swap, interpolate, generate: which code goes where."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mlvae_jax
from mlvae_jax import MLP, Gaussian, Model

_MODEL = Model(
    mlvae_jax.ml_vae(3, 2), (4, 4, 1), Gaussian(0.1), MLP((8,)))
_PARAMS = _MODEL.init(jax.random.key(0))
_IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 1), np.uint8)
_IDS = np.array([0, 1, 0, 2, 1, 0])


def test_strategy_1_takes_each_image_alone():
  codes = mlvae_jax.infer(_MODEL, _PARAMS, _IMAGES)
  alone = mlvae_jax.encode_group(
      _MODEL, _PARAMS, _IMAGES, np.arange(6), num_groups=6)
  np.testing.assert_allclose(codes['content'], alone.mean, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('factors', [
    'content:3:group,style:2', 'content:3:group,style:2|content'])
def test_with_the_prior_an_image_alone_is_a_group_of_one(factors):
  model = dataclasses.replace(
      _MODEL, factors=mlvae_jax.parse_factors(factors),
      group_posterior=mlvae_jax.PriorProduct())
  params = model.init(jax.random.key(0))
  # The encoder is uncertain: the prior has to enter.
  params = jax.tree.map(lambda v: v + 0.5, params)
  alone = mlvae_jax.posteriors(model, params, _IMAGES)
  groups = mlvae_jax.posteriors(model, params, _IMAGES, np.arange(6), 6)
  for a, b in zip(*map(jax.tree.leaves, (alone, groups))):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
  assert np.all(alone['content'].logvar < 0)
  rows = model.encode(params, _IMAGES)  # What groups multiply.
  assert np.any(rows['content'].logvar > 0)
  np.testing.assert_allclose(
      rows['style'].mean, alone['style'].mean, rtol=1e-4, atol=1e-5)


def test_strategy_2_gives_members_the_group_code():
  codes = mlvae_jax.infer(_MODEL, _PARAMS, _IMAGES, _IDS, 3)
  group = mlvae_jax.encode_group(
      _MODEL, _PARAMS, _IMAGES, _IDS, num_groups=3)
  np.testing.assert_allclose(
      codes['content'], group.mean[_IDS], rtol=1e-5, atol=1e-6)
  style = mlvae_jax.infer(_MODEL, _PARAMS, _IMAGES)['style']
  np.testing.assert_allclose(codes['style'], style, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_samples_follow_the_posterior():
  q = mlvae_jax.posteriors(_MODEL, _PARAMS, _IMAGES, _IDS, 3)
  draws = jnp.stack([
      mlvae_jax.infer(_MODEL, _PARAMS, _IMAGES, _IDS, 3, key=key)['content']
      for key in jax.random.split(jax.random.key(1), 400)])
  error = (draws.mean(0) - q['content'].mean) / (q['content'].std / 20)
  assert jnp.abs(error).max() < 5
  np.testing.assert_allclose(draws.std(0), q['content'].std, rtol=0.25)


def test_swap_fixes_style_by_row_and_content_by_column():
  codes = mlvae_jax.infer(_MODEL, _PARAMS, _IMAGES)
  grid = mlvae_jax.swap(_MODEL, _PARAMS, codes, codes)
  assert grid.shape == (6, 6, 4, 4, 1)
  one = mlvae_jax.decode(_MODEL, _PARAMS, {
      'content': codes['content'][4], 'style': codes['style'][1]})
  np.testing.assert_allclose(grid[1, 4], one, rtol=1e-5, atol=1e-6)
  diagonal = grid[np.arange(6), np.arange(6)]
  np.testing.assert_allclose(
      diagonal, mlvae_jax.reconstruct(_MODEL, _PARAMS, _IMAGES),
      rtol=1e-5, atol=1e-6)


def test_swap_of_another_factor_is_the_transpose():
  codes = mlvae_jax.infer(_MODEL, _PARAMS, _IMAGES)
  np.testing.assert_allclose(
      mlvae_jax.swap(_MODEL, _PARAMS, codes, codes, factor='style'),
      mlvae_jax.swap(_MODEL, _PARAMS, codes, codes).swapaxes(0, 1),
      rtol=1e-5, atol=1e-6)


def test_interpolation_begins_and_ends_at_the_images():
  codes = mlvae_jax.infer(_MODEL, _PARAMS, _IMAGES)
  start, stop = ({k: v[i] for k, v in codes.items()} for i in (0, 3))
  grid = mlvae_jax.interpolate(_MODEL, _PARAMS, start, stop, 5)
  ends = mlvae_jax.reconstruct(_MODEL, _PARAMS, _IMAGES[[0, 3]])
  np.testing.assert_allclose(grid[0, 0], ends[0], rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(grid[4, 4], ends[1], rtol=1e-5, atol=1e-6)
  swapped = mlvae_jax.swap(_MODEL, _PARAMS, codes, codes)[0, 3]
  np.testing.assert_allclose(grid[0, 4], swapped, rtol=1e-5, atol=1e-6)


def test_generate_keeps_the_codes_it_is_given():
  codes = mlvae_jax.infer(_MODEL, _PARAMS, _IMAGES)
  made = mlvae_jax.generate(
      _MODEL, _PARAMS, {'content': codes['content']}, jax.random.key(0), 7)
  assert made.shape == (6, 7, 4, 4, 1)
  np.testing.assert_allclose(  # All codes given: nothing is random.
      mlvae_jax.generate(_MODEL, _PARAMS, codes, jax.random.key(0), 2)[:, 1],
      mlvae_jax.reconstruct(_MODEL, _PARAMS, _IMAGES), rtol=1e-5, atol=1e-6)
  assert float(jnp.std(made[0], axis=0).max()) > 0


def test_generate_from_the_prior_alone():
  made = mlvae_jax.generate(_MODEL, _PARAMS, {}, jax.random.key(0), 3)
  assert made.shape == (1, 3, 4, 4, 1)


@pytest.mark.slow
def test_what_is_decoded_is_the_mean_of_the_likelihood():
  codes = {'content': jnp.full((2, 3), 100.0), 'style': jnp.ones((2, 2))}
  logits = _MODEL.decode(_PARAMS, codes)
  found = mlvae_jax.decode(_MODEL, _PARAMS, codes)
  np.testing.assert_allclose(found, logits[:, 0], rtol=1e-4, atol=1e-4)
  bernoulli = dataclasses.replace(_MODEL, likelihood=mlvae_jax.Bernoulli())
  params = jax.jit(bernoulli.init)(jax.random.key(0))
  found = mlvae_jax.decode(bernoulli, params, codes)
  assert found.min() >= 0 and found.max() <= 1


_CONTENT, _STYLE = np.zeros((4, 3), np.float32), np.zeros((4, 2), np.float32)


def _grid(codes):
  return mlvae_jax.swap(_MODEL, _PARAMS, codes, codes)


def _columns(codes):
  return mlvae_jax.swap(
      _MODEL, _PARAMS, {'content': _CONTENT, 'style': _STYLE}, codes)


def _between(codes):
  first, last = ({k: v[i] for k, v in codes.items()} for i in (0, 3))
  return mlvae_jax.interpolate(_MODEL, _PARAMS, first, last, 3)


def _decoded(codes):
  return mlvae_jax.decode(_MODEL, _PARAMS, codes)


def _logits(codes):
  return _MODEL.decode(_PARAMS, codes)


def _made(codes):
  return mlvae_jax.generate(_MODEL, _PARAMS, codes, jax.random.key(0), 2)


_TAKE_ALL = [_grid, _columns, _between, _decoded, _logits]


@pytest.mark.parametrize('function', _TAKE_ALL)
@pytest.mark.parametrize('codes', [
    {'content': _CONTENT}, {'contnet': _CONTENT, 'style': _STYLE}, {},
    {'content': _CONTENT, 'style': _STYLE, 'mood': _STYLE}])
def test_codes_of_other_factors_are_refused(function, codes):
  with pytest.raises(ValueError, match=(
      r"of the factors \['content', 'style'\], got ")):
    function(codes)


def test_generate_refuses_an_unknown_factor():
  with pytest.raises(ValueError, match=r"some of .*got \['contnet'\]"):
    _made({'contnet': _CONTENT})


@pytest.mark.parametrize('function', [*_TAKE_ALL, _made])
def test_codes_of_another_size_are_refused(function):
  with pytest.raises(ValueError, match=(
      r"\[.*3\] for factor 'content', got \[.*2\]")):
    function({'content': _STYLE, 'style': _STYLE})


def test_numbers_of_codes_that_differ_are_refused():
  codes = {'content': _CONTENT, 'style': _STYLE[:2]}
  for function in (_grid, _columns, _decoded, _logits, _made):
    with pytest.raises(ValueError, match=r'content \[4, 3\], style \[2, 2\]'):
      function(codes)


def test_codes_of_more_axes_are_refused_where_a_list_is_wanted():
  codes = {'content': _CONTENT[None], 'style': _STYLE[None]}
  assert _decoded(codes).shape == (1, 4, 4, 4, 1)
  for function, axes in ((_grid, 'R, 3'), (_columns, 'C, 3'),
                         (_made, 'G, 3'), (_logits, 'N, 3')):
    with pytest.raises(ValueError, match=rf'\[{axes}\] .*got \[1, 4, 3\]'):
      function(codes)


def test_codes_may_be_lists():
  codes = mlvae_jax.infer(_MODEL, _PARAMS, _IMAGES)
  lists = {name: code.tolist() for name, code in codes.items()}
  for function in (_grid, _decoded, _made):
    np.testing.assert_allclose(function(lists), function(codes), rtol=1e-5)


def test_no_codes_decode_to_no_images():
  codes = {'content': _CONTENT[:0], 'style': _STYLE[:0]}
  assert _decoded(codes).shape == (0, 4, 4, 1)
  assert _grid(codes).shape == (0, 0, 4, 4, 1)
  assert _made(codes).shape == (0, 2, 4, 4, 1)


def test_ids_without_their_number_are_refused():
  with pytest.raises(ValueError, match='num_groups'):
    mlvae_jax.infer(_MODEL, _PARAMS, _IMAGES, _IDS)


def test_images_of_another_size_are_refused():
  with pytest.raises(ValueError, match=r'\[N, 4, 4, 1\], got \[6, 5, 4, 1\]'):
    mlvae_jax.reconstruct(_MODEL, _PARAMS, np.zeros((6, 5, 4, 1), np.uint8))


_SEVERAL = Model(
    mlvae_jax.parse_factors('who:3:person,light:2:lamp,style:2'), (4, 4, 1),
    Gaussian(0.1), MLP((8,)))
_SEVERAL_PARAMS = _SEVERAL.init(jax.random.key(1))


@pytest.mark.slow
def test_every_factor_accumulates_over_its_own_groups():
  lamp = np.array([1, 1, 0, 0, 1, 0])
  found = mlvae_jax.posteriors(
      _SEVERAL, _SEVERAL_PARAMS, _IMAGES, {'who': _IDS, 'light': lamp},
      {'who': 3, 'light': 2})
  alone = mlvae_jax.posteriors(_SEVERAL, _SEVERAL_PARAMS, _IMAGES)
  for name, ids, size in (('who', _IDS, 3), ('light', lamp, 2)):
    group = mlvae_jax.product_of_normals(alone[name], ids, size)
    np.testing.assert_allclose(
        found[name].mean, group.mean[ids], rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(found['style'].mean, alone['style'].mean)


def test_factors_without_ids_follow_strategy_1():
  found = mlvae_jax.infer(
      _SEVERAL, _SEVERAL_PARAMS, _IMAGES, {'who': _IDS}, {'who': 3})
  alone = mlvae_jax.infer(_SEVERAL, _SEVERAL_PARAMS, _IMAGES)
  np.testing.assert_allclose(found['light'], alone['light'])
  assert np.abs(found['who'] - alone['who']).max() > 1e-4


@pytest.mark.parametrize('ids, sizes', [
    ({'style': _IDS}, {'style': 3}), ({'who': _IDS}, {'light': 3}),
    ({'who': _IDS}, {'who': 3, 'mood': 2})])
def test_ids_of_other_factors_are_refused(ids, sizes):
  with pytest.raises(ValueError, match='of grouped factors'):
    mlvae_jax.infer(_SEVERAL, _SEVERAL_PARAMS, _IMAGES, ids, sizes)


@pytest.mark.slow
def test_a_mixture_is_sampled_member_by_member():
  model = dataclasses.replace(_MODEL, group_posterior=mlvae_jax.Mixture())
  alone = mlvae_jax.posteriors(model, _PARAMS, _IMAGES)['content']
  both = mlvae_jax.posteriors(model, _PARAMS, _IMAGES, _IDS, 3)['content']
  for group in range(3):
    rows = np.flatnonzero(_IDS == group)
    np.testing.assert_allclose(
        both.mean[rows[0]], alone.mean[rows].mean(0), rtol=1e-5, atol=1e-6)
  draws = jnp.stack([
      mlvae_jax.infer(model, _PARAMS, _IMAGES, _IDS, 3, key=key)['content']
      for key in jax.random.split(jax.random.key(1), 300)])
  error = (draws.mean(0) - both.mean) / (both.std / np.sqrt(300))
  assert jnp.abs(error).max() < 5
  # Group 2 has one member only: the draw is of its own posterior.
  np.testing.assert_allclose(
      draws.std(0)[3], alone.std[3], rtol=0.25)


@pytest.mark.slow
def test_a_mixture_is_not_sampled_as_the_normal_of_its_moments():
  model = dataclasses.replace(_MODEL, group_posterior=mlvae_jax.Mixture())
  heads = _PARAMS['encoder']['heads']
  # Means that are far apart, and hardly any noise around them.
  narrow = _PARAMS | {'encoder': _PARAMS['encoder'] | {'heads': {
      'kernel': heads['kernel'].at[:, :3].multiply(10).at[:, 3:6].set(0),
      'bias': heads['bias'].at[3:6].set(-16)}}}
  alone = mlvae_jax.posteriors(model, narrow, _IMAGES)['content'].mean
  drawn = mlvae_jax.infer(
      model, narrow, _IMAGES, _IDS, 3, key=jax.random.key(0))['content']
  distance = jnp.abs(drawn[:, None] - alone).max(axis=-1)
  for group in range(3):
    rows = np.flatnonzero(_IDS == group)
    # Each member of the group is drawn by one of them.
    member = distance[rows][:, rows].argmin(axis=1)
    assert sorted(member.tolist()) == list(range(len(rows)))
    assert distance[rows][:, rows].min(axis=1).max() < 0.01
