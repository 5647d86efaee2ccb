"""Classifiers for probes: MLPs, selected on validation examples.

Examples, codes and classes are padded to a few sizes, so that probes of codes
of almost any size run the same compiled program.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

Params = list[tuple[jax.Array, jax.Array]]  # Kernel and bias of each layer.

# Steps between measurements on validation examples; a 20th of all if these are
# fewer than 1,000.
_INTERVAL = 50
# Training ends when the loss has been this much above its lowest for a fifth
# of all steps, or when no more than this is left of it.
_WORSE, _PERFECT = 1.05, 1e-3
_CHUNK = 1024  # Number of examples that are measured at a time.
_NEVER = -1e9  # Logit of a class that is padding.


class Padded(NamedTuple):
  """Examples, padded to a power of two.

  Attributes:
    codes: `[P, D]` floats; D may be padded with zeros.
    labels: `[P]` ints.
    count: number of examples that are not padding; they come first.
  """

  codes: np.ndarray | jax.Array
  labels: np.ndarray | jax.Array
  count: int | jax.Array


def padded_size(size: int) -> int:
  """The next power of two, at least 16."""
  return max(16, 1 << (size - 1).bit_length())


def padded_width(size: int) -> int:
  """The number of dimensions to which a code is padded."""
  # The first layer of a wide code costs most: it is padded little.
  return padded_size(size) if size <= 64 else -(-size // 16) * 16


def initial(hidden_sizes: Sequence[int], num_inputs: int,
            frequencies: np.ndarray, seed: int) -> Params:
  """Initial parameters, which predict the frequencies of the classes.

  Args:
    hidden_sizes: numbers of units of the hidden layers.
    num_inputs: number of dimensions of the codes without padding, D. Kernels
      are Normal with a variance of 1 over the number of inputs.
    frequencies: `[num_classes]`, above 0.
    seed: seed of the kernels.

  Returns:
    The parameters, for padded codes and classes.
  """
  rng = np.random.default_rng(seed)
  params, inputs, width = [], num_inputs, padded_width(num_inputs)
  for units in hidden_sizes:
    kernel = np.zeros((width, units), np.float32)
    kernel[:inputs] = rng.normal(size=(inputs, units)) / np.sqrt(inputs)
    params.append((kernel, np.zeros(units, np.float32)))
    inputs = width = units
  # With a kernel of 0 the last layer predicts from its bias alone.
  bias = np.full(padded_size(len(frequencies)), _NEVER, np.float32)
  bias[:len(frequencies)] = np.log(frequencies)
  return [*params, (np.zeros((width, len(bias)), np.float32), bias)]


class _Training(NamedTuple):
  """The state of training.

  Attributes:
    step: number of steps that were taken.
    params: parameters.
    moments: state of Adam.
    best: parameters of the lowest loss on validation examples.
    lowest: that loss.
    most_accurate: parameters of the highest accuracy on validation examples;
      of those, the ones of the lowest loss.
    highest: that accuracy, and the negative loss.
    worse: number of steps for which the loss has been clearly above it.
  """

  step: jax.Array
  params: Params
  moments: optax.OptState
  best: Params
  lowest: jax.Array
  most_accurate: Params
  highest: tuple[jax.Array, jax.Array]
  worse: jax.Array


@functools.partial(jax.jit, static_argnames='batch_size')
def fit(key: jax.Array, params: Params, train: Padded, validation: Padded,
        num_steps: int, learning_rate: float, *, batch_size: int
        ) -> tuple[Params, Params]:
  """Trains a classifier by Adam with a cosine decay of the learning rate.

  Args:
    key: key of the minibatches.
    params: initial parameters.
    train: examples to learn from.
    validation: examples to choose the best parameters by.
    num_steps: maximum number of steps, which the decay takes.
    learning_rate: learning rate at the start.
    batch_size: number of examples per step.

  Returns:
    The parameters of the lowest cross-entropy on the validation examples, and
    those of the highest accuracy, each with those of the start among them.
  """
  adam = optax.scale_by_adam()
  interval = jnp.clip(num_steps // 20, 1, _INTERVAL)

  def block(state):
    rows = jax.random.randint(
        jax.random.fold_in(key, state.step), (_INTERVAL, batch_size), 0,
        train.count)

    def step(i, learner):
      params, moments = learner
      chosen = rows[i]
      grads = jax.grad(_loss)(
          params, train.codes[chosen], train.labels[chosen])
      grads, moments = adam.update(grads, moments)
      done = (state.step + i) / num_steps
      rate = learning_rate * 0.5 * (1 + jnp.cos(jnp.pi * done))
      return jax.tree.map(
          lambda p, g: p - rate * g, params, grads), moments

    end = jnp.minimum(state.step + interval, num_steps)
    params, moments = jax.lax.fori_loop(
        0, end - state.step, step, (state.params, state.moments))
    return measure(state._replace(params=params, moments=moments, step=end),
                   end - state.step)

  def measure(state, num_taken):
    loss, accuracy = score(state.params, validation)
    lowest, (highest, least) = (
        jnp.minimum(loss, state.lowest), state.highest)
    is_higher = (accuracy > highest) | (
        (accuracy == highest) & (-loss > least))

    def choose(is_better, others):
      return jax.tree.map(
          functools.partial(jnp.where, is_better), state.params, others)

    return state._replace(
        best=choose(loss < state.lowest, state.best), lowest=lowest,
        most_accurate=choose(is_higher, state.most_accurate),
        highest=jax.tree.map(
            functools.partial(jnp.where, is_higher), (accuracy, -loss),
            state.highest),
        worse=jnp.where(loss >= _WORSE * lowest, state.worse + num_taken, 0))

  def learns(state):
    return ((state.step < num_steps) & (5 * state.worse < num_steps)
            & (state.lowest > _PERFECT))

  loss, accuracy = score(params, validation)
  found = jax.lax.while_loop(learns, block, _Training(
      jnp.int32(0), params, adam.init(params), params, loss, params,
      (accuracy, -loss), jnp.int32(0)))
  return found.best, found.most_accurate


@jax.jit
def score(params: Params, examples: Padded) -> tuple[jax.Array, jax.Array]:
  """Mean cross-entropy in nats, and accuracy."""
  size = len(examples.labels)
  chunk = min(size, _CHUNK)  # It divides the size: both are powers of two.

  def add(i, totals):
    codes, labels = (
        jax.lax.dynamic_slice_in_dim(values, i * chunk, chunk)
        for values in (examples.codes, examples.labels))
    is_real = i * chunk + jnp.arange(chunk) < examples.count
    logits = _logits(params, codes)
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    hit = jnp.argmax(logits, axis=-1) == labels
    return tuple(total + jnp.sum(jnp.where(is_real, values, 0.0))
                 for total, values in zip(totals, (entropy, hit)))

  entropy, hits = jax.lax.fori_loop(
      0, -(-examples.count // chunk), add, (jnp.float32(0), jnp.float32(0)))
  return entropy / examples.count, hits / examples.count


def _logits(params: Params, codes: jax.Array) -> jax.Array:
  *hidden, last = params
  for kernel, bias in hidden:
    codes = jax.nn.relu(codes @ kernel + bias)
  kernel, bias = last
  return codes @ kernel + bias


def _loss(params: Params, codes: jax.Array, labels: jax.Array) -> jax.Array:
  return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(
      _logits(params, codes), labels))
