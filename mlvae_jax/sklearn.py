"""An estimator with scikit-learn's conventions; it needs scikit-learn.

    from mlvae_jax.sklearn import MLVAE

    model = make_pipeline(StandardScaler(), MLVAE(content_dim=4, steps=500))
    codes = model.fit_transform(X, labels)

JAX users do not need it: `mlvae_jax.fit` takes observations of any shape, and
several groupings.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
)
from sklearn.utils import check_array, check_random_state
from sklearn.utils.metadata_routing import UNUSED
from sklearn.utils.validation import (
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from mlvae_jax.data.grouped import GroupedData
from mlvae_jax.grouping.normal import Normal
from mlvae_jax.inference.encode import encode_group, posteriors
from mlvae_jax.inference.latents import decode
from mlvae_jax.model.factors import Batch, Factor
from mlvae_jax.model.likelihoods.gaussian import Gaussian
from mlvae_jax.model.likelihoods.likelihood import Likelihood
from mlvae_jax.model.model import Model, Params
from mlvae_jax.model.networks.mlp import MLP
from mlvae_jax.objective.elbo import elbo_terms, sum_terms
from mlvae_jax.objective.penalties.registry import separating_penalties
from mlvae_jax.training.fit import fit
from mlvae_jax.training.step import TrainConfig


class MLVAE(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
  """A Multi-Level VAE for vectors: content of groups, style of rows.

  Groups are given as `groups`, or else as y, since that is what a `Pipeline`
  and cross-validation pass on. Any distinct labels are groups, -1
  included. Rows should be standardised for the default likelihood, as in a
  `Pipeline` with `StandardScaler`.

  In training the posterior of a group is computed from a random number of its
  rows, so that the code of a single row is useful by itself, style is given
  content, and `separating_penalties` keep style from revealing the group.

  Where metadata routing is enabled, `fit` and `score` can request `groups`.
  `transform` cannot: in a pipeline the code of a row depends on that row only.

  Attributes:
    content_dim: number of dimensions of the content, which groups share.
    style_dim: number of dimensions of the style, of each row.
    steps: number of steps of training.
    hidden_sizes: number of units of each hidden layer.
    likelihood: likelihood of the rows; None for a Gaussian with one learned
      variance.
    groups_per_batch: largest number of groups in a batch.
    max_group_size: number of rows above which a group is cut into pieces.
    learning_rate: learning rate of Adam.
    random_state: seed, or anything else that `check_random_state` accepts.
    model_: the model, after `fit`.
    params_: its parameters.
    history_: metrics of training, as `mlvae_jax.fit` returns them.
    groups_: the distinct groups, sorted.
    n_features_in_: number of columns.
  """

  # A row's code would depend on which other rows there are.
  __metadata_request__transform = {'groups': UNUSED}

  def __init__(self, content_dim: int = 8, style_dim: int = 8, *,
               steps: int = 2000, hidden_sizes: Sequence[int] = (128,),
               likelihood: Likelihood | None = None,
               groups_per_batch: int = 32, max_group_size: int = 32,
               learning_rate: float = 2e-3,
               random_state: int | np.random.RandomState | None = 0):
    self.content_dim = content_dim
    self.style_dim = style_dim
    self.steps = steps
    self.hidden_sizes = hidden_sizes
    self.likelihood = likelihood
    self.groups_per_batch = groups_per_batch
    self.max_group_size = max_group_size
    self.learning_rate = learning_rate
    self.random_state = random_state

  def fit(self, X: Any, y: Any = None, groups: Any = None) -> MLVAE:
    """Trains on rows and their groups.

    Args:
      X: `[N, F]`.
      y: the group of each row, `[N]`, unless there are `groups`.
      groups: the group of each row, `[N]`.

    Returns:
      The estimator itself.

    Raises:
      ValueError: on values that the likelihood cannot have, or without groups.
    """
    X = validate_data(self, X, dtype=[np.float64, np.float32])
    numbered = _number(X, y, groups)
    if numbered is None:
      raise ValueError(
          'MLVAE requires y to be passed, but the target y is None: pass the '
          'group of each row as groups, or as y')
    self.groups_, ids = numbered
    self.model_ = Model(
        (Factor('content', self.content_dim, 'group'),
         Factor('style', self.style_dim, given=('content',))), X.shape[1:],
        self.likelihood or Gaussian(0.5, learn=True),
        MLP(self.hidden_sizes))
    data = GroupedData.from_labels(
        _float32(X), ids, [str(name) for name in self.groups_])
    seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
    self.params_, self.history_ = fit(
        self.model_, data, steps=self.steps, evidence='random',
        groups_per_batch=self.groups_per_batch,
        max_group_size=self.max_group_size,
        config=TrainConfig(
            learning_rate=self.learning_rate, decay_fraction=0.5, seed=seed,
            penalties=separating_penalties(self.model_)))
    return self

  def transform(self, X: Any, groups: Any = None) -> np.ndarray:
    """Content codes of rows.

    Args:
      X: `[N, F]`.
      groups: optional `[N]`; then the code of a row is that of its group, from
        the evidence of all rows of X in that group. Groups may be new.

    Returns:
      Posterior means `[N, content_dim]`.
    """
    X = self._rows(X)
    numbered = _number(X, None, groups)
    if numbered is None:
      q = posteriors(self.model_, self.params_, X)
    else:
      names, ids = numbered
      q = posteriors(self.model_, self.params_, X, ids, len(names))
    return np.asarray(q['content'].mean)

  def encode_groups(self, X: Any, groups: Any) -> tuple[np.ndarray, Normal]:
    """Content codes of groups.

    Args:
      X: `[N, F]`.
      groups: `[N]`, the group of each row; groups may be new.

    Returns:
      The distinct groups `[G]`, sorted, and their posteriors, Normal of
      `[G, content_dim]`.
    """
    X = self._rows(X)
    numbered = _number(X, None, groups)
    if numbered is None:
      raise ValueError('encode_groups needs groups, the group of each row')
    names, ids = numbered
    return names, encode_group(self.model_, self.params_, X, ids, len(names))

  def inverse_transform(self, X: Any) -> np.ndarray:
    """Expected rows, decoded from codes.

    Args:
      X: `[N, content_dim]` contents, decoded with the mean style, 0; or
        `[N, content_dim + style_dim]`, contents and styles.

    Returns:
      `[N, F]`.

    Raises:
      ValueError: on another number of columns.
    """
    check_is_fitted(self)
    codes = check_array(X, dtype='float32', input_name='X')
    sizes = (self.content_dim, self.content_dim + self.style_dim)
    if codes.shape[1] not in sizes:
      raise ValueError(
          f'expected codes of [N, {sizes[0]}] or [N, {sizes[1]}], got '
          f'{list(codes.shape)}')
    content, style = np.split(codes, [self.content_dim], axis=1)
    if not style.shape[1]:
      style = np.zeros((len(codes), self.style_dim), np.float32)
    return np.asarray(decode(
        self.model_, self.params_, {'content': content, 'style': style}))

  def score(self, X: Any, y: Any = None, groups: Any = None) -> float:
    """ELBO per row (paper eq. 3), in nats; higher is better.

    Args:
      X: `[N, F]`.
      y: the group of each row, `[N]`, unless there are `groups`.
      groups: the group of each row, `[N]`; with neither, every row is a group
        of its own.

    Returns:
      An estimate with one sample per row, the same each time.
    """
    X = self._rows(X)
    numbered = _number(X, y, groups)
    rows = np.arange(len(X))
    names, ids = (rows, rows) if numbered is None else numbered
    self.model_.prepare(X)  # A ValueError on values: below they are traced.
    batch = Batch(jnp.asarray(X), {'content': jnp.asarray(ids)},
                  jnp.ones(len(X), bool), jnp.asarray(rows))
    return float(_elbo(
        self.model_, self.params_, batch, len(names))) / len(X)

  def _rows(self, X: Any) -> np.ndarray:
    """Rows to encode, checked, as float32 `[N, F]`."""
    check_is_fitted(self)
    return _float32(validate_data(
        self, X, dtype=[np.float64, np.float32], reset=False))

  @property
  def _n_features_out(self) -> int:
    return self.content_dim

  def __sklearn_tags__(self):
    tags = super().__sklearn_tags__()
    tags.target_tags.required = True
    tags.target_tags.two_d_labels = False
    tags.transformer_tags.preserves_dtype = ['float32']  # And casts float64.
    return tags


def _float32(X: np.ndarray) -> np.ndarray:
  """Rows as float32; infinite beyond its range, which `Model.prepare` names."""
  with np.errstate(over='ignore'):
    return X.astype(np.float32, copy=False)


def _number(X: np.ndarray, y: Any, groups: Any
            ) -> tuple[np.ndarray, np.ndarray] | None:
  """Distinct groups `[G]` and their numbers `[N]`; None without groups."""
  labels = y if groups is None else groups
  if labels is None:
    return None
  labels = _labels(X, labels)
  try:
    return np.unique(labels, return_inverse=True)
  except TypeError:  # They cannot be sorted.
    kinds = sorted({type(label).__name__ for label in labels.tolist()})
    raise ValueError(
        f'expected groups of one type, got {", ".join(kinds)}; make all of '
        'them strings') from None


def _labels(X: np.ndarray, labels: Any) -> np.ndarray:
  """Labels `[N]`; a ValueError where they are not one per row, or unknown."""
  labels = column_or_1d(labels, warn=True)
  check_consistent_length(X, labels)
  unknown = sum(map(_is_unknown, labels.tolist()))
  if unknown:
    raise ValueError(
        f'{unknown} rows have None or NaN as their group; leave them out')
  return labels


def _is_unknown(label: Any) -> bool:
  """Whether a label is None, NaN, or pandas' NaT or NA."""
  try:
    return label is None or bool(label != label)
  except TypeError:  # NA is neither true nor false.
    return True


@functools.partial(jax.jit, static_argnums=(0, 3))
def _elbo(model: Model, params: Params, batch: Batch, num_groups: int
          ) -> jax.Array:
  """The sum of the group ELBOs of rows."""
  return sum_terms(elbo_terms(
      model, params, jax.random.key(0), batch, {'content': num_groups})).elbo()
