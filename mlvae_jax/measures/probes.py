"""Probes: how much a code reveals about a label (paper section 4, fig. 6c).

A probe is a classifier, by default with the paper's two hidden layers of 256
units. Its test accuracy is how often it predicts the label from the code; its
test cross-entropy is an upper bound on the conditional entropy H(label | code).

A probe that fails does not show that the code lacks the label: a larger or
longer trained one may find it. `hidden_sizes` and `num_steps` make it stronger.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

_NUM_BLOCKS = 20  # Number of times that validation cross-entropy is measured.


class Examples(NamedTuple):
  """Codes with labels.

  Attributes:
    codes: `[M, D]` floats.
    labels: `[M]` ints.
  """

  codes: np.ndarray | jax.Array
  labels: np.ndarray | jax.Array


class Score(NamedTuple):
  """How well a probe predicts the labels of the test examples.

  Attributes:
    accuracy: fraction of labels that are predicted correctly.
    conditional_entropy: mean cross-entropy in nats, an upper bound on
      H(label | code).
    chance: accuracy of always predicting the most frequent test label.
  """

  accuracy: float
  conditional_entropy: float
  chance: float


class Classifier(nn.Module):
  """An MLP with ReLU, whose last layer starts at 0."""

  hidden_sizes: tuple[int, ...]
  num_classes: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    for size in self.hidden_sizes:
      x = nn.relu(nn.Dense(size)(x))
    # With a kernel of 0 it predicts from the bias alone, in which `_fit` puts
    # the labels' frequencies.
    return nn.Dense(self.num_classes, kernel_init=nn.initializers.zeros,
                    name='last')(x)


def evidence_windows(
    offsets: np.ndarray, k: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
  """Makes groups of k images of the same label, as many as there are images.

  The images of a label form a circle in random order. Every k neighbours are a
  group, so each image is in exactly k groups.

  Args:
    offsets: `[G + 1]` ints; label g has the rows offsets[g]:offsets[g + 1].
    k: number of images of evidence per group. Labels of fewer images are left
      out.
    seed: seed of the circles.

  Returns:
    Rows `[M, k]` and labels `[M]`.
  """
  rng = np.random.default_rng([seed, k])
  rows, labels = [np.zeros((0, k), int)], [np.zeros(0, int)]
  for label, (start, stop) in enumerate(zip(offsets[:-1], offsets[1:])):
    size = int(stop - start)
    if size >= k:
      circle = start + rng.permutation(size)
      window = (np.arange(size)[:, None] + np.arange(k)) % size
      rows.append(circle[window])
      labels.append(np.full(size, label))
  return np.concatenate(rows), np.concatenate(labels)


def probe(
    train: Examples,
    validation: Examples,
    test: Examples,
    *,
    num_classes: int,
    seed: int = 0,
    num_steps: int = 2000,
    batch_size: int = 256,
    learning_rate: float = 2e-3,
    hidden_sizes: Sequence[int] = (256, 256),
) -> Score:
  """Trains a classifier on codes, and scores it on the test set.

  Codes are standardised with the moments of the training examples. The
  classifier starts with the frequencies of the labels as its prediction. Its
  parameters of lowest validation cross-entropy, with those of the start among
  them, are scored.

  Args:
    train: examples to learn from.
    validation: examples to choose the best parameters by.
    test: examples to score on.
    num_classes: number of classes; labels are in `[0, num_classes)`.
    seed: seed of initialisation and minibatches.
    num_steps: number of steps of Adam, with a cosine decay of the learning
      rate.
    batch_size: number of examples per step.
    learning_rate: learning rate at the start.
    hidden_sizes: numbers of units of the hidden layers; () for a linear
      classifier.

  Returns:
    The score.

  Raises:
    ValueError: on codes that are not finite, labels out of range, no steps, or
      a hidden layer without units.
  """
  for name, examples in (('training', train), ('validation', validation),
                         ('test', test)):
    _check(name, examples, num_classes)
  if num_steps < 1:
    raise ValueError(f'expected num_steps >= 1, got {num_steps}')
  if min(hidden_sizes, default=1) < 1:
    raise ValueError(f'expected hidden_sizes >= 1, got {hidden_sizes}')
  train, validation, test = (
      Examples(np.asarray(e.codes, np.float64), e.labels)
      for e in (train, validation, test))
  mean = np.mean(train.codes, axis=0)
  std = np.std(train.codes, axis=0)
  # A constant is set to 0: standardising would blow up its rounding errors.
  scale = 1.0 / np.where(std > 1e-6 * np.abs(mean), std, np.inf)
  train, validation, test = (
      Examples(jnp.asarray((e.codes - mean) * scale, jnp.float32),
               jnp.asarray(e.labels, jnp.int32))
      for e in (train, validation, test))
  classifier = Classifier(tuple(hidden_sizes), num_classes)
  params = _fit(
      jax.random.key(seed), train, validation, classifier, num_steps,
      batch_size, learning_rate)
  accuracy, entropy = _score(params, test, classifier)
  count = np.bincount(np.asarray(test.labels))
  return Score(
      float(accuracy), float(entropy), float(count.max() / count.sum()))


@functools.partial(jax.jit, static_argnums=(3, 4, 5, 6))
def _fit(key, train, validation, classifier, num_steps, batch_size,
         learning_rate):
  """Trains a classifier; its parameters of lowest validation cross-entropy."""
  init_key, batch_key = jax.random.split(key)
  params = classifier.init(init_key, train.codes[:1])
  # One more of each, so that no label's log frequency is -inf.
  count = jnp.bincount(train.labels, length=classifier.num_classes) + 1.0
  params['params']['last']['bias'] = jnp.log(count / jnp.sum(count))
  optimizer = optax.adam(
      optax.cosine_decay_schedule(learning_rate, num_steps))

  def step(carry, step_key):
    params, opt_state = carry
    rows = jax.random.randint(
        step_key, (batch_size,), 0, train.labels.shape[0])
    grads = jax.grad(_cross_entropy)(
        params, train.codes[rows], train.labels[rows], classifier)
    updates, opt_state = optimizer.update(grads, opt_state)
    return (optax.apply_updates(params, updates), opt_state), None

  def block(carry, block_keys):
    learner, best, best_entropy = carry
    learner, _ = jax.lax.scan(step, learner, block_keys)
    return choose(learner, best, best_entropy), None

  def choose(learner, best, best_entropy):
    entropy = _cross_entropy(
        learner[0], validation.codes, validation.labels, classifier)
    better = entropy < best_entropy
    best = jax.tree.map(
        lambda new, old: jnp.where(better, new, old), learner[0], best)
    return learner, best, jnp.minimum(entropy, best_entropy)

  keys = jax.random.split(batch_key, num_steps)
  # Blocks of a scan are of one length; the remaining steps come first. With
  # fewer steps than blocks, all are of length 0.
  first = num_steps % _NUM_BLOCKS
  carry = choose((params, optimizer.init(params)), params, jnp.inf)
  carry, _ = block(carry, keys[:first])
  (_, best, _), _ = jax.lax.scan(
      block, carry, keys[first:].reshape(_NUM_BLOCKS, -1))
  return best


@functools.partial(jax.jit, static_argnums=2)
def _score(params, examples, classifier):
  logits = classifier.apply(params, examples.codes)
  hit = jnp.argmax(logits, axis=-1) == examples.labels
  return jnp.mean(hit), _cross_entropy(
      params, examples.codes, examples.labels, classifier)


def _check(name: str, examples: Examples, num_classes: int) -> None:
  if not np.all(np.isfinite(examples.codes)):
    raise ValueError(f'expected finite {name} codes, got NaN or infinity')
  labels = np.asarray(examples.labels)
  if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
    raise ValueError(
        f'expected {name} labels in [0, {num_classes}), got labels from '
        f'{labels.min()} to {labels.max()}')


def _cross_entropy(params, codes, labels, classifier):
  logits = classifier.apply(params, codes)
  return jnp.mean(
      optax.softmax_cross_entropy_with_integer_labels(logits, labels))
