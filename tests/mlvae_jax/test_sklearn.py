"""The estimator: scikit-learn's conventions, and what it learns."""

import jax
import numpy as np
import pytest

pytest.importorskip('sklearn')
import sklearn  # noqa: E402
from sklearn.base import clone  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.model_selection import (  # noqa: E402
    GridSearchCV,
    GroupKFold,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import (  # noqa: E402
    parametrize_with_checks,
)

from mlvae_jax import sklearn as estimators  # noqa: E402
from mlvae_jax.data.content import check_fit  # noqa: E402
from mlvae_jax.sklearn import MLVAE  # noqa: E402

# Rows [N, F] and number of groups of most checks of scikit-learn, and of half
# of the data below: training is compiled once for all of them.
_USUAL = (30, 3), 2
_LABELS = np.array(list('abcd') * 15)
_CENTRES = 2.0 * np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
_X = np.tile(_CENTRES, (15, 1)) + np.random.default_rng(0).normal(size=(60, 3))
_HALF = _LABELS < 'c'
_SMALL = {'content_dim': 2, 'style_dim': 1, 'hidden_sizes': (), 'steps': 1}

# Checks of scikit-learn that make no sense here, with the reason.
_NOT_STANDARDISED = (
    'its rows are about 100, which a Gaussian refuses, as it does pixels of 0 '
    'to 255: they have to be standardised')
_EXCEPTIONS = {name: _NOT_STANDARDISED for name in (
    'check_fit_idempotent', 'check_fit_check_is_fitted', 'check_n_features_in')}


@pytest.fixture(autouse=True, scope='module')
def _compile_fast():
  """Programs that run for a moment need not be optimised."""
  jax.config.update('jax_disable_most_optimizations', True)
  yield
  jax.config.update('jax_disable_most_optimizations', False)


@pytest.fixture(scope='module')
def fitted():
  return MLVAE(content_dim=2, style_dim=2, hidden_sizes=(16,), steps=200,
               learning_rate=2e-2).fit(_X, _LABELS)


def test_codes_of_rows_and_of_groups(fitted):
  alone = fitted.transform(_X)
  assert alone.shape == (60, 2) and alone.dtype == np.float32
  together = fitted.transform(_X, groups=_LABELS)
  names, q = fitted.encode_groups(_X, _LABELS)
  np.testing.assert_array_equal(names, fitted.groups_)
  np.testing.assert_array_equal(names, list('abcd'))
  np.testing.assert_allclose(
      together, np.asarray(q.mean)[np.searchsorted(names, _LABELS)],
      rtol=1e-5, atol=1e-5)
  nearest = np.linalg.norm(
      alone[:, None] - q.mean, axis=-1).argmin(axis=1)
  assert np.mean(names[nearest] == _LABELS) > 0.8
  assert list(fitted.get_feature_names_out()) == ['mlvae0', 'mlvae1']


def test_groups_may_be_new_and_are_not_kept(fitted):
  names, q = fitted.encode_groups(_X[:4], ['x', 'y', 'x', 'y'])
  assert list(names) == ['x', 'y'] and q.mean.shape == (2, 2)
  assert list(fitted.groups_) == list('abcd')


def test_codes_are_decoded(fitted):
  codes = fitted.transform(_X, groups=_LABELS)
  found = fitted.inverse_transform(codes)
  assert found.shape == _X.shape
  assert np.mean((found - _X) ** 2) < 0.7 * np.var(_X)
  both = np.hstack([codes, np.zeros((60, 2))])
  np.testing.assert_allclose(fitted.inverse_transform(both), found, rtol=1e-5)
  with pytest.raises(ValueError, match=r'of \[N, 2\] or \[N, 4\], got \[60, 3'):
    fitted.inverse_transform(both[:, :3])


def test_the_score_is_higher_for_the_right_groups(fitted):
  score = fitted.score(_X, _LABELS)
  assert score > fitted.score(_X, np.sort(_LABELS))
  assert score == fitted.score(_X, groups=_LABELS)
  assert np.isfinite(fitted.score(_X))
  with pytest.raises(ValueError, match='standardise'):
    fitted.score(1000.0 * _X, _LABELS)


@pytest.mark.slow
def test_it_works_in_a_pipeline_with_folds_by_group_and_a_grid():
  model = make_pipeline(StandardScaler(), MLVAE(**_SMALL))
  scores = cross_val_score(
      model, _X, _LABELS, groups=_LABELS, cv=GroupKFold(2))
  assert np.all(np.isfinite(scores)) and len(scores) == 2
  search = GridSearchCV(model, {'mlvae__random_state': [0, 1]},
                        cv=GroupKFold(2)).fit(_X, _LABELS, groups=_LABELS)
  assert search.cv_results_['split1_test_score'].shape == (2,)
  np.testing.assert_array_equal(
      search.cv_results_['split0_test_score'][0], scores[0])
  assert search.transform(_X).shape == (60, 2)
  assert search.inverse_transform(search.transform(_X)).shape == _X.shape


@pytest.mark.slow
def test_groups_are_routed_where_that_is_enabled():
  with sklearn.config_context(enable_metadata_routing=True):
    model = make_pipeline(
        StandardScaler(), MLVAE(**_SMALL).set_fit_request(groups=True),
        LogisticRegression())
    model.fit(_X[_HALF], np.arange(30) % 2, groups=_LABELS[_HALF])
    np.testing.assert_array_equal(model['mlvae'].groups_, ['a', 'b'])
    assert model.predict(_X).shape == (60,)
    alone = MLVAE(**_SMALL).set_fit_request(groups=True).set_score_request(
        groups=True)
    scores = cross_val_score(
        alone, _X, cv=GroupKFold(2), params={'groups': _LABELS})
    assert np.all(np.isfinite(scores))
    # In a pipeline the code of a row is of that row alone.
    assert not hasattr(alone, 'set_transform_request')


def test_a_clone_with_the_same_seed_learns_the_same():
  x, labels = _X[_HALF], _LABELS[_HALF]
  first = MLVAE(**_SMALL).fit(x, labels)
  again = clone(first).fit(x, groups=labels)
  np.testing.assert_array_equal(first.transform(x), again.transform(x))
  assert len(first.history_) == 1
  third = clone(first).set_params(random_state=np.random.RandomState(3))
  assert not np.array_equal(
      third.fit(x, labels).transform(x), first.transform(x))


class _NA:
  """Like pandas' NA, comparisons with it are neither true nor false."""

  def __eq__(self, other):
    return self

  __ne__, __hash__ = __eq__, object.__hash__

  def __bool__(self):
    raise TypeError('boolean value of NA is ambiguous')


@pytest.mark.parametrize('labels, message', [
    (None, 'the group of each row'),
    (np.where(_LABELS == 'a', None, _LABELS), '15 rows have None or NaN'),
    (np.where(_LABELS == 'a', np.nan, 1.0), '15 rows have None or NaN'),
    (np.where(_LABELS == 'a', _NA(), _LABELS.astype(object)), '15 rows'),
    (_LABELS[:-1], 'inconsistent numbers of samples'),
    (np.where(_LABELS == 'a', 1, _LABELS.astype(object)),
     'one type, got int, str; make all'),
])
def test_groups_are_needed_one_per_row(labels, message):
  with pytest.raises(ValueError, match=message):
    MLVAE(**_SMALL).fit(_X, groups=labels)


def test_bad_arguments_are_one_clear_error(fitted):
  with pytest.raises(ValueError, match='encode_groups needs groups'):
    fitted.encode_groups(_X, None)
  with pytest.raises(ValueError, match='hidden_sizes as a tuple .* got 8'):
    MLVAE(hidden_sizes=8).fit(_X, _LABELS)
  with pytest.raises(ValueError, match="dim of factor 'style'"):
    MLVAE(style_dim=1.5).fit(_X, _LABELS)


@pytest.mark.parametrize('value, message', [
    (1e30, 'standardise the data'), (1e300, 'expected finite values')])
def test_huge_values_are_refused(fitted, value, message):
  rows = np.full_like(_X, value)
  with pytest.raises(ValueError, match=message):
    fitted.transform(rows)
  with pytest.raises(ValueError, match=message):
    MLVAE(**_SMALL).fit(rows, _LABELS)


@parametrize_with_checks(
    [MLVAE(**_SMALL)], expected_failed_checks=lambda _: _EXCEPTIONS)
def test_scikit_learn_is_satisfied(estimator, check, monkeypatch):
  train = estimators.fit

  def fit(model, data, *, config, **settings):
    if (data.x.shape, data.num_groups) == _USUAL:
      return train(model, data, config=config, **settings)
    # The other 13 shapes would each be compiled, 3 seconds at a time. What they
    # check is all but the training.
    check_fit(model, data)
    return model.init(jax.random.key(config.seed)), []

  monkeypatch.setattr(estimators, 'fit', fit)
  check(estimator)
