"""Probes: how much a code reveals about a label (paper section 4, fig. 6c).

A probe is a classifier, by default with the paper's two hidden layers of 256
units. Its test accuracy is how often it predicts the label from the code; its
test cross-entropy is an upper bound on the conditional entropy H(label | code).

A probe that fails does not show that the code lacks the label: a larger or
longer trained one may find it (`hidden_sizes`, `num_steps`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from mlvae_jax.measures import classifier

_CHUNK = 1024  # Number of rows that are converted at a time.


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
  cross-entropy is that of the parameters with the lowest one on the validation
  examples, its accuracy that of the parameters with the highest; those of the
  start are among both. They differ where a label has few examples: a
  classifier that is too sure of itself can still be right more often than the
  frequencies are. Training ends early once the cross-entropy has been clearly
  above its lowest for a fifth of the steps.

  Args:
    train: examples to learn from.
    validation: examples to choose the best parameters by.
    test: examples to score on.
    num_classes: number of classes; labels are in `[0, num_classes)`.
    seed: seed of initialisation and minibatches.
    num_steps: maximum number of steps of Adam, over which the learning rate
      decays as a cosine.
    batch_size: number of examples per step.
    learning_rate: learning rate at the start.
    hidden_sizes: numbers of units of the hidden layers; () for a linear
      classifier.

  Returns:
    The score.

  Raises:
    ValueError: on codes that are not finite, labels out of range, no examples,
      no steps, or a hidden layer without units.
  """
  for name, examples in (('training', train), ('validation', validation),
                         ('test', test)):
    _check(name, examples, num_classes)
  if num_steps < 1:
    raise ValueError(f'expected num_steps >= 1, got {num_steps}')
  if min(hidden_sizes, default=1) < 1:
    raise ValueError(f'expected hidden_sizes >= 1, got {hidden_sizes}')
  train, validation, test = (
      Examples(np.asarray(e.codes), np.asarray(e.labels))
      for e in (train, validation, test))
  mean, scale = _standardisation(train.codes)
  # One more of each, so that no label's log frequency is -inf.
  count = np.bincount(train.labels, minlength=num_classes) + 1.0
  best, most_accurate = classifier.fit(
      jax.random.key(seed), classifier.initial(
          hidden_sizes, train.codes.shape[1], count / np.sum(count), seed),
      _pad(train, mean, scale), _pad(validation, mean, scale), num_steps,
      learning_rate, batch_size=batch_size)
  padded = _pad(test, mean, scale)
  entropy, _ = classifier.score(best, padded)
  _, accuracy = classifier.score(most_accurate, padded)
  count = np.bincount(test.labels)
  return Score(
      float(accuracy), float(entropy), float(count.max() / count.sum()))


def _standardisation(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The mean of codes, and the reciprocal of their standard deviation."""
  # Codes may be of low precision.
  total = sum(np.sum(part, axis=0, dtype=np.float64)
              for part in _chunks(codes))
  mean = total / len(codes)
  std = np.sqrt(sum(
      np.sum(np.square(part.astype(np.float64) - mean), axis=0)
      for part in _chunks(codes)) / len(codes))
  # A constant is set to 0: standardising would blow up its rounding errors.
  return mean, 1.0 / np.where(std > 1e-6 * np.abs(mean), std, np.inf)


def _pad(examples: Examples, mean: np.ndarray, scale: np.ndarray
         ) -> classifier.Padded:
  """Standardised examples, padded."""
  count, width = examples.codes.shape
  size = classifier.padded_size(count)
  codes = np.zeros((size, classifier.padded_width(width)), np.float32)
  for out, part in zip(_chunks(codes), _chunks(examples.codes)):
    out[:len(part), :width] = (part.astype(np.float64) - mean) * scale
  labels = np.zeros(size, np.int32)
  labels[:count] = examples.labels
  return classifier.Padded(codes, labels, count)


def _chunks(values: np.ndarray) -> Iterator[np.ndarray]:
  """A few rows at a time, to compute with them in float64."""
  return (values[i:i + _CHUNK] for i in range(0, len(values), _CHUNK))


def _check(name: str, examples: Examples, num_classes: int) -> None:
  if not len(examples.labels):
    raise ValueError(f'expected {name} examples, got none')
  if not np.all(np.isfinite(examples.codes)):
    raise ValueError(f'expected finite {name} codes, got NaN or infinity')
  labels = np.asarray(examples.labels)
  if not 0 <= labels.min() <= labels.max() < num_classes:
    raise ValueError(
        f'expected {name} labels in [0, {num_classes}), got labels from '
        f'{labels.min()} to {labels.max()}')
