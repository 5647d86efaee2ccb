"""What users pass by mistake: an error that names it; lists are arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mlvae_jax as ml
from tests.helpers.observations import EXAMPLES, SIZE, observe

_MODEL = ml.Model(
    ml.ml_vae(3, 2), (4,), ml.LearnedGaussian(), ml.MLP((4,)))
_X = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
_IDS = [0, 0, 1, 2, 2]


@pytest.fixture(scope='module')
def params():
  return _MODEL.init(jax.random.key(0))


@pytest.fixture(scope='module')
def codes(params):
  return ml.infer(_MODEL, params, _X, _IDS, 3)


def _one(codes, row):
  return {name: code[row] for name, code in codes.items()}


@pytest.mark.parametrize('call', [
    lambda params, number: ml.encode_group(_MODEL, params, _X, _IDS, number),
    lambda params, number: ml.posteriors(_MODEL, params, _X, _IDS, number),
    lambda params, number: ml.infer(
        _MODEL, params, _X, {'content': _IDS}, {'content': number}),
    lambda params, number: ml.evidence(ml.Normal(_X, _X), _IDS, number),
    lambda params, number: ml.product_of_normals(
        ml.Normal(_X, _X), _IDS, number)])
def test_a_number_of_groups_is_an_integer(params, call):
  expected = call(params, 3)
  for number in (np.int64(3), jnp.int32(3)):
    jax.tree.map(np.testing.assert_array_equal, call(params, number), expected)
  for number in (3.0, '3', [3]):
    with pytest.raises(ValueError, match='num_groups as a static integer, got'):
      call(params, number)
  for number in (0, -1, 2 ** 33):
    with pytest.raises(ValueError, match=f'num_groups >= 1, .*got {number}'):
      call(params, number)
  with pytest.raises(ValueError, match='expected num_groups .*got None'):
    call(params, None)
  with pytest.raises(ValueError, match='num_groups as a static integer'):
    jax.jit(lambda number: call(params, number))(3)


def test_a_number_of_groups_needs_ids(params):
  with pytest.raises(ValueError, match='expected group_ids along with num'):
    ml.posteriors(_MODEL, params, _X, num_groups=3)


@pytest.mark.parametrize('number', [-1, 2.0, '2', None])
def test_numbers_of_samples_and_steps(params, codes, number):
  with pytest.raises(ValueError, match='expected num_samples'):
    ml.generate(_MODEL, params, {}, jax.random.key(0), number)
  with pytest.raises(ValueError, match='expected num_steps'):
    ml.interpolate(_MODEL, params, _one(codes, 0), _one(codes, 1), number)


def test_codes_in_the_wrong_place(params, codes):
  for wrong in (codes['content'], _X, 'content', [codes]):
    with pytest.raises(ValueError, match=r"a dict of codes by factor \['cont"):
      ml.swap(_MODEL, params, codes, wrong)
    with pytest.raises(ValueError, match='a dict of codes by factor'):
      ml.decode(_MODEL, params, wrong)
  for wrong in ([['a', 'b', 'c']], [[1.0, 2.0, 3.0], [1.0]]):
    with pytest.raises(ValueError, match="'content' as an array of numbers"):
      ml.decode(_MODEL, params, {'content': wrong, 'style': [[0.0, 0.0]]})


def test_lists_are_arrays(params, codes):
  lists = {name: np.asarray(code).tolist() for name, code in codes.items()}
  for found, expected in (
      (ml.encode_group(_MODEL, params, _X.tolist(), _IDS, 3),
       ml.encode_group(_MODEL, params, _X, np.array(_IDS), 3)),
      (ml.decode(_MODEL, params, lists), ml.decode(_MODEL, params, codes)),
      (ml.swap(_MODEL, params, lists, lists),
       ml.swap(_MODEL, params, codes, codes)),
      (ml.evidence(ml.Normal(_X.tolist(), _X.tolist()), _IDS, 3),
       ml.evidence(ml.Normal(_X, _X), np.array(_IDS), 3))):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_evidence_with_nan_is_not_removed():
  whole = ml.evidence(ml.Normal(_X, _X), _IDS, 3)
  part = ml.evidence(ml.Normal(_X[:1], _X[:1]), [0], 3)
  for bad in (part._replace(eta=part.eta * np.nan),
              part._replace(precision=part.precision.at[1, 1].set(np.nan))):
    with pytest.raises(ValueError, match='without NaN, got NaN in part'):
      ml.remove(whole, bad)
    with pytest.raises(ValueError, match='got NaN in whole'):
      ml.remove(bad, part)


@pytest.mark.parametrize('name', EXAMPLES)
def test_one_nan_in_a_batch_is_refused_for_every_likelihood(name):
  model = ml.Model(ml.ml_vae(3, 2), (SIZE,), EXAMPLES[name], ml.MLP((4,)))
  params = model.init(jax.random.key(0))
  ids = np.arange(512) % 7
  x = observe(name, ids).astype(np.float32)
  if name != 'categorical':  # Its tokens are integers.
    model.prepare(x)
  x[300, 2] = np.nan
  with pytest.raises(ValueError, match='expected'):
    ml.encode_group(model, params, x, ids, 7)
